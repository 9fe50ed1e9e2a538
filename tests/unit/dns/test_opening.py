"""From `dns { }` to a resolver: who validates, and what is said where nobody can."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest

from mailrider.dns import opening
from mailrider.dns.opening import open_resolver, trust_anchors
from mailrider.dns.settings import DNSSettings
from mailrider.dns.unbound import LibraryMissing
from mailrider.dns.validating import Unvalidated
from mailrider.errors import ConfigError
from mailrider.model.event import Event, SecurityUnavailable, discard
from mailrider.testing.clock import FakeClock
from tests.unit.dns.test_unbound import FakeLibrary

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mailrider.dns.caching import CachingResolver

AWAY = "192.0.2.1:9"


@pytest.fixture
def library() -> Iterator[FakeLibrary]:
    made = FakeLibrary()
    yield made
    made.close()


def missing() -> Any:
    raise LibraryMissing("libunbound cannot be loaded")


async def opened(load: Any, events: list[Event], **settings: Any) -> CachingResolver:
    dns = DNSSettings(**settings)
    async with open_resolver(dns, FakeClock(), random.Random(1), events.append, load=load) as resolver:
        return resolver


async def test_by_default_we_do_not_validate_and_load_nothing() -> None:
    events: list[Event] = []
    assert isinstance((await opened(pytest.fail, events, server=AWAY)).source, Unvalidated)
    assert [type(event) for event in events] == [SecurityUnavailable]


@pytest.mark.parametrize("validate", ["yes", "auto"])
async def test_with_the_library_we_validate(library: FakeLibrary, validate: str) -> None:
    assert not isinstance((await opened(lambda: library, [], server=AWAY, validate=validate)).source, Unvalidated)


@pytest.mark.parametrize("server", [AWAY, "127.0.0.1:9"])
async def test_yes_without_the_library_is_an_error_of_the_configuration(server: str) -> None:
    with pytest.raises(ConfigError, match="dns: validate yes: libunbound cannot be loaded"):
        await opened(missing, [], server=server, validate="yes")


async def test_auto_without_the_library_goes_on_and_says_why_dnssec_is_off() -> None:
    events: list[Event] = []
    assert isinstance((await opened(missing, events, server=AWAY, validate="auto")).source, Unvalidated)
    first = events[0]
    assert isinstance(first, SecurityUnavailable)
    assert first.reason == "validate auto: libunbound cannot be loaded"


async def test_auto_without_the_library_says_nothing_of_it_beside_a_server_that_counts() -> None:
    events: list[Event] = []
    await opened(missing, events, server="127.0.0.1:9", validate="auto")
    assert not any("libunbound" in getattr(event, "reason", "") for event in events)


@pytest.mark.parametrize("server", ["tls://192.0.2.1#dns.test", "recursive"])
async def test_auto_without_the_library_cannot_ask_what_only_the_library_can(server: str) -> None:
    with pytest.raises(ConfigError, match="validate auto"):
        await opened(missing, [], server=server, validate="auto")


async def test_an_option_that_the_library_refuses_is_found_at_the_start(library: FakeLibrary) -> None:
    library.refuses = "harden-glue"
    with pytest.raises(ConfigError, match="refused option harden-glue"):
        await opened(lambda: library, [], server=AWAY, validate="yes")
    assert isinstance((await opened(lambda: library, [], server=AWAY, validate="auto")).source, Unvalidated)


async def test_servers_over_tls_and_the_root(library: FakeLibrary, tmp_path: Path) -> None:
    dns = DNSSettings(server="tls://192.0.2.1#dns.test", validate="yes", insecure=["corp.test"])
    load: Any = lambda: library  # noqa: E731
    async with open_resolver(dns, FakeClock(), random.Random(1), discard, tls_roots="/r", load=load) as resolver:
        assert not isinstance(resolver.source, Unvalidated)
    assert library.forwarders[0] == "192.0.2.1@853#dns.test"
    assert ("domain-insecure:", "corp.test") in library.options
    library.forwarders.clear()
    await opened(load, [], server="recursive", validate="auto")
    assert library.forwarders == []


async def test_files_with_trust_anchors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "shipped_anchors", tuple)
    file = tmp_path / "anchor"
    file.write_text(". IN DS 7 8 2 " + "00" * 32)
    assert [anchor.tag for anchor in trust_anchors(DNSSettings(trust_anchor=[file, file]))] == [7]
    with pytest.raises(ConfigError, match=r"dns: trust_anchor: .*none: No such file"):
        await opened(pytest.fail, [], server=AWAY, validate="auto", trust_anchor=[tmp_path / "none"])
