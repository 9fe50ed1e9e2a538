"""From `dns { }` to an open resolver: who is asked, and who validates.

`validate no`: the servers are asked, and `ProofKeeper` proves them. `yes`: `ValidationKeeper` validates what they say;
what it needs and is not there is an error of the configuration. `auto`: the same if the library can be used, else as
with `no`, and then it is said loudly why.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

from mailrider.dns.anchors import AnchorFileError, read_anchor_file, shipped_anchors
from mailrider.dns.caching import CachingResolver
from mailrider.dns.probe import Prober
from mailrider.dns.proof import ProofKeeper
from mailrider.dns.servers import configured_servers
from mailrider.dns.settings import Validate
from mailrider.dns.stub import NameServers
from mailrider.dns.transport import Transport
from mailrider.dns.unbound import LibraryMissing, Upstreams, Validator, ValidatorUnusable, load_library
from mailrider.dns.validation import Proven, Validates, ValidationKeeper
from mailrider.errors import ConfigError
from mailrider.model.event import SecurityUnavailable

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncIterator, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from mailrider.clock import Clock
    from mailrider.dns.anchors import Anchor
    from mailrider.dns.servers import ServerAddress, ServerChoice
    from mailrider.dns.settings import DNSSettings
    from mailrider.dns.unbound import Library
    from mailrider.dns.validating import Asks, OpenValidator
    from mailrider.model.event import Emit

RECURSION_PATIENCE: Final = 30.0  # seconds: from a cold root down to a name below several zones, with slow servers


@asynccontextmanager
async def open_resolver(
    settings: DNSSettings,
    clock: Clock,
    rng: random.Random,
    emit: Emit,
    *,
    proven: Proven | None = None,
    tls_roots: str = "",
    load: Callable[[], Library] = load_library,
) -> AsyncIterator[CachingResolver]:
    """The resolver that the settings want, open. Raises `ConfigError` for what cannot be.

    `proven` is what this process knows of its own validation; `tls_roots` the file with the certificates to trust.
    """
    timeout = settings.timeout.total_seconds()
    choice = configured_servers(settings.server)
    servers = NameServers(choice, clock=clock, rng=rng, timeout=timeout, attempts=settings.attempts)
    validation = await _prepare(settings, choice, emit, tls_roots, load)
    if validation is None:
        resolver = CachingResolver(servers, clock, emit, cache_size=settings.cache)
        async with resolver, ProofKeeper(resolver, clock, emit):
            yield resolver
        return
    how, open_validator = validation
    patience = timeout * settings.attempts  # for one question: as long as the servers themselves would be asked
    if not _forwarders(how.servers):
        patience = max(RECURSION_PATIENCE, patience)
    prober = Prober(open_validator, Transport(), clock, rng, timeout=timeout, patience=patience)
    resolver = CachingResolver(servers, clock, emit, cache_size=settings.cache, validator=str(how), patience=patience)
    keeper = ValidationKeeper(resolver, how, prober, clock, emit, proven or Proven())
    async with resolver, keeper:
        if how.is_auto and choice.counting:
            async with ProofKeeper(resolver, clock, emit):
                yield resolver
        else:
            yield resolver


def _forwarders(servers: Sequence[ServerAddress]) -> tuple[ServerAddress, ...]:
    """Those to hand questions to; none means the recursion from the root."""
    return tuple(server for server in servers if server.is_plain or server.tls_name)


async def _prepare(
    settings: DNSSettings, choice: ServerChoice, emit: Emit, tls_roots: str, load: Callable[[], Library]
) -> tuple[Validates, OpenValidator] | None:
    """How to validate, tried once; None if we do not."""
    if settings.validate is Validate.NO:
        return None
    is_auto, servers = settings.validate is Validate.AUTO, choice.configured
    anchors = trust_anchors(settings)
    try:
        library = load()
        how = Validates(servers, anchors, f"libunbound {library.version}", is_auto)
        open_validator = partial(_open_validator, library, anchors, settings, tls_roots)
        async with open_validator(servers, True):  # an option that is refused is found now, and not in the background
            pass
    except (LibraryMissing, ValidatorUnusable) as error:
        if not is_auto or not all(server.is_plain for server in servers):
            raise ConfigError(f"dns: validate {settings.validate.value}: {error}") from error
        if choice.dnssec_off:
            emit(SecurityUnavailable(f"validate auto: {error}"))
        return None
    return how, open_validator


def trust_anchors(settings: DNSSettings) -> tuple[Anchor, ...]:
    """The anchors of the settings and ours. Raises `ConfigError` for a file that cannot be read."""
    try:
        files = [anchor for path in settings.trust_anchor for anchor in read_anchor_file(path)]
    except AnchorFileError as error:
        raise ConfigError(f"dns: trust_anchor: {error}") from error
    return tuple(dict.fromkeys((*shipped_anchors(), *files)))


def _open_validator(
    library: Library,
    anchors: Sequence[Anchor],
    settings: DNSSettings,
    tls_roots: str,
    servers: tuple[ServerAddress, ...],
    caches: bool,
) -> AbstractAsyncContextManager[Asks]:
    return Validator(
        library,
        Upstreams(_forwarders(servers), tls_roots),
        [anchor.text for anchor in anchors],
        insecure=[domain.ascii for domain in settings.insecure],
        caches=caches,
    )
