"""What `check` says of secrets that cannot be found, and of aliases that cannot be used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mailrider.app.check.finding import error, warning
from mailrider.app.endpoints import aliases_of
from mailrider.config import direct_targets
from mailrider.delivery.smarthost_settings import SmarthostSettings
from mailrider.endpoint.aliases import UnsafeFile
from mailrider.settings.directive import MissingSecret

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mailrider.app.check.finding import Finding
    from mailrider.config import Configuration


def missing_secrets(configuration: Configuration) -> Iterator[Finding]:
    """An error for each secret that cannot be looked up. The rest of the configuration is tested without it."""
    for each in direct_targets(configuration):
        if isinstance(each.settings, SmarthostSettings) and isinstance(each.settings.auth, MissingSecret):
            cure = "until it is there the daemon does not start, and a reload is refused"
            yield error(each.label, str(each.settings.auth.problem), cure)


def unusable_aliases(configuration: Configuration) -> Iterator[Finding]:
    """A warning for each line of a file of aliases that is wrong; a file that cannot be read is an error elsewhere."""
    told: set[str] = set()
    for each in configuration.endpoints:
        aliases = aliases_of(each.settings)
        try:
            faults = [] if aliases is None else aliases.load()
        except UnsafeFile:
            continue
        for fault in faults:
            if fault not in told:
                told.add(fault)
                yield warning("aliases", fault, "mail for this alias waits (451) until the line is right")
