"""Somebody on the path against a cached policy: real DNS, real HTTPS, real files, across restarts.

The table says what the attacker does after the policy was cached, and which policy is in force then. RFC 8461 10.2.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from mailrider.dns.servers import choose_servers
from mailrider.lab.ca import CA, Kind
from mailrider.lab.dns import LabDNS
from mailrider.lab.sts import LabSTS, PolicyHost, STSFault, policy
from mailrider.lab.zones import Fault, NameLike, Records, ZoneTable
from mailrider.model.domain import Domain
from mailrider.mtasts.policy import STSMode, match_mx
from mailrider.net.address_guard import ANYWHERE
from mailrider.net.https import HTTPSFetcher
from mailrider.policy.sts.events import PolicyFetchFailed, RecordLookupFailed, RecordUnusable
from mailrider.policy.sts.files import FSStore
from mailrider.policy.sts.source import PolicySource
from tests.support.patient_clock import PatientClock
from tests.support.resolvers import asking

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from mailrider.model.event import Event

GOOD = Domain("good.test")
MX, OTHER_MX = Domain("mx.good.test"), Domain("mx.evil.test")
POLICY = policy("enforce", "mx.good.test")


def record(policy_id: str) -> NameLike:
    """The TXT record, never cached, so that a change is seen at once."""
    return {"TXT": Records([f"v=STSv1; id={policy_id};"], ttl=0)}


class Net:
    """A private internet with one MTA-STS domain, and a sender that outlives its processes."""

    def __init__(self, dns: LabDNS, hosts: LabSTS, folder: Path, root: Path) -> None:
        self.dns = dns
        self.hosts = hosts
        self.events: list[Event] = []
        self._folder = folder
        self._root = root

    @property
    def zones(self) -> ZoneTable:
        return self.dns.zones

    @contextlib.asynccontextmanager
    async def process(self, attack: Callable[[Net], None] | None = None) -> AsyncIterator[PolicySource]:
        """One life of the sender, with less patience where DNS is going to be silent."""
        timeout = 2 if attack is silence_dns else 30
        clock, rng = PatientClock(), random.Random(1)
        store = FSStore(self._folder / "cache", clock, self.events.append)
        async with (
            asking(choose_servers([self.dns.server]), clock=clock, rng=rng, timeout=timeout, attempts=1) as resolver,
            HTTPSFetcher(resolver, clock, guard=ANYWHERE, port=self.hosts.port, root_ca=[self._root]) as fetcher,
            PolicySource(
                resolver=resolver, fetcher=fetcher, store=store, clock=clock, emit=self.events.append, rng=rng
            ) as source,
        ):
            yield source


@pytest.fixture(scope="module")
def ca() -> CA:
    return CA()


@pytest.fixture
async def net(ca: CA, tmp_path: Path) -> AsyncIterator[Net]:
    async with LabSTS(ca, {"good.test": PolicyHost(POLICY)}) as hosts:
        zones: ZoneTable = {
            "good.test": {"MX": "10 mx.good.test"},
            "_mta-sts.good.test": record("id1"),
            "mta-sts.good.test": {"A": Records([hosts.address], ttl=0)},
        }
        async with LabDNS(zones) as dns:
            yield Net(dns, hosts, tmp_path, ca.write_root(tmp_path))
    gc.collect()


def strip_record(net: Net) -> None:
    del net.zones["_mta-sts.good.test"]


def silence_dns(net: Net) -> None:
    net.zones["_mta-sts.good.test"] = Fault.SILENT


def break_dns(net: Net) -> None:
    net.zones["_mta-sts.good.test"] = Fault.SERVFAIL


def add_record(net: Net) -> None:
    net.zones["_mta-sts.good.test"] = {"TXT": Records(["v=STSv1; id=id1;", "v=STSv1; id=id2;"], ttl=0)}


def new_id(net: Net, host: PolicyHost | None = None) -> None:
    """The attacker makes us fetch, and has prepared the way there."""
    net.zones["_mta-sts.good.test"] = record("forged")
    if host is not None:
        net.hosts["good.test"] = host


def new_id_without_host(net: Net) -> None:
    new_id(net)
    del net.zones["mta-sts.good.test"]


EVIL = policy("none")

ATTACKS: dict[str, tuple[Callable[[Net], None], type[Event]]] = {
    "TXT record stripped": (strip_record, RecordUnusable),
    "TXT record spoiled by a second one": (add_record, RecordUnusable),
    "TXT lookups fail": (break_dns, RecordLookupFailed),
    "TXT lookups get no answer": (silence_dns, RecordLookupFailed),
    "new id, policy host closes": (lambda net: new_id(net, PolicyHost(fault=STSFault.CLOSE)), PolicyFetchFailed),
    "new id, name without an address": (new_id_without_host, PolicyFetchFailed),
    "new id, policy host redirects": (
        lambda net: new_id(net, PolicyHost(EVIL, status=302, location="https://mta-sts.evil.test/x")),
        PolicyFetchFailed,
    ),
    "new id, another certificate": (
        lambda net: new_id(net, PolicyHost(EVIL, certificate=Kind.WRONG_NAME)),
        PolicyFetchFailed,
    ),
    "new id, self-signed certificate": (
        lambda net: new_id(net, PolicyHost(EVIL, certificate=Kind.SELF_SIGNED)),
        PolicyFetchFailed,
    ),
    "new id, endless policy": (lambda net: new_id(net, PolicyHost(fault=STSFault.ENDLESS)), PolicyFetchFailed),
    "new id, policy cut off": (
        lambda net: new_id(net, PolicyHost(POLICY, fault=STSFault.SHORT)),
        PolicyFetchFailed,
    ),
    "new id, policy as a web page": (
        lambda net: new_id(net, PolicyHost(EVIL, content_type="text/html")),
        PolicyFetchFailed,
    ),
    "new id, no policy there": (lambda net: new_id(net, PolicyHost(status=404)), PolicyFetchFailed),
    "new id, nonsense instead": (lambda net: new_id(net, PolicyHost(b"mode: none\n")), PolicyFetchFailed),
}


@pytest.mark.parametrize(("attack", "event"), ATTACKS.values(), ids=ATTACKS)
async def test_the_cached_policy_stays_in_force_and_the_attack_is_told(
    net: Net, attack: Callable[[Net], None], event: type[Event]
) -> None:
    async with net.process(attack) as source:
        assert (await source.lookup(GOOD)).policy is not None
        attack(net)
        first = await source.lookup(GOOD)
    told = [each for each in net.events if isinstance(each, event)]
    assert [each.in_force for each in told] == [STSMode.ENFORCE]  # type: ignore[attr-defined]
    async with net.process(attack) as source:  # a restart changes nothing
        second = await source.lookup(GOOD)
    for found in (first, second):
        assert found.policy is not None
        assert found.policy.mode is STSMode.ENFORCE
        assert match_mx(found.policy, MX)
        assert not match_mx(found.policy, OTHER_MX)
        assert not found.is_uncertain


@pytest.mark.parametrize(("attack", "_"), ATTACKS.values(), ids=ATTACKS)
async def test_without_a_cached_policy_the_same_attack_leaves_none(
    net: Net, attack: Callable[[Net], None], _: type[Event]
) -> None:
    # RFC 8461 3.3: mail goes on as though there were no policy. 10.2: this is what caching and refreshing are for.
    attack(net)
    async with net.process(attack) as source:
        found = await source.lookup(GOOD)
    assert found.policy is None
    # A record that is plainly not there, or malformed, is a certain answer; anything else is a doubt.
    assert found.is_uncertain == (attack not in (strip_record, add_record))


async def test_an_old_policy_that_the_real_host_serves_is_the_policy(net: Net) -> None:
    # Whoever can serve with the host's certificate is the host; there is no order of ids to hold against it.
    async with net.process() as source:
        await source.lookup(GOOD)
        net.hosts["good.test"] = PolicyHost(policy("enforce", "new.good.test"))
        net.zones["_mta-sts.good.test"] = record("id2")
        await source.lookup(GOOD)
        net.hosts["good.test"] = PolicyHost(POLICY)
        net.zones["_mta-sts.good.test"] = record("id1")
        found = await source.lookup(GOOD)
    assert found.policy is not None
    assert match_mx(found.policy, MX)


async def test_a_hundred_messages_at_once_over_real_sockets_cause_one_fetch(net: Net) -> None:
    async with net.process() as source:
        answers = await asyncio.gather(*(source.lookup(GOOD) for _ in range(100)))
    assert all(found.policy is not None for found in answers)
    assert net.hosts.fetches("good.test") == 1
    assert net.dns.asked("_mta-sts.good.test", "TXT") == 1


async def test_the_policy_ends_with_its_max_age_over_real_time(net: Net) -> None:
    net.hosts["good.test"] = PolicyHost(policy("enforce", "mx.good.test", max_age=0))
    async with net.process() as source:
        found = await source.lookup(GOOD)
        assert found.policy is not None
        assert found.policy.max_age == timedelta(0)
        strip_record(net)
        assert (await source.lookup(GOOD)).policy is None


async def test_closing_while_a_fetch_is_under_way_leaves_nothing_behind(net: Net) -> None:
    net.hosts["good.test"] = PolicyHost(fault=STSFault.SILENT)
    before = asyncio.all_tasks()
    async with net.process() as source:
        waiting = asyncio.create_task(source.lookup(GOOD))
        await net.hosts.wait_fetched("good.test")
    await asyncio.wait([waiting])
    assert waiting.exception() is not None
    left = [task.get_coro() for task in asyncio.all_tasks() - before]
    assert [each for each in left if "/lab/" not in each.cr_code.co_filename] == []  # type: ignore[union-attr] # all are coroutines
