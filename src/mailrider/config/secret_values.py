"""Secrets that stand elsewhere: in a file (`{file:PATH}`), or in the environment.

They are looked up while the configuration is read, and what cannot be found keeps nobody from reading it: the
directive's value is then a `MissingSecret`, which says so to whoever needs it. So commands that do not need the secret
work for users who may not read it. What a file holds is taken as it is: it is never expanded, and never split.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mailrider.config.source import Problems
from mailrider.errors import InvalidValue
from mailrider.files import read_regular
from mailrider.settings.directive import MissingSecret

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mailrider.config.parser import Node, Word

MAX_SECRET: Final = 64 * 1024  # octets of a file with a secret
CREDENTIALS_DIRECTORY: Final = "CREDENTIALS_DIRECTORY"  # systemd.exec(5), LoadCredential=


def read_secret(path: Path) -> bytes:
    """The octets of a file, one more than a secret may have. Raises `OSError`."""
    return read_regular(path, MAX_SECRET + 1)[0]


@dataclass(slots=True)
class SecretValues:
    """Looks secrets up. `files` are those that were asked for, whether or not they could be read."""

    environment: Mapping[str, str]
    read: Callable[[Path], bytes] = read_secret
    files: list[Path] = field(default_factory=list)

    def resolve(self, node: Node) -> Node | MissingSecret:
        """The directive with its secrets in their places."""
        words: list[Word] = []
        for word in node.arguments:
            try:
                words.append(word if word.file is None else replace(word, text=self._content(word, word.file)))
                if word.unset:
                    raise InvalidValue(f"the environment variable {word.unset[0]} is not set")
            except InvalidValue as error:
                problems = Problems(word.position.source.name)
                problems.add(word.position, f"{node.name}: {error}", is_safe=True)
                return MissingSecret(problems.in_order()[0])
        return replace(node, arguments=tuple(words))

    def _content(self, word: Word, name: str) -> str:
        if not name or "\0" in name:
            raise InvalidValue("expected the path of a file: {file:PATH}")
        folder = self.environment.get(CREDENTIALS_DIRECTORY) or word.position.source.directory
        path = Path(os.path.abspath(Path(folder) / name))
        self.files.append(path)
        try:
            octets = self.read(path)
        except OSError as error:
            raise InvalidValue(f"cannot read the file {path}: {error.strerror or 'it cannot be opened'}") from None
        if len(octets) > MAX_SECRET:
            raise InvalidValue(f"the file {path} is larger than {MAX_SECRET} octets")
        try:
            text = octets.decode("utf-8")
        except UnicodeDecodeError:
            # Its text, and what it would be chained to, hold some of the secret.
            raise InvalidValue(f"the file {path} is not UTF-8 text") from None
        text = text.removesuffix("\n").removesuffix("\r") if text.endswith("\n") else text
        if not text:
            raise InvalidValue(f"the file {path} is empty")
        return text
