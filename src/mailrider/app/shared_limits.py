"""What a configuration bounds, when several workers serve it.

Each worker has a part of the number of connections and of attempts: the bound divided by the number of workers, and at
least 1. What `limits` count would be counted once for each worker, so a configuration with a `limits` block cannot have
several yet.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Final

from mailrider.config.settings import AUTO
from mailrider.errors import ConfigError
from mailrider.settings.directive import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mailrider.config import Configuration, Instance

DIVIDED: Final = ("max_connections_per_host", "max_connections", "max_client_connections", "max_parallelism")


def count_workers(configuration: Configuration, usable: Callable[[], int]) -> int:
    """How many workers a configuration asks for, where so many processors are usable. Raises `ConfigError`."""
    given = configuration.globals.workers
    workers = usable() if given == AUTO else given
    if workers > 1 and any(getattr(each, "limits", None) is not None for each in _all_settings(configuration)):
        raise ConfigError(
            f"workers: limits are not yet counted over workers, and there would be {workers}: say workers 1, or take "
            "the limits blocks out"
        )
    return workers


def _all_settings(configuration: Configuration) -> Iterator[Settings]:
    for instance in (*configuration.instances.values(), *configuration.deliver_to, *configuration.endpoints):
        yield from _within(instance.settings)


def _within(value: Any) -> Iterator[Settings]:
    if isinstance(value, Settings):
        yield value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from _within(getattr(value, field.name))
    elif isinstance(value, tuple):
        for each in value:
            yield from _within(each)


def for_one_worker(configuration: Configuration, workers: int) -> Configuration:
    """The same for one of so many workers. The counters are the supervisor's to show."""

    def divided(instance: Instance) -> Instance:
        return dataclasses.replace(instance, settings=_divide(instance.settings, workers))

    return dataclasses.replace(
        configuration,
        globals=dataclasses.replace(configuration.globals, openmetrics=None),
        instances={name: divided(each) for name, each in configuration.instances.items()},
        deliver_to=tuple(map(divided, configuration.deliver_to)),
        endpoints=tuple(map(divided, configuration.endpoints)),
    )


def _divide(value: Any, workers: int) -> Any:
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return tuple(_divide(each, workers) for each in value)
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return value
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(value):
        given = getattr(value, field.name)
        if field.name in DIVIDED and isinstance(given, int):
            part: Any = max(1, given // workers)
        else:
            part = _divide(given, workers)
        if part is not given and part != given:
            changes[field.name] = part
    return dataclasses.replace(value, **changes) if changes else value
