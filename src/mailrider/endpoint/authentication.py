"""Who is at the other end of a connection, and how it logs in (AUTH, RFC 4954): the exchange, and wrong passwords."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from mailrider.endpoint.logins import HELD_BACK
from mailrider.endpoint.user_names import login_name
from mailrider.errors import InvalidValue
from mailrider.model.endpoint_event import ClientRefused, LoginFailed, LoginHeldBack
from mailrider.model.ip import client_key
from mailrider.model.reply import Reply
from mailrider.smtp.commands import Auth, AuthResponse
from mailrider.smtp.replies import usual_reply
from mailrider.smtp.sasl import SERVERS, Challenge

if TYPE_CHECKING:
    from mailrider.endpoint.service import Service
    from mailrider.smtp.sasl import Credentials, ServerExchange
    from mailrider.smtp.server import ServerMachine


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


MAX_LOGINS: Final = 3  # wrong passwords on a connection
WRONG_LOGIN: Final = 2.0  # seconds that a wrong password waits for its reply: guessing shall be slow

_LOGGED_IN: Final = Reply.make(235, "2.7.0", "Welcome")
_WRONG: Final = Reply.make(535, "5.7.8", "Wrong user name or password")
_TOO_MANY_LOGINS: Final = Reply.make(421, "4.7.0", "Too many wrong passwords; good bye")
_MALFORMED: Final = Reply.make(501, "5.5.2", "This is not a valid response to AUTH")


class Authentication:
    """How far a client has come with AUTH; who has logged in is the `user` of the client."""

    __slots__ = ("_client", "_exchange", "_failed_logins", "_machine", "_service")

    def __init__(self, service: Service, client: Client, machine: ServerMachine) -> None:
        self._service = service
        self._client = client
        self._machine = machine
        self._exchange: tuple[ServerExchange, str] | None = None
        self._failed_logins = 0

    def forget(self) -> None:
        """Forget who has logged in: behind STARTTLS the session begins anew (RFC 3207 4.2)."""
        self._client.user = ""
        self._exchange = None

    async def reply(self, command: Auth | AuthResponse) -> Reply:
        """The answer to what the client has said; a wrong password waits for it."""
        if isinstance(command, Auth):
            self._exchange = SERVERS[command.mechanism](), command.mechanism
            response = command.initial_response
        else:
            response = command.response
        if response == "*" or self._exchange is None:
            return usual_reply(self._machine, command, self._service.hostname.ascii)
        try:
            step = self._exchange[0].take(response)
        except InvalidValue as error:
            service, client = self._service, self._client
            service.emit(ClientRefused(service.name, client.name, client.user, "AUTH", str(error)))
            return _MALFORMED
        return Reply(334, None, (step.text,)) if isinstance(step, Challenge) else await self._verify(step)

    async def _verify(self, credentials: Credentials) -> Reply:
        service, authenticator = self._service, self._service.authenticator
        if authenticator is None:
            return _WRONG
        reply = _WRONG
        if service.logins is None:
            verdict = await authenticator.verify(credentials)
        else:
            verdict = await service.logins.verify(authenticator, self._client.key, credentials)
        if verdict is True:
            self._client.user = login_name(credentials.user)
            return _LOGGED_IN
        user = credentials.user[:100].encode("utf-8", "replace").decode("utf-8")  # it may be no UTF-8
        if verdict is HELD_BACK:
            service.emit(LoginHeldBack(service.name, self._client.name, user))
            reply = HELD_BACK
        elif isinstance(verdict, Reply):
            return verdict
        else:
            service.emit(LoginFailed(service.name, self._client.name, user))
            await service.clock.sleep(WRONG_LOGIN)
        self._failed_logins += 1
        return _TOO_MANY_LOGINS if self._failed_logins >= MAX_LOGINS else reply
