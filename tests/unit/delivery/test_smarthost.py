"""Fixed servers: how reports name them, and what becomes of a connection that could not log in."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from mailrider.delivery.connection.connect import Connector
from mailrider.delivery.connection.unusable import Unusable
from mailrider.delivery.smarthost import AuthenticatingConnector, server_host
from mailrider.model.outcome import TryResult
from mailrider.model.reply import Reply
from mailrider.settings.socket_address import SocketAddress
from mailrider.smtp.sasl import Credentials

if TYPE_CHECKING:
    from mailrider.delivery.connection.connect import ConnectRequest
    from mailrider.delivery.connection.session import Session

CALL = cast("ConnectRequest", None)


class FakeSession:
    """A session that is asked to log in, and ends that with an exception, if it has one."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error
        self.is_aborted = False

    async def authenticate(self, _: Credentials) -> None:
        if self.error is not None:
            raise self.error

    def abort(self) -> None:
        self.is_aborted = True


class Opened(AuthenticatingConnector):
    """A connector whose connections are there already, and good enough for the password."""

    def __init__(self) -> None:
        self.credentials = Credentials("user", "secret")

    def judge(self, *_: Any) -> Any:
        return SimpleNamespace(refusal=None)


async def open_through(session: FakeSession, monkeypatch: pytest.MonkeyPatch) -> Session:
    async def opened(*_: object) -> FakeSession:
        return session

    monkeypatch.setattr(Connector, "open", opened)
    return await Opened().open(CALL)


@pytest.mark.parametrize(
    "error", [asyncio.CancelledError(), Unusable(TryResult.EHLO, Reply.make(451, "4.7.0", "no")), RuntimeError("bug")]
)
async def test_a_connection_that_did_not_log_in_is_closed(
    error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = FakeSession(error)
    with pytest.raises(type(error)):
        await open_through(session, monkeypatch)
    assert session.is_aborted


async def test_a_connection_that_logged_in_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    session = FakeSession(None)
    await open_through(session, monkeypatch)
    assert not session.is_aborted


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("tcp://smart.test:25", "smart.test"),
        ("tls://192.0.2.1:465", "[192.0.2.1]"),
        ("tcp://[2001:db8::1]:25", "[IPv6:2001:db8::1]"),
        ("unix:///run/dovecot/lmtp", "unix:///run/dovecot/lmtp"),
        ("unix:///run/\n ü", "unix:///run/%0A%20%C3%BC"),
    ],
)
def test_reports_name_a_server_as_it_is_configured_in_printable_octets(address: str, name: str) -> None:
    assert str(server_host(SocketAddress.parse(address))) == name
