"""The promises of the broker port, kept by NSQ on a real nsqd."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from mr.adapters.brokers.nsq import NsqPublisher
from mr.adapters.brokers.nsq_consumer import NsqConsumer
from mr.ports.broker import Consumer, Publisher
from tests.contract.broker_contract import Abandon, BrokerContract
from tests.servers_nsq import NsqdServer

MSG_TIMEOUT_S = 2.0


@pytest.fixture(scope="module")
def server() -> Iterator[NsqdServer]:
    server = NsqdServer()
    server.start()
    yield server
    server.stop()


class TestNsq(BrokerContract):
    redelivery_s = MSG_TIMEOUT_S

    @pytest.fixture
    def publisher(self, server: NsqdServer) -> Iterator[Publisher]:
        publisher = NsqPublisher([server.address])
        yield publisher
        publisher.close()

    @pytest.fixture
    def make_consumer(self, server: NsqdServer) -> Callable[[], Consumer]:
        return lambda: NsqConsumer([server.address], msg_timeout_s=MSG_TIMEOUT_S, heartbeat_s=1)

    @pytest.fixture
    def abandon(self) -> Abandon:
        """Its connections end without a word, as the kernel ends those of a killed process."""

        async def abandon(consumer: Consumer) -> None:
            assert isinstance(consumer, NsqConsumer)
            for reader in consumer._readers.values():
                for link in reader.stop():  # stopped, it does not connect again
                    link.close()

        return abandon
