"""What may stand in a configuration: the kinds of blocks.

`KINDS` are the blocks that can stand at the top level as instances; a kind's settings class says what goes into it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mailrider.config.settings import Globals
from mailrider.delivery.settings import LimitsSettings, RemoteSettings
from mailrider.delivery.smarthost_settings import LMTPSettings, SmarthostSettings
from mailrider.endpoint.settings import EndpointSettings, LMTPEndpointSettings, SubmissionSettings
from mailrider.policy.settings import MXAuth
from mailrider.queue.settings import QueueSettings
from mailrider.settings.directive import Block, directives_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mailrider.settings.directive import Settings

TARGET = "target."
TOP_LEVEL = "the top level"


@dataclass(frozen=True, slots=True)
class BlockKind:
    """A kind of block that can be an instance. `needs_name`: without one nothing could refer to it."""

    name: str
    settings: type[Settings]
    needs_name: bool = False

    @property
    def is_target(self) -> bool:
        """True if messages can be given to it."""
        return self.name.startswith(TARGET)

    @property
    def default_name(self) -> str:
        """What an instance without a name is called."""
        return self.name.removeprefix(TARGET)


KINDS: Mapping[str, BlockKind] = {
    kind.name: kind
    for kind in (
        BlockKind("target.remote", RemoteSettings),
        BlockKind("target.smtp", SmarthostSettings),
        BlockKind("target.lmtp", LMTPSettings),
        BlockKind("target.queue", QueueSettings),
        BlockKind("mx_auth", MXAuth, needs_name=True),
        BlockKind("limits", LimitsSettings, needs_name=True),
    )
}

# Blocks that accept mail; addresses stand before them, and nothing refers to them.
ENDPOINTS: Mapping[str, type[EndpointSettings]] = {
    "submission": SubmissionSettings,
    "smtp": EndpointSettings,
    "lmtp": LMTPEndpointSettings,
}


def top_level_names() -> tuple[str, ...]:
    """All that may stand at the top level."""
    return (*directives_of(Globals), *KINDS, *ENDPOINTS, "deliver_to", "import")


def blocks_that_know(name: str) -> tuple[str, ...]:
    """The blocks in which a directive of that name is known, as an error calls them."""
    found = dict.fromkeys(where for where, cls in settings_classes() if _stands_in(cls, name))
    if name in KINDS or name in ENDPOINTS:
        found[TOP_LEVEL] = None
    return tuple(found)


def _stands_in(cls: type[Settings], name: str) -> bool:
    known = directives_of(cls).get(name)
    return known is not None and not known.only_global


def settings_classes() -> Iterator[tuple[str, type[Settings]]]:
    """Every block that has settings, once, with what it is called; the top level first."""
    seen: set[type[Settings]] = set()
    pending: list[tuple[str, type[Settings]]] = [(TOP_LEVEL, Globals)]
    pending += [(kind.name, kind.settings) for kind in KINDS.values()]
    pending += ENDPOINTS.items()
    while pending:
        where, cls = pending.pop(0)
        if cls in seen:
            continue
        seen.add(cls)
        yield where, cls
        blocks = ((name, known.type.item or known.type) for name, known in directives_of(cls).items())
        pending += [(name, type.settings) for name, type in blocks if isinstance(type, Block)]
