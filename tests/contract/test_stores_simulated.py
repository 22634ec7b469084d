"""The promises of the store port, kept by the simulated store in a world without faults."""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Concatenate, ParamSpec, TypeVar

import pytest

from mr.ports.store import Store
from tests.contract.store_contract import StoreContract, TransactionContract
from tests.simulation.backends import SimStore
from tests.simulation.real_time import RealTime

Given = ParamSpec("Given")
Answer = TypeVar("Answer")
Method = Callable[Concatenate["OneByOne", Given], Answer]


def _locked(method: Callable[Concatenate[SimStore, Given], Answer]) -> Method[Given, Answer]:
    def call(self: OneByOne, /, *args: Given.args, **kwargs: Given.kwargs) -> Answer:
        with self.turn:
            return method(self, *args, **kwargs)

    return call


class OneByOne(SimStore):
    """Threads enter it one after the other, as greenlets do by nature between two switch points."""

    def __init__(self, *, transactions: bool) -> None:
        super().__init__(RealTime(), transactions=transactions, broker=None)
        self.turn = threading.Lock()

    commit = _locked(SimStore.commit)
    get = _locked(SimStore.get)
    range = _locked(SimStore.range)
    count = _locked(SimStore.count)
    delete_prefix = _locked(SimStore.delete_prefix)
    revision = _locked(SimStore.revision)
    look = _locked(SimStore.look)
    grant = _locked(SimStore.grant)
    keep = _locked(SimStore.keep)
    revoke = _locked(SimStore.revoke)


class TestSingleKeys(StoreContract):
    @pytest.fixture
    def store(self) -> OneByOne:
        return OneByOne(transactions=False)

    @pytest.fixture
    def reopen(self, store: OneByOne) -> Callable[[], Store]:
        """What the store held goes on in a new one."""

        def again() -> Store:
            copied = copy.copy(store)
            store.close()
            return copied

        return again

    @pytest.fixture
    def outage(self, store: OneByOne) -> Callable[[], AbstractContextManager[object]]:
        @contextmanager
        def away() -> Iterator[None]:
            store._away_until = math.inf
            yield
            store._away_until = 0.0

        return away

    @pytest.fixture
    def lose_history(self, store: OneByOne) -> Callable[[], object]:
        return store.forget


class TestTransactions(TestSingleKeys, TransactionContract):
    @pytest.fixture
    def store(self) -> OneByOne:
        return OneByOne(transactions=True)
