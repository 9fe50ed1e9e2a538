"""Which server we connect to, and the rules for all sessions with servers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mailrider.model.domain import NextHop
    from mailrider.model.tls_problem import TLSProblem


@dataclass(frozen=True, slots=True)
class SessionRules:
    """What a target's configuration says about all of its sessions with servers.

    `name`: what EHLO says. Times in seconds. `implicit_tls`: TLS at once (RFC 8314 3.3); `starttls` False: it is not
    used though it may be offered.
    """

    name: NextHop
    command_timeout: float
    submission_timeout: float
    lmtp: bool = False
    debug: bool = False
    implicit_tls: bool = False
    starttls: bool = True


@dataclass(frozen=True, slots=True)
class Peer:
    """The server to connect to: its MX host, address, port, name in TLS, and whether TLS is kept out (after it failed).

    `lenient`: see `PeerEvidence`. `name` is the host as reports show it.
    """

    host: NextHop
    address: str
    port: int
    server_name: str | None
    in_clear: TLSProblem | None = None
    lenient: bool = False
    name: str = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", str(self.host))
