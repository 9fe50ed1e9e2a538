"""How often `explain` calls a server: once, where one connection tells all."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from mailrider.delivery.connection.unusable import Unusable
from mailrider.delivery.explain.dry_run import DryRun
from mailrider.model.outcome import TryResult
from mailrider.model.reply import Reply
from mailrider.model.security import NO_REQUIREMENT, Requirement, TLSLevel

if TYPE_CHECKING:
    from mailrider.delivery.connection.connect import Connector, ConnectRequest

DEMANDING = Requirement(min_tls=TLSLevel.AUTHENTICATED, tls_reason="test")


class Session:
    def __init__(self, *, tls: bool) -> None:
        self.evidence = SimpleNamespace(tls="TLSv1.3" if tls else None)
        self.farewells = 0

    async def quit(self) -> None:
        self.farewells += 1


class Calls:
    """Opens what it is told to, in turn."""

    def __init__(self, *results: Session | Unusable) -> None:
        self.results = list(results)
        self.opened = 0

    async def open(self, _: ConnectRequest) -> Session:
        self.opened += 1
        result = self.results.pop(0)
        if isinstance(result, Unusable):
            raise result
        return result


def call(requirement: Requirement) -> ConnectRequest:
    return cast("ConnectRequest", SimpleNamespace(mx="mx.test", address="192.0.2.1", requirement=requirement))


def unusable(stage: TryResult) -> Unusable:
    return Unusable(stage, Reply.make(451, "4.4.1", "no"))


TWICE = [
    (Session(tls=True), 1),
    (unusable(TryResult.CONNECT), 1),
    (Session(tls=False), 2),  # what demands TLS may fail in another way
    (unusable(TryResult.TLS), 2),  # what does not goes on in clear
]


@pytest.mark.parametrize(("first", "expected"), TWICE)
async def test_a_server_is_called_again_only_if_the_other_kind_of_message_may_fare_otherwise(
    first: Any, expected: int
) -> None:
    for order in ((NO_REQUIREMENT, DEMANDING), (DEMANDING, NO_REQUIREMENT)):
        calls = Calls(first, Session(tls=True))
        async with DryRun(cast("Connector", calls)) as dry_run:
            for requirement in order:
                await dry_run.contact(call(requirement))
                await dry_run.contact(call(requirement))
        assert calls.opened == expected


async def test_each_session_is_left_once() -> None:
    session = Session(tls=True)
    async with DryRun(cast("Connector", Calls(session))) as dry_run:
        assert await dry_run.contact(call(NO_REQUIREMENT)) is await dry_run.contact(call(DEMANDING))
    assert session.farewells == 1
