"""Rotation of DKIM keys: a key gets a successor, which signs once its record has been in DNS for long enough.

The configuration goes on naming the selector that it was written with. Beside its key stands `DOMAIN_SELECTOR.next`,
which says which selector comes after it, when its record was first seen in DNS, and since when it signs. Whoever signs
follows these files from the selector of the configuration to the one that signs now.

What always holds: a successor signs only after its record was seen, so that no receiver meets a signature whose record
is not there; and a file that cannot be read or understood is an error, never a silent step back to an old key, whose
record may be gone.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

from mailrider.errors import ConfigError
from mailrider.files import write_new

if TYPE_CHECKING:
    from pathlib import Path

    from mailrider.model.domain import Domain

MAX_FILE: Final = 4096  # octets
MAX_SUCCESSORS: Final = 200  # of one selector of a configuration: a rotation every month for 16 years


@dataclass(frozen=True, slots=True)
class Successor:
    """The selector that comes after another one. `seen`: its record was there then; `signs`: it signs since then."""

    selector: str
    made: datetime
    seen: datetime | None = None
    signs: datetime | None = None


def rotation_path(directory: Path, domain: Domain, selector: str) -> Path:
    """The file that says what comes after a selector."""
    return directory / f"{domain.ascii}_{selector}.next"


def read_successor(directory: Path, domain: Domain, selector: str) -> Successor | None:
    """What comes after a selector; None if nothing does. Blocks. Raises `ConfigError` if that cannot be known."""
    path = rotation_path(directory, domain, selector)
    try:
        with path.open("rb") as file:
            octets = file.read(MAX_FILE)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"dkim: {path} cannot be read: {error.strerror or error}") from error
    try:
        given = json.loads(octets)
        times = {name: datetime.fromisoformat(given[name]) for name in ("made", "seen", "signs") if given.get(name)}
        successor = Successor(str(given["selector"]), times.pop("made"), **times)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"dkim: {path} does not say which selector comes next") from error
    if any(each is not None and each.tzinfo is None for each in (successor.made, successor.seen, successor.signs)):
        raise ConfigError(f"dkim: {path} has a time without a time zone")
    return successor


def write_successor(directory: Path, domain: Domain, selector: str, successor: Successor) -> None:
    """Note it, as a whole or not at all. Blocks. Raises `OSError`."""
    path = rotation_path(directory, domain, selector)
    times = {name: getattr(successor, name) for name in ("made", "seen", "signs")}
    written = {name: None if time is None else time.isoformat(timespec="seconds") for name, time in times.items()}
    text = json.dumps({"selector": successor.selector, **written})
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        write_new(unfinished, f"{text}\n".encode(), 0o644)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def selector_in_use(directory: Path, domain: Domain, selector: str) -> str:
    """The selector that signs where the configuration names this one. Blocks. Raises `ConfigError`."""
    for _ in range(MAX_SUCCESSORS):
        successor = read_successor(directory, domain, selector)
        if successor is None or successor.signs is None:
            return selector
        selector = successor.selector
    raise ConfigError(f"dkim: the files .next of {domain} lead from selector to selector without end")
