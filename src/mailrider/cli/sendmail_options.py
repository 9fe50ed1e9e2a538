"""The options of sendmail(8), as cron, PHP, git send-email, mailx and others use them. Pure.

Options are one letter. Those without a value may share a word (`-ti`), and the last of them may be one with a value
(`-tif a@example.org`); a value stands in the same word or in the next one. Options may stand behind recipients, as with
all programs of GNU: a word that begins with `-` is never an address, unless it stands behind `--`.

What concerns sendmail's own queue, files and log changes nothing here, and is taken without a word: it is listed below,
letter by letter. Everything else is refused: an option that is misunderstood sends mail to the wrong place.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from mailrider.errors import InvalidValue
from mailrider.model.envelope import Notify, Ret, check_envid
from mailrider.smtp.commands import Body

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# Taken and without meaning here, with a value: which of sendmail's own configurations (`-Am`), error mode (`-em`),
# hops, log tag, protocol that the message came by, log file.
_IGNORED_WITH_VALUE: Final = "AehLpX"
# The same without a value: count hops, gateway, deliver mail, no aliases, initial submission, verbose, and an old one.
_IGNORED: Final = "cGmnUvx"
# `-o` and a letter. Delivery mode (`-odb`, `-odq`: it is queued in any case), error mode (`-oem`), to ourselves too
# (`-om`), old headers (`-oo`), time-outs (`-or0s`, `-oT`), verbose (`-ov`), what a trusted user says of the origin
# (`-oM`), 7 or 8 bits.
_IGNORED_SETTINGS: Final = "demorTvM78"
# Exim takes their value from the next word where none stands behind them: it is no recipient.
_SETTINGS_WITH_WORD: Final = frozenset(("Ma", "Maa", "Mai", "Mas", "Mi", "Mm", "Mr", "Ms", "Mt", "r"))
# `-O` and a name.
_IGNORED_NAMES: Final = frozenset(
    ("deliverymode", "errormode", "metoo", "verbose", "eightbitmode", "sendmimeerrors", "loglevel", "oldstyleheaders")
)

_IS_DAEMON: Final = "the daemon is `mailrider run`"
_REFUSED_MODES: Final = {
    "a": "the ARPANET's protocol is not spoken any more",
    "d": _IS_DAEMON,
    "D": _IS_DAEMON,
    "l": _IS_DAEMON,
    "v": "addresses are not verified here",
    "t": "addresses are not tested here: `mailrider explain DOMAIN` shows where mail goes",
}
_REFUSED: Final = {
    "C": "it names a configuration of another program: use `mailrider -c FILE sendmail`",
    "D": "debugging is not done here: the daemon has a log",
    "d": "debugging is not done here: the daemon has a log",
    "M": "it means two things, by the program: see `mailrider queue`",
    "Q": "see `mailrider queue hold`",
    "S": "it asks for another server: see target.smtp",
}


class UsageError(InvalidValue):
    """Options that make no sense; the text says why."""


class Mode(enum.Enum):
    """What is to be done."""

    DELIVER = "deliver"
    SPEAK_SMTP = "speak SMTP"  # on standard input and output
    LIST_QUEUE = "list the queue"
    RUN_QUEUE = "run the queue"
    NOTHING = "nothing"  # newaliases: there are no aliases to rebuild


_MODES: Final = {
    "m": Mode.DELIVER,
    "s": Mode.SPEAK_SMTP,
    "p": Mode.LIST_QUEUE,
    "i": Mode.NOTHING,
}
_NAMES: Final = {"mailq": Mode.LIST_QUEUE, "newaliases": Mode.NOTHING}


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for. `sender` None: whoever runs the program; `dot_ends`: a line of a single dot is the end.

    `recipients` are the words as they were given; each may hold several addresses.
    """

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
class _OptionParser:
    """Takes the words from the left."""

    words: list[str]
    options: Options
    recipients: list[str] = field(default_factory=list)

    def parse(self) -> Options:
        while self.words:
            word = self.words.pop(0)
            if word == "--":
                self.recipients += self.words
                break
            if word == "-" or word.startswith("--"):
                raise UsageError(f"unknown option {word[:100]}")
            if word.startswith("-"):
                self._word(word[1:])
            else:
                self.recipients.append(word)
        return replace(self.options, recipients=tuple(self.recipients))

    def _word(self, letters: str) -> None:
        """One word: options without a value, and behind them perhaps one that takes the rest."""
        for at, letter in enumerate(letters):
            if letter in _FLAGS:
                self._set(**_FLAGS[letter])
            elif letter not in _IGNORED:
                self._option(letter, letters[at + 1 :])
                return

    def _option(self, letter: str, rest: str) -> None:
        if letter == "q":
            self._run_queue(rest)
        elif letter in _REFUSED:
            raise UsageError(f"-{letter}: {_REFUSED[letter]}")
        elif letter in _WITH_VALUE or letter in _IGNORED_WITH_VALUE:
            # It may be empty: `-f ""` is the null sender.
            value = rest or self._next(letter)
            if letter == "o" and value in _SETTINGS_WITH_WORD and self.words and not self.words[0].startswith("-"):
                del self.words[0]
            if letter in _WITH_VALUE:
                try:
                    self._set(**_WITH_VALUE[letter](value))
                except InvalidValue as error:
                    raise UsageError(f"-{letter} {value[:100]}: {error}") from error
        else:
            raise UsageError(f"unknown option -{letter}{rest[:100]}")

    def _set(self, **changes: Any) -> None:
        self.options = replace(self.options, **changes)

    def _next(self, letter: str) -> str:
        if not self.words:
            raise UsageError(f"-{letter} needs a value")
        return self.words.pop(0)

    def _run_queue(self, rest: str) -> None:
        """`-q`: once, now. `-q15m`: from now on, which is the daemon's work. `-qIid`, `-qRname`: a part."""
        if rest:
            raise UsageError(
                f"-q{rest[:100]}: the daemon runs its queue by itself; `mailrider queue retry` asks for a part of it"
            )
        self._set(mode=Mode.RUN_QUEUE)


