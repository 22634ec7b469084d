"""The promises of the broker port, kept by the simulated broker in a world without faults."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mr.ports.broker import Consumer
from tests.contract.broker_contract import Abandon, BrokerContract
from tests.simulation.backends import SimBroker
from tests.simulation.consumer import SimConsumer
from tests.simulation.real_time import RealTime


class TestSimulated(BrokerContract):
    redelivery_s = SimBroker.TIMEOUT_S

    @pytest.fixture
    def publisher(self) -> SimBroker:
        return SimBroker(RealTime(), joins_commit=False)

    @pytest.fixture
    def make_consumer(self, publisher: SimBroker) -> Callable[[], Consumer]:
        return lambda: SimConsumer(publisher)

    @pytest.fixture
    def abandon(self) -> Abandon:
        async def abandon(consumer: Consumer) -> None:
            assert isinstance(consumer, SimConsumer)
            await consumer.die()

        return abandon
