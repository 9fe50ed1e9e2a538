"""The options of sendmail(8), as cron, PHP, git send-email, mailx and others use them. Pure.

Options are one letter; those with a value take it from the same word or from the next one; the first word that is no
option, or `--`, begins the recipients. What concerns sendmail's own queue and files means nothing here and is taken
without a word; what asks for another program altogether (`-bs`, `-bp`, `-bt`) is refused, and not ignored.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from mailrider.errors import InvalidValue
from mailrider.model.envelope import Notify, Ret, check_envid

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# Taken and without meaning here, with a value: body type, configuration, debugging, hops, log tag, log file, message
# class, protocol, and all settings of `-O`.
_IGNORED_WITH_VALUE: Final = "ABCDLMOXhdp"
# The same without a value: gateway, initial submission, to ourselves too, no aliases, verbose.
_IGNORED: Final = "GUmnv"
_MODES: Final = {
    "m": None,  # deliver mail: what we do
    "i": "newaliases",
    "s": "speaking SMTP on standard input is not supported: connect to the daemon's submission socket or port",
    "p": "the queue is shown by `mailrider queue list`",
    "d": "the daemon is `mailrider run`",
    "D": "the daemon is `mailrider run`",
    "v": "addresses are not verified here",
    "t": "addresses are not tested here: `mailrider explain DOMAIN` shows where mail goes",
}


class UsageError(InvalidValue):
    """Options that make no sense; the text says why."""


class Mode(enum.Enum):
    """What is to be done."""

    DELIVER = "deliver"
    NOTHING = "nothing"  # newaliases: there are no aliases to rebuild


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for. `sender` None: whoever runs the program; `dot_ends`: a line of a single dot is the end."""

    sender: str | None = None
    full_name: str = ""
    recipients: tuple[str, ...] = ()
    recipients_from_header: bool = False
    dot_ends: bool = True
    notify: Notify | None = None
    ret: Ret | None = None
    envid: str | None = None
    mode: Mode = Mode.DELIVER


@dataclass(slots=True)
class _Parser:
    """Takes the words from the left."""

    words: list[str]
    options: Options = field(default_factory=Options)

    def parse(self) -> Options:
        while self.words and self.words[0].startswith("-") and self.words[0] != "-":
            word = self.words.pop(0)
            if word == "--":
                break
            self._option(word[1], word[2:])
        return replace(self.options, recipients=tuple(self.words))

    def _option(self, letter: str, rest: str) -> None:
        if letter in _WITH_VALUE:
            value = rest or self._next(letter)  # which may be empty: `-f ""` is the null sender
            self.options = replace(self.options, **_WITH_VALUE[letter](value))
        elif letter == "o":
            self._long_known_as_o(rest)
        elif letter == "b":
            self._mode(rest)
        elif letter == "q":
            raise UsageError("-q: the daemon runs its queue by itself; `mailrider queue retry` asks for it")
        elif letter in "it" or letter in _IGNORED:
            self._flags(letter + rest)
        elif letter in _IGNORED_WITH_VALUE:
            if not rest and letter != "d":
                self._next(letter)
        else:
            raise UsageError(f"unknown option -{letter}{rest}")

    def _next(self, letter: str) -> str:
        if not self.words:
            raise UsageError(f"-{letter} needs a value")
        return self.words.pop(0)

    def _flags(self, letters: str) -> None:
        for letter in letters:
            if letter == "i":
                self.options = replace(self.options, dot_ends=False)
            elif letter == "t":
                self.options = replace(self.options, recipients_from_header=True)
            elif letter not in _IGNORED:
                raise UsageError(f"unknown option -{letter}")

    def _long_known_as_o(self, rest: str) -> None:
        """`-oi`, `-odb`, `-oem`, `-o x`: the value stands with the letter, or behind `-o`."""
        if (rest or self._next("o")) == "i":
            self.options = replace(self.options, dot_ends=False)

    def _mode(self, mode: str) -> None:
        meaning = _MODES.get(mode, f"unknown mode -b{mode}")
        if meaning == "newaliases":
            self.options = replace(self.options, mode=Mode.NOTHING)
        elif meaning is not None:
            raise UsageError(f"-b{mode}: {meaning}")


def _notify(value: str) -> dict[str, Any]:
    try:
        return {"notify": Notify.parse(value)}
    except InvalidValue as error:
        raise UsageError(f"-N: {error}") from error


def _ret(value: str) -> dict[str, Any]:
    try:
        return {"ret": Ret(value.upper())}
    except ValueError as error:
        raise UsageError(f"-R: expected full or hdrs, not {value[:100]!r}") from error


def _envid(value: str) -> dict[str, Any]:
    try:
        check_envid(value)
    except InvalidValue as error:
        raise UsageError(f"-V: {error}") from error
    return {"envid": value}


def _sender(value: str) -> dict[str, Any]:
    return {"sender": value.removeprefix("<").removesuffix(">")}


_WITH_VALUE: Final[dict[str, Callable[[str], dict[str, Any]]]] = {
    "f": _sender,
    "r": _sender,
    "F": lambda value: {"full_name": value},
    "N": _notify,
    "R": _ret,
    "V": _envid,
}


def parse_options(words: Sequence[str]) -> Options:
    """The options among the words behind the program's name. Raises `UsageError`."""
    return _Parser(list(words)).parse()
