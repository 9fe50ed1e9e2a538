"""The configuration language: text to nodes with positions, nodes to settings; every error says where.

    lexer -> parser -> expand -> bind -> Configuration

`load` reads a file, `loads` a text; both give a `Configuration`, or raise `ConfigError` with everything that is wrong.
The settings classes themselves stand in the packages that they configure; `kinds` says which of them may stand
where. The manual in `docs/reference` is written from the same declarations (`reference`).
"""

from mailrider.config.configuration import (
    DIRECT,
    Configuration,
    Instance,
    complete,
    direct_targets,
    placed,
    placed_at,
    queue_location,
    queues_of,
    targets_within,
)
from mailrider.config.lexer import quoted
from mailrider.config.loader import default_text, find_config, load, load_carried, load_to_carry, loads
from mailrider.config.settings import Globals, LogFormat, default_runtime_dir, default_state_dir

__all__ = [
    "DIRECT",
    "Configuration",
    "Globals",
    "Instance",
    "LogFormat",
    "complete",
    "default_runtime_dir",
    "default_state_dir",
    "default_text",
    "direct_targets",
    "find_config",
    "load",
    "load_carried",
    "load_to_carry",
    "loads",
    "placed",
    "placed_at",
    "queue_location",
    "queues_of",
    "quoted",
    "targets_within",
]
