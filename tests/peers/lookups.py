"""A process that validates: `lookups.py SERVER ANCHOR [fork]`; says what it finds, and then waits to be killed."""

from __future__ import annotations

import asyncio
import os
import random
import sys

from mailrider.clock import SystemClock
from mailrider.dns.answer import RecordType
from mailrider.dns.caching import CachingResolver
from mailrider.dns.opening import open_resolver
from mailrider.dns.settings import DNSSettings
from mailrider.dns.validating import Validation
from mailrider.model.domain import Domain
from mailrider.model.event import discard


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def main(server: str, anchor: str, *more: str) -> None:
    settings = DNSSettings(server=[server], validate="yes", trust_anchor=[anchor])
    async with open_resolver(settings, SystemClock(), random.SystemRandom(), discard) as resolver:
        answer = await resolver.lookup(Domain("ecdsa.test"), RecordType.MX)
        say("secure" if answer.authentic else "insecure")
        if not more:
            await asyncio.Event().wait()
        assert isinstance(resolver, CachingResolver)
        assert isinstance(resolver.source, Validation)
        child = os.fork()
        if child == 0:
            asyncio.run(in_child(resolver.source))
            os._exit(0)
        os.waitpid(child, 0)
        answer = await resolver.lookup(Domain("rsa.test"), RecordType.MX)
        say("secure" if answer.authentic else "insecure")


async def in_child(validation: Validation) -> None:
    """What the library of the parent says here; closing it must not wait for a thread that is not here."""
    answer = await validation.ask("rsa.test", 15, fresh=False)
    say(f"the child hears: {answer.error}")
    await validation.aclose()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
