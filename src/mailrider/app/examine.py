"""What would only be noticed when mail is on its way, looked for before a configuration is opened.

An address that this machine does not have to send from, a directory that cannot be one: opening a target does not touch
these, so it would succeed, and each message would be deferred. And the keys of DKIM, each at its own line.
"""

from __future__ import annotations

import errno
import socket
from functools import partial
from typing import TYPE_CHECKING

from mailrider.app.endpoints import try_endpoint
from mailrider.config import placed, targets_within
from mailrider.config.settings import default_state_dir
from mailrider.config.source import Problems
from mailrider.delivery.settings import RemoteSettings
from mailrider.delivery.smarthost_settings import SmarthostSettings
from mailrider.endpoint.settings import EndpointSettings
from mailrider.errors import ConfigError, LocalError, do_all
from mailrider.model.value import value
from mailrider.net.tls import make_client_context
from mailrider.policy.settings import STSCache
from mailrider.queue.settings import QueueSettings
from mailrider.signing.keys import examine_key
from mailrider.signing.open import DIRECTORY, key_in_use
from mailrider.x509.anchors import load_anchors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from ipaddress import IPv4Address, IPv6Address
    from pathlib import Path

    from mailrider.config import Configuration, Instance
    from mailrider.endpoint.settings import SourceSettings
    from mailrider.model.domain import Domain
    from mailrider.policy.settings import MXAuth
    from mailrider.queue.settings import BounceSettings
    from mailrider.settings.directive import Settings
    from mailrider.signing.settings import DKIMSettings, ModifySettings


def examine(configuration: Configuration) -> None:
    """Raises `ConfigError` for all that is wrong; or `LocalError` for the first thing that is not as it needs it."""
    do_all(partial(look, owner) for owner in configuration.owners for look in (examine_instance, examine_signatures))


def examine_instance(owner: Instance[Settings]) -> None:
    """A target or endpoint, and the targets within. Raises as `examine`."""
    steps: list[Callable[[], None]] = []
    if isinstance(owner.settings, EndpointSettings):
        steps.append(partial(try_endpoint, owner.settings))
        if owner.settings.spool is not None:
            steps.append(partial(_refuse_impossible_directory, "spool", owner.settings.spool))
    steps += [partial(_examine_target, settings, owner) for settings in targets_within(owner.settings)]
    with placed(owner):
        do_all(steps)


@value
class SignatureKey:
    """A DKIM key that mail may be signed with. `selector` is the one in use, `directory` where rotations are noted."""

    given: DKIMSettings
    domain: Domain
    selector: str
    path: Path
    directory: Path


def signatures_within(settings: Settings) -> Iterator[SignatureKey]:
    """Each DKIM key that mail through a target or endpoint may be signed with. Raises `ConfigError` as `key_in_use`."""
    for modify in _modifications(settings):
        state_dir = modify.state_dir or default_state_dir()
        for given in modify.dkim:
            for domain in given.domains:
                yield SignatureKey(given, domain, *key_in_use(given, domain, state_dir), state_dir / DIRECTORY)


def _modifications(settings: Settings) -> Iterator[ModifySettings]:
    pipelines: list[EndpointSettings | SourceSettings | BounceSettings] = []
    if isinstance(settings, EndpointSettings):
        pipelines += [settings, *settings.pipelines]
    found: list[ModifySettings | None] = []
    for target in targets_within(settings):
        if isinstance(target, QueueSettings | RemoteSettings):
            found.append(target.modify)
        if isinstance(target, QueueSettings) and target.bounce is not None:
            pipelines.append(target.bounce)
    for pipeline in pipelines:
        found += [pipeline.modify, *(route.modify for route in pipeline.routes)]
    yield from (each for each in found if each is not None)


def examine_signatures(owner: Instance[Settings]) -> None:
    """The DKIM keys of a target or endpoint. Raises `ConfigError` for all that are wrong."""
    problems = Problems(owner.position.source.name if owner.position is not None else "")
    for signature in signatures_within(owner.settings):
        try:
            examine_key(signature.path)
        except ConfigError as error:
            position = signature.given.position or owner.position
            if position is None:
                raise
            problems.add(position, error.problems[0].message)
    if problems:
        raise ConfigError(problems.in_order())


def _examine_target(settings: Settings, owner: Instance[Settings]) -> None:
    if not isinstance(settings, RemoteSettings | SmarthostSettings):
        return
    steps: list[Callable[[], object]] = []
    if settings.tls_client is not None:
        steps.append(partial(make_client_context, settings.tls_client))
        steps.append(partial(load_anchors, settings.tls_client.root_ca))
    if isinstance(settings, RemoteSettings):
        steps.append(partial(_refuse_impossible_cache, settings.mx_auth))
    do_all(steps)
    if settings.local_ip is not None:
        _refuse_foreign_address(settings.local_ip, owner)


def _refuse_foreign_address(address: IPv4Address | IPv6Address, owner: Instance[Settings]) -> None:
    """No mistake of the file for sure: an address may come later, with its interface."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((str(address), 0))
    except OSError as error:
        where = f"{owner.position}: " if owner.position is not None else ""
        reason = "this machine has no such address" if error.errno == errno.EADDRNOTAVAIL else error.strerror
        raise LocalError(f"{where}local_ip {address}: cannot send from there: {reason}") from error


def _refuse_impossible_cache(auth: MXAuth) -> None:
    """The cache of MTA-STS policies: a directory, or a place where one can be made."""
    if auth.mtasts is None or auth.mtasts.cache is not STSCache.FS:
        return
    _refuse_impossible_directory("fs_dir", auth.mtasts.fs_dir or default_state_dir() / "mtasts_cache")


def _refuse_impossible_directory(directive: str, directory: Path) -> None:
    obstacle = _no_directory(directory)
    if obstacle is not None:
        what = "" if obstacle == directory else f": {obstacle}"
        raise ConfigError(f"{directive} {directory}: expected a directory, and there is something else{what}")


def _no_directory(path: Path) -> Path | None:
    """What stands in the way of a directory at that path, if something that is none does."""
    for each in (path, *path.parents):
        if each.is_dir():
            return None
        if each.exists() or each.is_symlink():
            return each
    return None
