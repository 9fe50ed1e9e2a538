"""Who is at the other end of a connection, as far as the system, the configuration and a login tell."""

from __future__ import annotations

from dataclasses import dataclass, field

from mailrider.model.ip import client_key


@dataclass(slots=True, eq=False)
class Client:
    """One client. `user` is who it has logged in as; all else stays as it was when the connection was made.

    `address`: its IP address, empty on a unix socket. `is_local`: nobody beyond this machine can be there. `uid`: whose
    process it is, where the system knows. `is_trusted`: it needs no login, because of its address.
    """

    address: str
    is_local: bool = False
    uid: int | None = None
    is_trusted: bool = False
    user: str = ""
    name: str = field(init=False)
    """Who it is, for people."""
    key: str = field(init=False)
    """Whom it counts for where each client has a share."""

    def __post_init__(self) -> None:
        self.name = self.address or ("local" if self.uid is None else f"uid {self.uid}")
        self.key = client_key(self.name)
