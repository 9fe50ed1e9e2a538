"""The files of Postfix as values: main.cf, master.cf, and tables in text (postconf(5), master(5), postmap(1)).

Pure; what `postconf -n` prints is a main.cf too. Nothing is run, and no table that is no text can be read. Values
are expanded `MAX_LEVELS` deep.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from mailrider.model.text import logical_lines

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_LEVELS: Final = 10
MAX_VALUE: Final = 100_000  # characters of an expanded value

_PARAMETER = re.compile(r"([A-Za-z0-9_-]+)[ \t]*=[ \t]*(.*)", re.DOTALL)
_USE = re.compile(
    r"\$\$|\$(?:(?P<bare>[A-Za-z0-9_]+)|\{(?P<brace>[A-Za-z0-9_]+)(?:(?P<test>[?:])(?P<rest>[^{}]*|\{[^{}]*\}(?::\{[^{}]*\})?))?\}"
    r"|\((?P<round>[A-Za-z0-9_]+)\))"
)


@dataclass(frozen=True, slots=True)
class Parameter:
    """A line of main.cf, or an option of a service in master.cf. `file` and `line` say where it stands."""

    file: str
    line: int
    name: str
    value: str

    @property
    def where(self) -> str:
        """The file and the line, for a comment."""
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class PostfixService:
    """A line of master.cf, with its options (`-o NAME=VALUE`)."""

    file: str
    line: int
    name: str
    kind: str
    command: str
    options: tuple[Parameter, ...] = ()


def parse_main(text: str, file: str) -> list[Parameter]:
    """The parameters in their order; what is none has an empty name."""
    found: list[Parameter] = []
    for number, line in logical_lines(text):
        match = _PARAMETER.fullmatch(line)
        found.append(
            Parameter(file, number, match[1], match[2].strip()) if match else Parameter(file, number, "", line)
        )
    return found


def parse_master(text: str, file: str) -> list[PostfixService]:
    """The services in their order; what is none has an empty command."""
    found: list[PostfixService] = []
    for number, line in logical_lines(text):
        words = _words(line)
        if len(words) < 8:
            found.append(PostfixService(file, number, line, "", ""))
            continue
        options: list[Parameter] = []
        arguments = words[8:]
        while arguments:
            word = arguments.pop(0)
            if word.startswith("-o"):
                given = word[2:] or (arguments.pop(0) if arguments else "")
                name, _, value = given.partition("=")
                options.append(Parameter(file, number, name.strip(), value.strip()))
        found.append(PostfixService(file, number, words[0], words[1], words[7], tuple(options)))
    return found


def _words(line: str) -> list[str]:
    """White space separates; `{ ... }` is one word, without its braces."""
    return [match[1] if match[1] is not None else match[0] for match in re.finditer(r"\{\s*([^{}]*?)\s*\}|\S+", line)]


@dataclass(frozen=True, slots=True)
class Values:
    """The parameters by name, with the defaults that others refer to."""

    given: Mapping[str, Parameter]
    defaults: Mapping[str, str] = field(default_factory=dict)

    def of(self, name: str, default: str = "") -> str:
        """The value, expanded."""
        return self.expand(self._raw(name) or default)

    def _raw(self, name: str) -> str:
        found = self.given.get(name)
        return self.defaults.get(name, "") if found is None else found.value

    def expand(self, text: str, level: int = 0) -> str:
        """A value with the others that it names in their places."""
        if level == MAX_LEVELS or len(text) > MAX_VALUE:
            return text

        def put(use: re.Match[str]) -> str:
            name = use["bare"] or use["brace"] or use["round"]
            if name is None:
                return "$"
            value = self.expand(self._raw(name), level + 1)
            if use["test"] is None:
                return value
            first, second = _alternatives(use["rest"] or "")
            wanted = first if bool(value) is (use["test"] == "?") else second
            return self.expand(wanted, level + 1)

        return _USE.sub(put, text)[:MAX_VALUE]

    def beside(self, options: tuple[Parameter, ...]) -> Values:
        """These with the options of a service over them."""
        return replace(self, given={**self.given, **{each.name: each for each in options}})


def _alternatives(text: str) -> tuple[str, str]:
    if not text.startswith("{"):
        return text, ""
    first, _, second = text[1:].partition("}")
    return first.strip(), second.removeprefix(":").strip("{} ")


def split_list(value: str) -> list[str]:
    """The items of a list: commas and white space separate them."""
    return [each for each in re.split(r"[,\s]+", value) if each]


def parse_table(text: str) -> list[tuple[int, str, str]]:
    """The entries of a table: line, key, value."""
    found: list[tuple[int, str, str]] = []
    for number, line in logical_lines(text):
        key, _, value = line.replace("\t", " ").partition(" ")
        found.append((number, key, value.strip()))
    return found


_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def duration(text: str, unit: str) -> str:
    """A time as our language writes it; `unit` is that of a bare number. Empty if it is none."""
    match = re.fullmatch(r"([0-9]{1,9})([smhdw]?)", text)
    if match is None:
        return ""
    count, unit = int(match[1]), match[2] or unit
    if unit == "w":
        count, unit = count * 7, "d"
    return "0" if not count else f"{count}{unit}"
