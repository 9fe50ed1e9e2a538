"""The configuration language: text to nodes with positions, nodes to settings; every error says where.

    lexer -> parser -> expand -> bind -> Configuration

`load` reads a file, `loads` a text; both give a `Configuration`, or raise `ConfigError` with everything that is wrong.
The settings classes themselves stand in the packages that they configure; `kinds` says which of them may stand
where. The manual in `docs/reference` is written from the same declarations (`reference`).
"""

from mailrider.config.configuration import DIRECT as DIRECT
from mailrider.config.configuration import Configuration as Configuration
from mailrider.config.configuration import Instance as Instance
from mailrider.config.configuration import complete as complete
from mailrider.config.configuration import direct_targets as direct_targets
from mailrider.config.configuration import dropped_queues as dropped_queues
from mailrider.config.configuration import kept_directories as kept_directories
from mailrider.config.configuration import looks_for_servers as looks_for_servers
from mailrider.config.configuration import placed as placed
from mailrider.config.configuration import placed_at as placed_at
from mailrider.config.configuration import queue_location as queue_location
from mailrider.config.configuration import queues_of as queues_of
from mailrider.config.configuration import targets_within as targets_within
from mailrider.config.loader import default_text as default_text
from mailrider.config.loader import find_config as find_config
from mailrider.config.loader import load as load
from mailrider.config.loader import load_carried as load_carried
from mailrider.config.loader import load_to_carry as load_to_carry
from mailrider.config.loader import loads as loads
from mailrider.config.settings import Globals as Globals
from mailrider.config.settings import LogFormat as LogFormat
from mailrider.config.settings import default_runtime_dir as default_runtime_dir
from mailrider.config.settings import default_state_dir as default_state_dir
from mailrider.config.written import UnwritableError as UnwritableError
from mailrider.config.written import quoted as quoted
