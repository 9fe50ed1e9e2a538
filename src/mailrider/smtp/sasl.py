"""SASL for SMTP, both sides, sans I/O: PLAIN and LOGIN (RFC 4954, RFC 4616, draft-murchison-sasl-login).

Both hand over the password as it is, so both want TLS around them; whether there is TLS is decided elsewhere. The
exchanges are one step (PLAIN) or two (LOGIN), in base64 (RFC 4954 4). Passwords stay out of `repr`.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import Protocol

from mailrider.errors import InvalidValue
from mailrider.smtp.commands import Auth, AuthResponse

MAX_FIELD = 1024  # octets of a name or password: RFC 4616 2 asks for 255 at least
# RFC 4954 4: the AUTH command is no longer than other commands; what does not fit into it is sent behind a 334.
MAX_INITIAL = 512 - len("AUTH PLAIN \r\n")


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user's name and password. `acting_for` is the authorization identity; empty: the user itself.

    Octets that are not UTF-8 stand in them as surrogates: a password in Latin-1 is a wrong one, not a wrong protocol.
    """

    user: str
    password: str = field(repr=False)
    acting_for: str = ""

    def __post_init__(self) -> None:
        for text in (self.user, self.password, self.acting_for):
            if "\0" in text or len(text.encode("utf-8", "surrogatepass")) > MAX_FIELD:
                raise InvalidValue("user name and password must not hold NUL, nor be longer than 1,024 octets")
        if not self.user:
            raise InvalidValue("the user name is empty")


@dataclass(frozen=True, slots=True)
class Challenge:
    """What the server asks next, in base64, behind its 334."""

    text: str


class ServerExchange(Protocol):
    """The server's side of one exchange."""

    def take(self, response: str | None) -> Challenge | Credentials:
        """The client's next response in base64 (None: none came with AUTH). Raises `InvalidValue` for what is none."""


class PlainServer:
    """PLAIN: `[authzid] NUL authcid NUL passwd` in one response (RFC 4616 2)."""

    def take(self, response: str | None) -> Challenge | Credentials:
        """See `ServerExchange`."""
        if response is None:
            return Challenge("")
        parts = _decode(response).split("\0")
        if len(parts) != 3:
            raise InvalidValue("PLAIN takes three parts, separated by NUL (RFC 4616 2)")
        acting_for, user, password = parts
        return Credentials(user, password, acting_for)


class LoginServer:
    """LOGIN: name and password, each asked for."""

    def __init__(self) -> None:
        self._user: str | None = None

    def take(self, response: str | None) -> Challenge | Credentials:
        """See `ServerExchange`."""
        if response is None:
            return Challenge(_encode("Username:"))
        if self._user is None:
            self._user = _decode(response)
            return Challenge(_encode("Password:"))
        return Credentials(self._user, _decode(response))


SERVERS: dict[str, type[PlainServer] | type[LoginServer]] = {"PLAIN": PlainServer, "LOGIN": LoginServer}
"""The mechanisms that a server may offer, best first."""


class ClientExchange:
    """The client's side of one exchange, by the best mechanism that the server offers."""

    def __init__(self, credentials: Credentials, offered: frozenset[str]) -> None:
        known = [name for name in SERVERS if name in offered]
        if not known:
            has = ", ".join(sorted(offered)) or "none"
            raise InvalidValue(f"the server offers no mechanism that we have ({', '.join(SERVERS)}); it offers {has}")
        self.mechanism = known[0]
        self._credentials = credentials
        self._others = offered - {self.mechanism}
        if self.mechanism == "PLAIN":
            self._answers = [f"{credentials.acting_for}\0{credentials.user}\0{credentials.password}"]
        else:
            self._answers = [credentials.user, credentials.password]

    @property
    def has_another(self) -> bool:
        """True if the server offers a further mechanism that we have."""
        return not self._others.isdisjoint(SERVERS)

    def another(self) -> ClientExchange:
        """The exchange by the next best mechanism."""
        return ClientExchange(self._credentials, self._others)

    def begin(self) -> Auth:
        """The AUTH command, with the initial response where the mechanism has one that fits."""
        initial = _encode(self._answers[0])
        if self.mechanism == "LOGIN" or len(initial) > MAX_INITIAL:
            return Auth(self.mechanism)
        # The answer is kept: some servers overlook what came with AUTH, and ask for it by an empty challenge.
        return Auth(self.mechanism, initial)

    def answer(self) -> AuthResponse:
        """The answer to a challenge; `*`, which gives up, when the server asks for more than there is."""
        if not self._answers:
            return AuthResponse("*")
        return AuthResponse(_encode(self._answers.pop(0)))


def _encode(text: str) -> str:
    return base64.b64encode(text.encode("utf-8")).decode("ascii")


def _decode(response: str) -> str:
    # RFC 4954 4: an empty initial response is a single "=".
    try:
        return "" if response == "=" else base64.b64decode(response, validate=True).decode("utf-8", "surrogateescape")
    except (binascii.Error, ValueError) as error:
        raise InvalidValue("not base64 (RFC 4954 4)") from error
