"""The resolver: who is asked, whether anybody validates, our own validation, and whether our clock fits DNS."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from mailrider.app.check.finding import Level, error, note, ok, warning
from mailrider.dns.advisories import debian_version, unmended
from mailrider.dns.answer import LookupFailed, LookupFailure, RecordType
from mailrider.dns.caching import CachingResolver
from mailrider.dns.servers import CURE, SYSTEMD_RESOLVED
from mailrider.dns.signature_time import lookup_signature_times
from mailrider.dns.unbound import LibraryMissing, load_library
from mailrider.model.event import DNSServerUnfit, RootKeysMissing, SecurityUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mailrider.app.check.finding import Finding
    from mailrider.clock import Clock
    from mailrider.dns.resolver import Resolver
    from mailrider.dns.servers import ServerChoice
    from mailrider.model.domain import Domain
    from mailrider.model.event import Event

NO_VALIDATOR: Final = "validate auto: "  # how the reason begins if there is no library that validates


def about_servers(choice: ServerChoice) -> Iterator[Finding]:
    """What to know of the servers that are configured, before anything is asked. Pure."""
    if choice.counting and choice.ignored:
        asked, ignored = (", ".join(map(str, servers)) for servers in (choice.asked, choice.ignored))
        yield ok("resolver", f"only {asked} is asked; {ignored} is not, since it is not trusted for DNSSEC")
    for server in choice.counting:
        if server.ip == SYSTEMD_RESOLVED:
            text = (
                f"{server} is systemd-resolved, whose older versions pass on the AD bit of any server (systemd#34121)"
            )
            yield warning("resolver", text, "a resolver of your own, such as unbound on 127.0.0.1, is safer")
        elif server.trusted and not server.ip.is_loopback:
            text = f"{server} is believed because of trust: whoever is on the way to it can forge DNSSEC"
            yield note("resolver", text, "trust only a server in the same pod or on a protected link")


async def check_resolver(resolver: Resolver, signed: Domain, bogus: Domain) -> Finding:
    """Does it validate? A signed name must be authentic, a bogus one must fail."""
    if isinstance(resolver, CachingResolver):
        await resolver.settled()
    off = "DNSSEC and DANE are off"
    if not resolver.validates:
        return warning("resolver", resolver.dnssec_off, CURE)
    try:
        answer = await resolver.lookup(signed, RecordType.MX)
    except LookupFailed as fault:
        return error("resolver", f"{fault}; mail is deferred as long as DNS fails", "see that our resolver runs")
    if not answer.authentic:
        text = f"{signed} is signed, but came without AD: it does not validate; {off}"
        if _validates_itself(resolver):
            text = f"{signed} is taken for unsigned: look for a domain above it in `insecure`"
        return warning("resolver", text, "" if _validates_itself(resolver) else CURE)
    try:
        await resolver.lookup(bogus, RecordType.A)
    except LookupFailed as fault:
        if fault.failure not in (LookupFailure.SERVFAIL, LookupFailure.BOGUS):
            return warning("resolver", f"{fault}; whether it refuses wrong signatures is not known")
        by = f"; {resolver.validated_by}" if _validates_itself(resolver) else ""
        return ok("resolver", f"it validates: {signed} is authentic, {bogus} is refused{by}")
    text = f"it gave an answer for {bogus}, whose signature is wrong: it does not validate all zones"
    return warning("resolver", text, "look for exceptions (domain-insecure, negative trust anchors) in it")


def about_resolver(found: Finding, resolver: Resolver, events: Iterable[Event], *, needs: bool) -> list[Finding]:
    """What came of trying the resolver, and what happened meanwhile, each cause once. `needs`: DNSSEC is wanted."""
    happened = list(about_validation(resolver, events))
    is_off = not resolver.validates and found.level is Level.WARNING
    if found.level is Level.WARNING and not needs:
        return [note("resolver", f"{found.text}; the configuration names all servers, so nothing here needs DNSSEC")]
    if is_off and happened:  # we would validate by ourselves, and that says why we do not
        found = replace(found, cure="")
        if any(each.text.startswith(NO_VALIDATOR) for each in happened):
            return [replace(each, text=f"DNSSEC and DANE are off: {each.text}") for each in happened]
    return [found, *happened]


def _validates_itself(resolver: Resolver) -> bool:
    return isinstance(resolver, CachingResolver) and resolver.validates_itself


def about_validation(resolver: Resolver, events: Iterable[Event]) -> Iterator[Finding]:
    """What happened while the resolver was tried, and what is known of the library that validates."""
    for event in events:
        match event:
            case DNSServerUnfit(server=server, reason=reason):
                text = f"{server} is not asked for validation: {reason}"
                yield warning("resolver", text, "ask another server, or let somebody mend this one")
            case RootKeysMissing(tags=tags):
                text = f"the root has keys that no trust anchor stands for: {', '.join(map(str, tags))}"
                cure = "update mailrider or dns-root-data, or name a file with the new key: dns { trust_anchor FILE }"
                yield warning("resolver", text, cure)
            case SecurityUnavailable(reason=reason) if reason.startswith(NO_VALIDATOR):
                yield warning("resolver", reason)
            case _:
                pass
    if _validates_itself(resolver):
        yield from about_library()


def about_library() -> Iterator[Finding]:
    """Faults of libunbound that are known, and not mended in the version that is installed."""
    try:
        version = load_library().version
    except LibraryMissing:  # it was there a moment ago: an update is under way
        return
    for each in unmended(version, debian_version()):
        text = f"libunbound {version} has a known fault, {each.name}: {each.what}"
        yield note("resolver", text, f"update it: mended in {each.mended}, or in your system's own update")


async def check_clock(signed: Domain, choice: ServerChoice, clock: Clock) -> list[Finding]:
    """Whether our clock is within the times of a signature in DNS: a validating resolver here has the same clock."""
    times = await lookup_signature_times(signed, choice, clock)
    if not times:
        return []
    now = clock.now()
    fitting = [each for each in times if each.inception <= now <= each.expiration]
    if fitting:
        return [ok("clock", f"it fits the signatures of {signed}, which hold until {fitting[0].expiration:%Y-%m-%d}")]
    first = times[0]
    text = (
        f"it says {now:%Y-%m-%d %H:%M} UTC, and the signatures of {signed} hold from {first.inception:%Y-%m-%d %H:%M} "
        f"to {first.expiration:%Y-%m-%d %H:%M}: signed names cannot be looked up with it"
    )
    return [error("clock", text, "set it (timedatectl), and let NTP keep it")]
