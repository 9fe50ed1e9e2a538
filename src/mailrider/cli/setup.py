"""What the commands make of the configuration: a target, and a log."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from mailrider.config import DIRECT, Instance, direct_targets, queues_of
from mailrider.errors import ConfigError
from mailrider.model.event import discard
from mailrider.observe.unblocked_stream import UnblockedStream
from mailrider.queue.settings import QueueSettings
from mailrider.settings.types import either

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mailrider.config import Configuration
    from mailrider.model.event import Emit
    from mailrider.observe.log import Stream
    from mailrider.settings.directive import Settings


STDERR = 2  # the number of standard error


def choose_target(configuration: Configuration, name: str | None, kinds: Sequence[str] = DIRECT) -> Instance[Settings]:
    """The target that is named, or the one that a direct delivery means, of the first of `kinds` that there is.

    What the top level delivers to goes before what is only defined. Raises `ConfigError`.
    """
    if name is not None:
        instance = configuration.target(name)
        if instance.kind not in kinds:
            raise ConfigError(f"{instance.label} cannot be used for this: expected a {either(kinds)}")
        return instance
    for kind in kinds:
        for group in (configuration.deliver_to, configuration.targets.values(), direct_targets(configuration)):
            found = list({id(each.settings): each for each in group if each.kind == kind}.values())
            if len(found) == 1:
                return found[0]
            if found:
                names = ", ".join(each.name or each.label for each in found)
                raise ConfigError(f"there are several targets, say with --target which one is meant: {names}")
    others = dict.fromkeys(each.label for each in direct_targets(configuration))
    if others:
        labels = ", ".join(others)
        raise ConfigError(f"no {either(kinds)} is configured: mail goes to {labels}; mailrider check calls its servers")
    raise ConfigError(f"no {either(kinds)} is configured, so there is no way to deliver a message")


def choose_queue(configuration: Configuration, name: str | None, said_by: str) -> QueueSettings:
    """The queue that is named, or the only one. Raises `ConfigError`.

    One that stands in an endpoint's block has no name, and is meant where there is no other. `said_by`: how a person
    names one.
    """
    if name is not None:
        instance = configuration.target(name)
        if not isinstance(instance.settings, QueueSettings):
            raise ConfigError(f"{instance.label} is no target.queue")
        return instance.settings
    top = {id(each.settings) for each in (*configuration.deliver_to, *configuration.targets.values())}
    every = queues_of(configuration)
    queues = [each for each in every if id(each.settings) in top] or every
    if not queues:
        raise ConfigError("no target.queue is configured")
    if len(queues) > 1:
        names = ", ".join(each.name or f"{each.label} (at {each.position})" for each in queues)
        raise ConfigError(f"there are several queues, say with {said_by} which one is meant: {names}")
    return queues[0].settings


def make_log(configuration: Configuration, *, debug: bool, quiet: bool, stream: Stream | None = None) -> Emit:
    """The log that the configuration asks for; with `quiet` only under `debug`."""
    style = configuration.globals.log.format.value
    if style == "off" or (quiet and not debug):
        return discard
    from mailrider.observe.log import EventLog  # with every event there is: commands that only look need none

    return EventLog(stream or sys.stderr, style=style, debug=debug, journal=writes_to_journal(stream))


def writes_to_journal(stream: Stream | None) -> bool:
    """True if what is written to that stream, or to standard error, goes to systemd's journal."""
    from mailrider.observe.log import is_journal

    return is_journal(os.environ, STDERR) and (stream is None or isinstance(stream, UnblockedStream))
