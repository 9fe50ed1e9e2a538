"""A resolver that answers nothing any more is told as such, through the resolver that a daemon opens."""

from __future__ import annotations

import random

import pytest

from mailrider.clock import SystemClock
from mailrider.dns.answer import LookupFailed
from mailrider.dns.opening import open_resolver
from mailrider.dns.outage import MANY
from mailrider.dns.resolver import lookup_mx
from mailrider.dns.settings import DNSSettings
from mailrider.lab.dns import LabDNS
from mailrider.lab.zones import Fault, ZoneTable
from mailrider.model.domain import Domain
from mailrider.model.event import DNSAvailable, DNSUnavailable, Event


async def test_servers_that_answer_for_no_domain_are_told_and_that_they_answer_again() -> None:
    names = [f"a{number}.test" for number in range(MANY)]
    zones: ZoneTable = {**dict.fromkeys(names, Fault.SERVFAIL), "good.test": {"MX": "10 mx.good.test"}}
    events: list[Event] = []
    async with LabDNS(zones) as server:
        settings = DNSSettings(server=str(server.server), attempts=1)
        async with open_resolver(settings, SystemClock(), random.Random(1), events.append) as resolver:
            for name in names:
                with pytest.raises(LookupFailed):
                    await lookup_mx(resolver, Domain(name))
            await lookup_mx(resolver, Domain("good.test"))
    told = [each for each in events if isinstance(each, DNSUnavailable | DNSAvailable)]
    assert [type(each) for each in told] == [DNSUnavailable, DNSAvailable]
    assert "SERVFAIL" in str(told[0])
