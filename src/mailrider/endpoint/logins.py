"""Who may try a password now: guessing is slow for whoever does it, and nobody's guessing keeps others out.

Wrong passwords are counted by client (`model.ip.client_key`) and by user. Who has had too many is asked to come again
(454), without a look at the password, so that nothing can be learnt meanwhile. What always holds:

- a stranger cannot lock a user out of the address that he logs in from: a user and a client that have logged in
  together are *known*, and only their own wrong passwords count against them;
- one client has few passwords under way at once, and strangers together leave some places for those who are known;
- loopback and unix sockets are not counted as one client: a web mail there logs in for all its users;
- of several workers each learns what the others find out (`tell`, `learn`): nobody has more tries for their number;
- memory is bounded, and what is counted is never forgotten for the sake of newcomers (`delivery.limits.windows`).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from mailrider.delivery.limits.windows import RateWindow
from mailrider.model.bounded_map import BoundedMap
from mailrider.model.reply import Reply

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mailrider.clock import Clock
    from mailrider.endpoint.service import Authenticator
    from mailrider.smtp.sasl import Credentials

# Wrong passwords in so many seconds, each line holds: who makes more waits longer.
OF_CLIENT: Final = ((5, 60.0), (20, 3600.0), (60, 86400.0))
OF_USER: Final = ((10, 60.0), (50, 3600.0))
OF_KNOWN: Final = ((10, 60.0), (60, 3600.0))

AT_ONCE: Final = 10  # passwords of one client that are looked at
STRANGERS: Final = 30  # of all clients that are not known; a password file has places for some more
MAX_KEYS: Final = 100_000  # clients and users that are counted for themselves; 24 MB if there are as many
MAX_USERS: Final = 20_000  # of whom the good clients are remembered
MAX_GOOD: Final = 20  # clients of a user
MAX_USER: Final = 255  # characters of a name by which it is counted

HELD_BACK: Final = Reply.make(454, "4.7.0", "Too many wrong passwords, try again later")  # RFC 4954 4
BUSY: Final = Reply.make(454, "4.7.0", "Too many logins at once, try again later")


class _Counted:
    """Wrong passwords by some key, with all limits on them."""

    def __init__(self, limits: Iterable[tuple[int, float]]) -> None:
        self._windows = [RateWindow(most, seconds, max_keys=MAX_KEYS) for most, seconds in limits]

    def is_open(self, key: str, now: float) -> bool:
        return all(window.opens_at(key, now) <= now for window in self._windows)

    def count(self, key: str, now: float) -> None:
        for window in self._windows:
            window.take(key, now)


@dataclass(frozen=True, slots=True)
class LoginFinding:
    """What came of a password: right or wrong, and whether this user and client were known before."""

    client: str
    user: str
    is_right: bool
    was_known: bool


class Logins:
    """The wrong passwords of a process, and who is known. `client` is a `client_key` everywhere."""

    def __init__(self, clock: Clock, tell: Callable[[LoginFinding], None] | None = None) -> None:
        """`tell` is called with what other processes are to `learn`."""
        self._clock = clock
        self._tell = tell
        self._by_client = _Counted(OF_CLIENT)
        self._by_user = _Counted(OF_USER)
        self._by_known = _Counted(OF_KNOWN)
        self._good: BoundedMap[str, BoundedMap[str, None]] = BoundedMap(MAX_USERS)  # the clients of each user
        self._under_way: Counter[str] = Counter()  # of strangers

    async def verify(self, authenticator: Authenticator, client: str, credentials: Credentials) -> bool | Reply:
        """True if the password is right; a reply if it was not looked at."""
        user = credentials.user.casefold()[:MAX_USER]
        known = client in self._good.get(user, ())
        if not self._may_try(client, user, self._clock.monotonic(), known=known):
            return HELD_BACK
        if known:
            verdict = await authenticator.verify(credentials)
        elif self._under_way[client] >= AT_ONCE or self._under_way.total() >= STRANGERS:
            return BUSY
        else:
            verdict = await self._verify_stranger(authenticator, client, credentials)
        if verdict is True:
            self._remember(client, user)
        elif verdict is False:
            self._count(client, user, self._clock.monotonic(), known=known)
        if self._tell is not None and isinstance(verdict, bool) and not (verdict and known):
            self._tell(LoginFinding(client, user, is_right=verdict, was_known=known))
        return verdict

    def learn(self, finding: LoginFinding, at: float | None = None) -> None:
        """Another process has looked at a password, `at` that moment; None: just now."""
        client, user, known = finding.client, finding.user, finding.was_known
        now = self._clock.monotonic() if at is None else at
        if finding.is_right:
            self._remember(client, user)
        elif self._may_try(client, user, now, known=known):
            self._count(client, user, now, known=known)

    async def _verify_stranger(
        self, authenticator: Authenticator, client: str, credentials: Credentials
    ) -> bool | Reply:
        self._under_way[client] += 1
        try:
            return await authenticator.verify(credentials)
        finally:
            self._under_way[client] -= 1
            if not self._under_way[client]:
                del self._under_way[client]

    def _may_try(self, client: str, user: str, now: float, *, known: bool) -> bool:
        if known:
            return self._by_known.is_open(f"{client} {user}", now)
        if not _is_shared(client) and not self._by_client.is_open(client, now):
            return False
        return self._by_user.is_open(user, now)

    def _count(self, client: str, user: str, now: float, *, known: bool) -> None:
        if known:
            self._by_known.count(f"{client} {user}", now)
            return
        if not _is_shared(client):
            self._by_client.count(client, now)
        self._by_user.count(user, now)

    def _remember(self, client: str, user: str) -> None:
        clients = self._good.get(user) or BoundedMap(MAX_GOOD)
        clients[client] = None
        self._good[user] = clients


def _is_shared(client: str) -> bool:
    """True for what stands for many users by its nature: loopback, and programs on unix sockets."""
    try:
        return ip_address(client.partition("/")[0]).is_loopback
    except ValueError:
        return True
