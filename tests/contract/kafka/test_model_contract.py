"""The model of Kafka keeps what every client keeps, whether its clock stands still or moves with each call."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from headrace.core.times import Instant
from headrace.testing.clocks import ManualClock
from headrace.testing.contracts import kafka_times
from headrace.testing.contracts.kafka import CHECKS, KafkaUnderTest
from headrace.testing.kafka.model import KafkaModel
from headrace.testing.kafka.model_client import ModelClient


class _Waiting(ManualClock):
    """Moves on a little each time that it is asked, as a clock does while calls are made."""

    __slots__ = ()

    def now(self) -> Instant:
        return self.advance("1ms")


@pytest.mark.parametrize("check", CHECKS + kafka_times.CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
@pytest.mark.parametrize("clock", [ManualClock, _Waiting])
def test_contract(check: Callable[[KafkaUnderTest], None], clock: type[ManualClock]) -> None:
    model = KafkaModel(clock())
    under = KafkaUnderTest(client=ModelClient(model), again=ModelClient(model, batch=2), prefix="c.", trim=model.retain)
    check(under)
    under.close()
