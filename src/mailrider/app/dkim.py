"""The DKIM keys of a configuration as an operator sees them: which there are, what DNS says of them, their rotation.

A rotation is taken step by step, by whoever calls `rotate`: a successor is made; its record is waited for; once the
record has been in DNS for `settle`, the successor signs. What was found is noted beside the keys (`signing.rotation`),
so each step may come from another process, days later.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from mailrider.app.examine import SignatureKey, signatures_within
from mailrider.dkim.record import compare, is_testing, record_name
from mailrider.dns.answer import LookupFailed, RecordType
from mailrider.errors import ConfigError
from mailrider.signing.keys import dns_record, examine_key, key_path, open_key
from mailrider.signing.rotation import Successor, read_successor, write_successor
from mailrider.x509.key_kind import KeyKind

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime, timedelta
    from pathlib import Path

    from mailrider.config import Configuration
    from mailrider.dns.resolver import Resolver
    from mailrider.model.domain import Domain
    from mailrider.model.event import Emit
    from mailrider.x509.signing import SigningKey

MAX_A_DAY: Final = 100  # selectors that are made for one domain on one day
_LETTERS: Final = {"rsa": "r", "ed25519": "e"}


def keys_in_use(configuration: Configuration, domain: Domain | None = None) -> list[SignatureKey]:
    """What the configuration signs with, each key once; of one domain, or of all. Raises `ConfigError`."""
    found: dict[tuple[Domain, str, Path], SignatureKey] = {}
    for owner in configuration.owners:
        for each in signatures_within(owner.settings):
            if domain is None or each.domain == domain:
                found.setdefault((each.domain, each.given.selector, each.path), each)
    return list(found.values())


@dataclass(frozen=True, slots=True)
class Published:
    """What DNS says of a key. `fault`: why receivers cannot verify what it signs; `unknown`: why that is not known."""

    fault: str = ""
    unknown: str = ""
    testing: bool = False

    @property
    def is_right(self) -> bool:
        """True if the record is there, and is that of the key."""
        return not self.fault and not self.unknown


async def lookup_published(
    resolver: Resolver, used: SignatureKey, key: SigningKey, selector: str | None = None
) -> Published:
    """Ask DNS, not the cache, for the record of a key, or of one that is to take its place under another selector."""
    try:
        name = record_name(used.domain, selector or used.selector)
        answer = await resolver.lookup(name, RecordType.TXT, fresh=True)
    except LookupFailed as error:
        return Published(unknown=str(error))
    fault = compare(answer.records, key.name, key.public, subdomains=used.given.options.sign_subdomains)
    return Published(fault, testing=not fault and is_testing(answer.records))


def new_selector(directory: Path, domain: Domain, kind: str, now: datetime) -> str:
    """A selector that no key of this domain has: the day, and a letter for the kind of key. Raises `ConfigError`."""
    for number in range(1, MAX_A_DAY):
        selector = f"s{now:%Y%m%d}{_LETTERS[kind]}{number if number > 1 else ''}"
        if not key_path(directory, domain, selector).exists():
            return selector
    raise ConfigError(f"dkim: {domain} has {MAX_A_DAY} selectors of this day already")


class Step(enum.Enum):
    """How far a rotation is."""

    WAITS = "its record is not in DNS yet"
    SEEN = "its record is in DNS"
    SIGNS = "it signs"


@dataclass(frozen=True, slots=True)
class Rotation:
    """One key on its way out. `record` is what has to be in DNS; `found` what is."""

    old: SignatureKey
    successor: Successor
    record: str
    step: Step
    found: Published


async def rotate(key: SignatureKey, resolver: Resolver, now: datetime, settle: timedelta, emit: Emit) -> Rotation:
    """The next step. Raises `ConfigError` and `OSError`."""
    if key.given.options.key_path is not None:
        raise ConfigError(
            f"dkim: the key of {key.domain} {key.selector} is at a key_path of the configuration; take that out, or "
            "name another selector and another key_path there"
        )
    current = examine_key(key.path)
    if current is None:
        raise ConfigError(f"dkim: there is no key {key.path} yet; `mailrider dkim new {key.domain} {key.selector}`")
    successor = read_successor(key.directory, key.domain, key.selector)
    if successor is None:
        successor = _begin(key, current, now)
    path = key_path(key.directory, key.domain, successor.selector)
    made = open_key(path, _kind(key, current), key.domain, successor.selector, emit)
    found = await lookup_published(resolver, key, made, successor.selector)
    if found.is_right:
        successor = replace(successor, seen=successor.seen or now)  # when it was seen first counts
    elif found.fault:
        successor = replace(successor, seen=None)
    step = Step.WAITS if successor.seen is None else Step.SEEN
    if found.is_right and successor.seen is not None and now - successor.seen >= settle:
        successor, step = replace(successor, signs=now), Step.SIGNS
    write_successor(key.directory, key.domain, key.selector, successor)
    return Rotation(key, successor, dns_record(key.domain, successor.selector, made), step, found)


def _begin(key: SignatureKey, current: SigningKey, now: datetime) -> Successor:
    successor = Successor(new_selector(key.directory, key.domain, current.name, now), now)
    write_successor(key.directory, key.domain, key.selector, successor)
    return successor


def _kind(key: SignatureKey, current: SigningKey) -> KeyKind:
    """What the successor is: as the one before it, but no shorter than it should be."""
    if current.name == "ed25519":
        return KeyKind.ED25519
    asked = key.given.options.newkey_algo
    return asked if asked is not KeyKind.ED25519 else KeyKind.RSA2048


@dataclass(frozen=True, slots=True)
class KeyFile:
    """A key that is there. `state` says in words what it is for."""

    domain: str
    selector: str
    kind: str
    state: str
    path: str


def list_keys(configuration: Configuration, directory: Path, domain: Domain | None = None) -> Iterator[KeyFile]:
    """Every key in the configuration and in the directory. Raises `ConfigError`."""
    told: set[Path] = set()
    for each in keys_in_use(configuration, domain):
        yield from _of_configuration(each, told)
    for path in sorted(directory.glob("*.key")):
        name, _, selector = path.stem.rpartition("_")
        if path not in told and (domain is None or name == domain.ascii):
            yield KeyFile(name, selector, _kind_of(path), "the configuration does not use it", str(path))


def _of_configuration(key: SignatureKey, told: set[Path]) -> Iterator[KeyFile]:
    def row(selector: str, path: Path, state: str) -> Iterator[KeyFile]:
        if path not in told:
            told.add(path)
            yield KeyFile(key.domain.ascii, selector, _kind_of(path), state, str(path))

    selector = key.given.selector
    while selector != key.selector:
        successor = read_successor(key.directory, key.domain, selector)
        if successor is None or successor.signs is None:
            break  # it has changed meanwhile
        state = f"{successor.selector} signs in its place since {successor.signs:%Y-%m-%d %H:%M} UTC"
        yield from row(selector, key_path(key.directory, key.domain, selector), state)
        selector = successor.selector
    is_there = key.path.exists()
    yield from row(key.selector, key.path, "signs" if is_there else "is made when it is first needed")
    pending = None if key.given.options.key_path else read_successor(key.directory, key.domain, key.selector)
    if pending is not None:
        path = key_path(key.directory, key.domain, pending.selector)
        yield from row(pending.selector, path, f"will sign in place of {key.selector}, once its record is in DNS")


def _kind_of(path: Path) -> str:
    key = examine_key(path) if path.exists() else None
    return "" if key is None else key.name
