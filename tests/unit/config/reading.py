"""How the tests read configurations: from texts, with files that are a dict and no environment but the given one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mailrider.config import Configuration, loads
from mailrider.config.kinds import KINDS
from mailrider.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

TARGETS = ", ".join(kind.default_name for kind in KINDS.values() if kind.is_target)
DIRECTORY = Path("/etc/mailrider")


def read(
    text: str,
    *,
    files: Mapping[str, str | bytes] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Configuration:
    """The configuration in a text, which stands in /etc/mailrider/mailrider.conf."""

    def read_file(path: Path) -> bytes:
        content = (files or {}).get(str(path))
        if content is None:
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return content if isinstance(content, bytes) else content.encode()

    return loads(
        text,
        name="mailrider.conf",
        directory=DIRECTORY,
        environment=environment or {},
        read=read_file,
    )


def errors(
    text: str,
    *,
    files: Mapping[str, str | bytes] | None = None,
    environment: Mapping[str, str] | None = None,
) -> list[str]:
    """The first line of each problem of a text: `line:column message`, with the file if it is another one."""
    with pytest.raises(ConfigError) as caught:
        read(text, files=files, environment=environment)
    return [f"{problem.place.removeprefix('mailrider.conf:')} {problem.message}" for problem in caught.value.problems]
