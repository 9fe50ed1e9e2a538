"""The lab as the tests of other programs use it: the fixture `mailrider_lab`.

It runs in a thread of its own, so that tests may be asynchronous or not.
"""

from __future__ import annotations

import email
import email.policy
import socket
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self, TypeVar

from mailrider.app.library import load
from mailrider.delivery.settings import RemoteSettings
from mailrider.lab.internet import Internet
from mailrider.lab.mx_script import MXScript, PortState, Stage, parse_reply
from mailrider.sync import InThread

if TYPE_CHECKING:
    from collections.abc import Callable
    from email.message import EmailMessage
    from pathlib import Path

    from mailrider.lab.mx import LabMX
    from mailrider.lab.mx_connection import LabMessage

T = TypeVar("T")

PATIENCE = 10.0  # seconds that `wait_for` waits, if nobody says otherwise
_PAUSE = 0.02


@dataclass(frozen=True, slots=True)
class SentMessage:
    """A message that a server of the lab has taken. `content` is what came, octet by octet; `tls`: over TLS."""

    sender: str
    recipients: tuple[str, ...]
    content: bytes
    host: str
    tls: bool

    @property
    def message(self) -> EmailMessage:
        """It as a program reads it."""
        return email.message_from_bytes(self.content, policy=email.policy.default)


class PytestLab:
    """A private internet: `dane.test`, `sts.test`, `plain.test` and all other domains of `mailrider lab`.

    `settings` are those of a target that delivers there: `mailrider.Remote(lab.settings)`,
    `mailrider.Queue(target=lab.settings, ...)`, and the same of `mailrider.sync`. `configuration_file` is for programs
    that load one; its target is called `lab`.
    """

    def __init__(self, folder: Path) -> None:
        self._internet = Internet(folder, port=_free_port(), dns_port=0, https_port=0)
        self._thread = InThread(lambda: self._internet)
        self.configuration_file = self._internet.configuration_file

    def __enter__(self) -> Self:
        self._thread.open()
        target = load(self.configuration_file).configuration.target("lab").settings
        assert isinstance(target, RemoteSettings)  # noqa: S101 # our own configuration says so
        self.settings = target
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.close()

    @property
    def port(self) -> int:
        """The port of all mail servers."""
        return self._internet.world.port

    @property
    def domains(self) -> dict[str, str]:
        """All domains, with what each of them shows."""
        return {each.name: each.story for each in self._internet.world.domains}

    # What was sent ----------------------------------------------------------------------------------------------------

    def sent_to(self, address: str) -> list[SentMessage]:
        """The messages for an address that were taken so far, for each server in the order in which they came."""
        return [each for each in self.sent() if address.lower() in map(str.lower, each.recipients)]

    def sent(self) -> list[SentMessage]:
        """All messages that were taken so far."""
        return self._within(
            lambda net: [_sent(name, each) for name, server in net.servers.items() for each in server.messages]
        )

    def wait_for(self, address: str, *, count: int = 1, seconds: float = PATIENCE) -> list[SentMessage]:
        """The messages for an address, once there are so many: a queue delivers after it has taken a message.

        Raises `TimeoutError`.
        """
        end = time.monotonic() + seconds  # noqa: TID251 # a person's patience
        while len(found := self.sent_to(address)) < count:
            if time.monotonic() > end:  # noqa: TID251 # as above
                raise TimeoutError(f"{address} got {len(found)} of {count} messages within {seconds:g} seconds")
            time.sleep(_PAUSE)
        return found

    # Faults -----------------------------------------------------------------------------------------------------------

    def refuse(self, who: str, reply: str = "550 5.1.1 No such user", *, times: int | None = None) -> None:
        """Answer RCPT for an address, or for everybody in a domain, with that reply: always, or so many times."""
        code = parse_reply(reply).code
        if not 400 <= code < 600:
            raise ValueError(f"a refusal begins with 4 or 5, not with {code}")
        step = reply if times is None else [reply] * times
        _, at, domain = who.rpartition("@")
        if at:
            self._change(domain, lambda script: replace(script, recipients={**script.recipients, who: step}))
        else:
            self._change(domain, lambda script: replace(script, replies={**script.replies, Stage.RCPT: step}))

    def play(self, domain: str, script: MXScript) -> None:
        """Let the server of a domain do anything that `mailrider.lab.mx_script.MXScript` can say."""
        self._change(domain, lambda _: script)

    def unreachable(self, domain: str, *, silent: bool = False) -> None:
        """Refuse connections to a domain's server, or let them time out; open ones are cut."""
        server = self._server(domain)
        port_state = PortState.UNANSWERED if silent else PortState.CLOSED
        self._thread.call(lambda _: server.set_port_state(port_state))

    def reachable(self, domain: str) -> None:
        """Take connections again."""
        server = self._server(domain)
        self._thread.call(lambda _: server.set_port_state(PortState.OPEN))

    def _change(self, domain: str, change: Callable[[MXScript], MXScript]) -> None:
        server = self._server(domain)

        def set_script(_: Internet) -> None:
            server.script = change(server.script)

        self._within(set_script)

    def _server(self, domain: str) -> LabMX:
        server = self._internet.servers.get(f"mx.{domain}")
        if server is None:
            known = [name.removeprefix("mx.") for name in self._internet.servers if name.startswith("mx.")]
            raise ValueError(f"no domain {domain!r} with a server is in the lab: there are {', '.join(known)}")
        return server

    def _within(self, work: Callable[[Internet], T]) -> T:
        """Do something in the lab's own thread, where nothing changes meanwhile."""

        async def run(internet: Internet) -> T:
            return work(internet)

        return self._thread.call(run)


def _sent(host: str, message: LabMessage) -> SentMessage:
    recipients = tuple(message.addresses)
    return SentMessage(message.sender, recipients, message.content, host, message.connection.tls is not None)


def _free_port() -> int:
    """A port that is free on every loopback address at the moment."""
    with socket.socket() as probe:
        probe.bind(("0.0.0.0", 0))
        port: int = probe.getsockname()[1]
    return port
