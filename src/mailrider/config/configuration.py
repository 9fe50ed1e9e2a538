"""A configuration that was read and is right: what everything else is made from.

Values only: no object of the engine exists yet, nothing was opened. Settings from a file are complete: what a block
leaves to the global directives has been filled in (`complete`).
"""

from __future__ import annotations

import dataclasses
import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from mailrider.config.kinds import KINDS
from mailrider.config.nearest import did_you_mean
from mailrider.config.settings import default_state_dir
from mailrider.config.source import Problems
from mailrider.endpoint.settings import EndpointSettings
from mailrider.errors import ConfigError, LocalError, MailriderError
from mailrider.files import error_text
from mailrider.model.text import few
from mailrider.net.settings import ServerTLS
from mailrider.queue.settings import QueueSettings
from mailrider.settings.directive import InvalidSetting, Settings, directives_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from mailrider.config.settings import Globals
    from mailrider.config.source import Position

SettingsT = TypeVar("SettingsT", bound=Settings)
SettingsT_co = TypeVar("SettingsT_co", bound=Settings, covariant=True)

DIRECT = ("target.remote", "target.smtp", "target.lmtp")  # targets that deliver at once


@dataclass(frozen=True, slots=True)
class Instance(Generic[SettingsT_co]):
    """A block with its settings. `name` is None for one that stands where it is used; `position` for errors."""

    kind: str
    name: str | None
    settings: SettingsT_co
    position: Position | None = None

    @property
    def is_target(self) -> bool:
        """True if messages can be given to it."""
        return self.kind in KINDS and KINDS[self.kind].is_target

    @property
    def label(self) -> str:
        """What people call it."""
        return f"{self.kind} {self.name}" if self.name else self.kind


@dataclass(frozen=True, slots=True)
class Configuration:
    """The whole of it. `path` is None for the built-in defaults and for a text that is no file.

    `instances` are the named blocks, in the order of the file; `deliver_to` the targets that the top level names, by
    reference or as inline blocks; `endpoints` the blocks that accept mail. `secret_files` are the files that secrets
    stand in.
    """

    globals: Globals
    instances: Mapping[str, Instance[Settings]]
    deliver_to: tuple[Instance[Settings], ...] = ()
    path: Path | None = None
    endpoints: tuple[Instance[EndpointSettings], ...] = ()
    secret_files: tuple[Path, ...] = ()

    @property
    def targets(self) -> dict[str, Instance[Settings]]:
        """The named targets."""
        return {name: instance for name, instance in self.instances.items() if instance.is_target}

    def target(self, name: str) -> Instance[Settings]:
        """A target by its name; `ConfigError` if there is none."""
        targets = self.targets
        if name not in targets:
            known = f"; there are: {few(targets)}" if targets else "; there are none"
            raise ConfigError(f'no target is named "{name}"{did_you_mean(name, targets) or known}')
        return targets[name]

    @property
    def owners(self) -> tuple[Instance[Settings], ...]:
        """What mail goes through, each with all that stands in its block: targets, and endpoints."""
        return *self.deliver_to, *self.targets.values(), *self.endpoints


def targets_within(settings: object) -> Iterator[Settings]:
    """A target, and those that stand in its block, or in that of an endpoint; references are to others."""
    if isinstance(settings, EndpointSettings):
        for target in settings.every_target:
            yield from targets_within(target)
    elif isinstance(settings, Settings):
        yield settings
    if isinstance(settings, QueueSettings):
        yield from targets_within(settings.target)
        for target in () if settings.bounce is None else settings.bounce.targets:
            yield from targets_within(target)


def queue_location(settings: QueueSettings) -> Path:
    """The directory of a queue."""
    return settings.location or default_state_dir() / "queue"


def direct_targets(configuration: Configuration) -> list[Instance[Settings]]:
    """Every target that delivers at once, those within the blocks of queues and endpoints too."""
    return [each for each in _every_target(configuration) if each.kind in DIRECT]


