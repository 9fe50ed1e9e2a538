"""What must be counted together over the processes of a daemon: limits, connections, clients.

Whoever opens a target or an endpoint asks `Shares`. Where there is one process limits are counted here
(`delivery.limits.process_limits`), and nothing else has to be asked. `WorkerShares` is for a worker of several: all is
counted by its supervisor (`delivery.limits.share_client`).
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from mailrider.delivery.limits.findings import SharedFinding
from mailrider.delivery.limits.lines import Line
from mailrider.delivery.limits.process_limits import ProcessLimits
from mailrider.delivery.limits.rules import Limiter
from mailrider.delivery.settings import Rate
from mailrider.errors import ConfigError
from mailrider.model.domain import Domain
from mailrider.model.tls_problem import TLSProblem, TLSProblemKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Self

    from mailrider.clock import Clock
    from mailrider.delivery.limits.lines import Need
    from mailrider.delivery.limits.share_client import Answer, ShareClient
    from mailrider.delivery.limits.waiter import Counts
    from mailrider.delivery.settings import Limit, LimitsSettings

WAITS_FOR_EVER: Final = 1e9  # seconds: the pool says when a connection was waited for too long


class Shares:
    """Limits, connections and clients: what is counted together, and known together. This one is for the only process.

    All who refer to a limits block of the same name share it. `successor` is for the configuration that comes in the
    place of this one: what it does not change goes on counting. A block is the same if it has the same name; one
    without a name, if it has the same owner. `close` when the configuration is over.
    """

    workers: int = 1
    """How many processes there are."""
    client: ShareClient | None = None
    """Who asks, and tells the others; None where there are none."""

    def __init__(self, clock: Clock, before: Self | None = None, *, by_owner: bool = False) -> None:
        """`by_owner`: remember blocks without a name, too."""
        self._clock = clock
        self._by_owner = by_owner
        self._counts: ProcessLimits = ProcessLimits(clock) if before is None else before._counts
        self._numbers: itertools.count[int] = itertools.count(1) if before is None else before._numbers
        self._number = next(self._numbers)
        self._blocks: dict[str, Limiter] = {}

    def successor(self) -> Self:
        """The shares of the next configuration, before any of its blocks is known."""
        return type(self)(self._clock, self, by_owner=self._by_owner)

    def close(self) -> None:
        """The configuration is over, or was refused; none of its messages is inside."""
        self._counts.retract(self._number)

    def limiter(self, settings: LimitsSettings | None, owner: str = "") -> Limiter | None:
        """The block in force; None where nothing is limited. Raises `ConfigError` for two blocks of one name.

        `owner` says whose a block without a name is.
        """
        if settings is None:
            return None
        if settings.name is None and not (self._by_owner and owner):
            own = ProcessLimits(self._clock)  # which ends with the block
            return _limiter(settings, "", self._clock, own, partial(own.declare, self._number))
        block = settings.name or f"of {owner}"
        if block not in self._blocks:
            self._blocks[block] = self._make(settings, block)
        known = self._blocks[block]
        if known.settings != settings:
            raise ConfigError(f"there are two different limits of the name {settings.name or owner}")
        return known

    def _make(self, settings: LimitsSettings, block: str) -> Limiter:
        return _limiter(settings, block, self._clock, self._counts, partial(self._counts.declare, self._number))

    def connections(self, owner: str, per_host: int, total: int) -> ConnectionShares | None:
        """The connections of one target; None: nobody else has any."""
        return None

    def clients(self, owner: str, most: int, most_of_one: int) -> ClientShares | None:
        """The clients of one endpoint; None: nobody else has any."""
        return None


class WorkerShares(Shares):
    """What one worker of several shares with the others: its supervisor counts."""

    def __init__(self, clock: Clock, client: ShareClient) -> None:
        super().__init__(clock, by_owner=True)
        self.client = self._asks = client
        self.workers = client.workers

    def _make(self, settings: LimitsSettings, block: str) -> Limiter:
        return _limiter(settings, block, self._clock, self._asks, self._asks.declare)

    def connections(self, owner: str, per_host: int, total: int) -> ConnectionShares:
        """See `Shares`."""
        return ConnectionShares(self._asks, owner, per_host, total)

    def clients(self, owner: str, most: int, most_of_one: int) -> ClientShares:
        """See `Shares`."""
        return ClientShares(self._asks, owner, most, most_of_one)


def _limiter(
    settings: LimitsSettings, block: str, clock: Clock, counts: Counts, declare: Callable[[Line], None]
) -> Limiter:
    names: dict[str, list[str]] = {}
    for scope, limits in _by_scope(settings):
        lines = list(_lines(block, scope, limits))
        for line in lines:
            declare(line)
        names[scope] = [line.name for line in lines]
    return Limiter(settings, clock, counts, names)


def _by_scope(settings: LimitsSettings) -> tuple[tuple[str, tuple[Limit, ...]], ...]:
    """The lines of a block."""
    return (
        ("all", settings.all),
        ("ip", settings.ip),
        ("source", settings.source),
        ("destination", settings.destination),
    )


def _lines(block: str, scope: str, limits: Sequence[Limit]) -> Iterator[Line]:
    """A line of the book for each of a scope: the same in the next configuration if the limit is.

    A rate is the same if it has the same numbers. Those who are inside a concurrency stay inside, also if its number is
    another one then: so concurrencies are counted off.
    """
    met: Counter[str] = Counter()
    for limit in limits:
        word = str(limit) if isinstance(limit, Rate) else "concurrency"
        met[word] += 1
        name = f"limits {block} {scope} {word} {met[word]}"
        if isinstance(limit, Rate):
            yield Line(name, limit.burst, limit.period.total_seconds())
        else:
            yield Line(name, limit.maximum)


# Connections ----------------------------------------------------------------------------------------------------------


class ConnectionShares:
    """The right to have connections to the hosts of one target: a right for each."""

    def __init__(self, client: ShareClient, owner: str, per_host: int, total: int) -> None:
        self._client = client
        self._per_host = Line(f"connections {owner} host", per_host, spares=False)
        self._total = Line(f"connections {owner} all", total, spares=False)

    def open(self, recalled: Callable[[str | None, int, int], None]) -> None:
        """`recalled`: others want so many connections, to a host, or to any (None); so many may be kept."""
        self._client.declare(self._per_host, recalled)
        self._client.declare(self._total, lambda _, keep, wanted: recalled(None, keep, wanted))

    def ask(self, host: str, answered: Callable[[Answer], None]) -> None:
        """For one more, however long that takes."""
        self._client.ask(self._needs(host), answered, WAITS_FOR_EVER)

    def give_back(self, host: str) -> None:
        """A right to a connection to that host is not needed any more."""
        self._client.leave(self._needs(host))

    def _needs(self, host: str) -> Sequence[Need]:
        return (self._per_host.name, host), (self._total.name, "")


# Clients --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TurnedAway:
    """Why a client cannot come; `is_counted`: because of how many there are."""

    reason: str
    is_counted: bool = True


class ClientShares:
    """How many clients an endpoint serves at once: in all, and from one address."""

    def __init__(self, client: ShareClient, owner: str, most: int, most_of_one: int) -> None:
        self._client = client
        self._all = Line(f"clients {owner} all", most, places=False)
        self._one = Line(f"clients {owner} one", most_of_one, places=False)
        client.declare(self._all)
        client.declare(self._one)

    async def enter(self, kind: str, key: str) -> TurnedAway | None:
        """A client of that key comes; `leave` is due. Or why it cannot. Those of another kind count for themselves."""
        answer = await self._client.enter(self._needs(kind, key))
        if answer is None:
            return None
        if answer.is_unanswered:
            return TurnedAway("connections cannot be counted now: the supervisor does not answer", is_counted=False)
        if answer.need[0] == self._all.name:
            return TurnedAway(f"there are {self._all.maximum} connections already (max_connections)")
        return TurnedAway(f"it has {self._one.maximum} connections already (max_client_connections)")

    def leave(self, kind: str, key: str) -> None:
        """A client of that key is gone."""
        self._client.leave(self._needs(kind, key))

    def _needs(self, kind: str, key: str) -> Sequence[Need]:
        return (self._all.name, kind), (self._one.name, f"{kind} {key}")


# What is known together -----------------------------------------------------------------------------------------------


class SharedFailures:
    """Fetches of MTA-STS policies that failed; see `policy.sts.source.FailedFetches`."""

    def __init__(self, client: ShareClient, owner: str) -> None:
        self._client = client
        self._topic = f"policies {owner}"

    def tell(self, domain: Domain, problem: TLSProblem, until: float) -> None:
        """See `FailedFetches`."""
        body = [problem.kind.value, problem.text, problem.code, problem.lines]
        self._client.tell(SharedFinding(self._topic, domain.ascii, body, until))

    def hear(self, hearer: Callable[[Domain, TLSProblem, float], None]) -> None:
        """See `FailedFetches`."""

        def heard(told: SharedFinding) -> None:
            if told.until is not None:
                kind, text, code, lines = told.body
                problem = TLSProblem(TLSProblemKind(kind), text, code, tuple(lines))
                hearer(Domain.parse(told.key), problem, told.until)

        self._client.hear(self._topic, heard)
