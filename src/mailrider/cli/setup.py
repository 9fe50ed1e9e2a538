"""What the commands make of the configuration: a target, and a log."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from mailrider.config import load
from mailrider.delivery.settings import RemoteSettings
from mailrider.errors import ConfigError
from mailrider.model.event import discard
from mailrider.observe.log import EventLog
from mailrider.queue.settings import QueueSettings

if TYPE_CHECKING:
    from mailrider.config import Configuration, Instance
    from mailrider.model.event import Emit


def choose_target(configuration: Configuration, name: str | None) -> Instance:
    """The target that is named, or the one that a direct delivery means: a `target.remote`, if there is just one."""
    if name is not None:
        return configuration.target(name)
    found = _remotes(configuration)
    if len(found) == 1:
        return found[0]
    if not found:
        raise ConfigError("no target.remote is configured, so there is no way to deliver a message")
    names = ", ".join(each.name or each.label for each in found)
    raise ConfigError(f"there are several targets, say with --target which one is meant: {names}")


def _remotes(configuration: Configuration) -> list[Instance]:
    every = (*configuration.deliver_to, *configuration.targets.values())
    return list({id(each.settings): each for each in every if isinstance(each.settings, RemoteSettings)}.values())


def remote_targets(configuration: Configuration) -> list[tuple[str, RemoteSettings]]:
    """Every `target.remote`, by what people call it."""
    return [
        (each.label, each.settings) for each in _remotes(configuration) if isinstance(each.settings, RemoteSettings)
    ]


def remote_settings(path: str | None, target: str | None) -> tuple[Configuration, RemoteSettings]:
    """The configuration, and the settings of the `target.remote` in it that is meant. Raises `ConfigError`."""
    configuration = load(path)
    instance = choose_target(configuration, target)
    if not isinstance(instance.settings, RemoteSettings):
        raise ConfigError(f"{instance.label} is no target.remote: it cannot be delivered to directly")
    return configuration, instance.settings


def choose_queue(configuration: Configuration, name: str | None) -> QueueSettings:
    """The queue that is named, or the only one. Raises `ConfigError`."""
    if name is not None:
        instance = configuration.target(name)
        if not isinstance(instance.settings, QueueSettings):
            raise ConfigError(f"{instance.label} is no target.queue")
        return instance.settings
    every = (*configuration.deliver_to, *configuration.targets.values())
    found = {id(each.settings): each for each in every if isinstance(each.settings, QueueSettings)}
    queues = [(each.label, each.settings) for each in found.values() if isinstance(each.settings, QueueSettings)]
    if not queues:
        raise ConfigError("no target.queue is configured")
    if len(queues) > 1:
        raise ConfigError(
            f"there are several queues, say which one is meant: {', '.join(label for label, _ in queues)}"
        )
    return queues[0][1]


def make_log(configuration: Configuration, *, debug: bool, quiet: bool) -> Emit:
    """The log that the configuration asks for; with `quiet` only under `debug`."""
    style = configuration.globals.log.value
    if style == "off" or (quiet and not debug):
        return discard
    return EventLog(sys.stderr, style=style, debug=debug)
