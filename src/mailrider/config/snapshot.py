"""A configuration that is carried to another process: its text, and all that was read beside it.

Whoever reads a configuration for others records what it asked for: files that are imported, files of secrets, and
variables of the environment. The others read the same from the record, with the same places in errors, and ask neither
the disk nor their environment for any of it.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@dataclass(slots=True)
class CarriedText:
    """`name` stands in errors, imports are relative to `directory`, `path` is the file's if it was one.

    `secrets` have the octets of a file, or the errno of what kept it from being read.
    """

    name: str
    directory: str
    path: str | None
    text: str = field(repr=False)
    files: dict[str, bytes] = field(default_factory=dict, repr=False)
    secrets: dict[str, bytes | int] = field(default_factory=dict, repr=False)
    environment: dict[str, str] = field(default_factory=dict, repr=False)
    debug: bool = False

    def encode(self) -> bytes:
        """As octets."""
        return json.dumps(
            {
                "name": self.name,
                "directory": self.directory,
                "path": self.path,
                "text": self.text,
                "files": {path: _to_text(octets) for path, octets in self.files.items()},
                "secrets": {
                    path: found if isinstance(found, int) else _to_text(found) for path, found in self.secrets.items()
                },
                "environment": self.environment,
                "debug": self.debug,
            }
        ).encode("ascii")

    @classmethod
    def decode(cls, octets: bytes) -> CarriedText:
        """The inverse."""
        record = json.loads(octets)
        record["files"] = {path: base64.b64decode(text) for path, text in record["files"].items()}
        record["secrets"] = {
            path: found if isinstance(found, int) else base64.b64decode(found)
            for path, found in record["secrets"].items()
        }
        return cls(**record)

    def read_file(self, path: Path) -> bytes:
        """A file that is imported."""
        return self.files[str(path)]

    def read_secret(self, path: Path) -> bytes:
        """A file with a secret; raises `OSError` if it could not be read."""
        found = self.secrets[str(path)]
        if isinstance(found, int):
            raise OSError(found, os.strerror(found), str(path))
        return found


def _to_text(octets: bytes) -> str:
    return base64.b64encode(octets).decode("ascii")


class Recorded(Mapping[str, str]):
    """An environment that writes down what of it was asked for."""

    def __init__(self, environment: Mapping[str, str], asked: dict[str, str]) -> None:
        self._environment = environment
        self._asked = asked

    def __getitem__(self, name: str) -> str:
        value = self._environment[name]
        self._asked[name] = value
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._environment)

    def __len__(self) -> int:
        return len(self._environment)


def record_files(read: Callable[[Path], bytes], files: dict[str, bytes]) -> Callable[[Path], bytes]:
    """A function that reads as `read`, and writes down what it gave."""

    def reading(path: Path) -> bytes:
        octets = files[str(path)] = read(path)
        return octets

    return reading


def record_secrets(read: Callable[[Path], bytes], secrets: dict[str, bytes | int]) -> Callable[[Path], bytes]:
    """A reader of secrets that writes down what it has read, and what it could not read."""

    def reading(path: Path) -> bytes:
        try:
            octets = read(path)
        except OSError as error:
            secrets[str(path)] = error.errno or 0
            raise
        secrets[str(path)] = octets
        return octets

    return reading