def looks_for_servers(configuration: Configuration) -> bool:
    """True if a target finds its servers by MX records, and so by DNSSEC and DANE: others have theirs by name."""
    return any(each.kind == "target.remote" for each in direct_targets(configuration))


def queues_of(configuration: Configuration) -> list[Instance[QueueSettings]]:
    """Every queue, those within the blocks of endpoints and of other queues too; these have no name."""
    return [
        Instance(each.kind, each.name, each.settings, each.position)
        for each in _every_target(configuration)
        if isinstance(each.settings, QueueSettings)
    ]


def kept_directories(configuration: Configuration) -> set[str]:
    """The directories of its queues, behind all links."""
    return {os.path.realpath(queue_location(each.settings)) for each in queues_of(configuration)}


def dropped_queues(old: Configuration, new: Configuration) -> list[tuple[str, Path]]:
    """The queues that one configuration has and the next one has not, or has elsewhere: names and directories.

    Links are followed: a queue may have the same directory by another path.
    """
    kept = kept_directories(new)
    queues = [(each.name or "", queue_location(each.settings)) for each in queues_of(old)]
    return [(name, location) for name, location in queues if os.path.realpath(location) not in kept]


def _every_target(configuration: Configuration) -> Iterable[Instance[Settings]]:
    """Each once, wherever it stands."""
    found: dict[int, Instance[Settings]] = {}
    for owner in configuration.owners:
        for settings in targets_within(owner.settings):
            kind = next(kind.name for kind in KINDS.values() if kind.settings is type(settings))
            name = owner.name if settings is owner.settings else None
            found.setdefault(id(settings), Instance(kind, name, settings, owner.position))
    return found.values()


@contextmanager
def placed_at(position: Position | None) -> Iterator[None]:
    """Around what may find a directive wrong: its problems are told with that place, but for those that have one."""
    try:
        yield
    except ConfigError as error:
        if position is None:
            raise
        problems = Problems(position.source.name)
        for each in error.problems:
            if not each.file:
                problems.add(position, each.message)
        raise ConfigError((*(each for each in error.problems if each.file), *problems.in_order())) from error


@contextmanager
def placed(instance: Instance[Settings]) -> Iterator[None]:
    """Around what opens an instance: what only that shows to be wrong is told with the place of its block."""
    try:
        with placed_at(instance.position):
            yield
    except MailriderError:
        raise
    except OSError as error:
        where = instance.label if instance.position is None else f"{instance.position}: {instance.label}"
        raise LocalError(f"{where}: {error_text(error)}") from error


def complete(settings: SettingsT, global_settings: Globals) -> SettingsT:
    """The settings with everything filled in that they leave to the global ones.

    Raises `InvalidSetting` if something that is required stands in neither.
    """
    changes: dict[str, Any] = {}
    for name, known in directives_of(type(settings)).items():
        value = getattr(settings, name)
        if known.only_global or (known.inherits and value is None):
            changes[name] = value = getattr(global_settings, name)
        if isinstance(value, ServerTLS) and value.protocols is not None and not value.is_on:
            changes[name] = value = dataclasses.replace(global_settings.tls, protocols=value.protocols)
        if known.state_path and value is None:
            changes[name] = global_settings.state_dir / known.state_path
        if known.required and value is None:
            raise InvalidSetting(
                name, "it is required, here or at the top level" if known.inherits else "it is required"
            )
        completed = _complete_inside(value, global_settings)
        if completed is not value:
            changes[name] = completed
    return dataclasses.replace(settings, **changes) if changes else settings  # type: ignore[type-var] # a dataclass


def _complete_inside(value: Any, global_settings: Globals) -> Any:
    """Settings within settings, also in lists and as parts of a value."""
    if isinstance(value, Settings):
        return complete(value, global_settings)
    if isinstance(value, tuple):
        items = tuple(_complete_inside(item, global_settings) for item in value)
        return value if all(new is old for new, old in zip(items, value, strict=True)) else items
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        nested = {name: complete(part, global_settings) for name, part in parts.items() if isinstance(part, Settings)}
        return dataclasses.replace(value, **nested) if nested else value
    return value