def _setting(value: str) -> dict[str, Any]:
    """`-oi`, `-odb`, `-oem`, `-o i`: a letter, and its value behind it."""
    if value == "i":
        return {"dot_ends": False}
    if value[:1] not in tuple(_IGNORED_SETTINGS):
        raise InvalidValue("this setting is not known here")
    return {}


def _named_setting(value: str) -> dict[str, Any]:
    name, _, _ = value.lower().partition("=")
    if name == "ignoredots":
        return {"dot_ends": False}
    if name not in _IGNORED_NAMES and not name.startswith("timeout"):
        raise InvalidValue("this setting is not known here")
    return {}


def _mode(value: str) -> dict[str, Any]:
    if value not in _MODES:
        raise InvalidValue(_REFUSED_MODES.get(value, "unknown mode"))
    return {"mode": _MODES[value]}


def _ret(value: str) -> dict[str, Any]:
    if not (value.isascii() and value.upper() in {each.value for each in Ret}):
        raise InvalidValue("expected full or hdrs")
    return {"ret": Ret(value.upper())}


def _envid(value: str) -> dict[str, Any]:
    check_envid(value)
    return {"envid": value}


def _body(value: str) -> dict[str, Any]:
    """What the content is, we see for ourselves."""
    if not (value.isascii() and value.upper() in {each.value for each in Body}):
        raise InvalidValue("expected 7BIT or 8BITMIME")
    return {}


_FLAGS: Final[dict[str, dict[str, Any]]] = {
    "i": {"dot_ends": False},
    "t": {"recipients_from_header": True},
    "I": {"mode": Mode.NOTHING},
}
_WITH_VALUE: Final[dict[str, Callable[[str], dict[str, Any]]]] = {
    "b": _mode,
    "B": _body,
    "f": lambda value: {"sender": value},
    "r": lambda value: {"sender": value},
    "F": lambda value: {"full_name": value},
    "N": lambda value: {"notify": Notify.parse(value)},
    "o": _setting,
    "O": _named_setting,
    "R": _ret,
    "V": _envid,
}


def parse_options(words: Sequence[str], name: str = "sendmail") -> Options:
    """The options among the words behind the program's name. Raises `UsageError`.

    `name`: what the program was called by; mailq and newaliases are sendmail under another name.
    """
    return _OptionParser(list(words), Options(mode=_NAMES.get(name, Mode.DELIVER))).parse()
