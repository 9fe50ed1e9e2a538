"""Value types: how a word becomes a setting's value.

One `ValueType` serves programs and configuration files. `accept` takes what a program gives (`timedelta(minutes=5)`,
`300`, `TLSLevel.ENCRYPTED`) and what a configuration file holds (`5m`, `encrypted`), and returns
the one typed value. What it cannot take raises `Unacceptable`, which says what was expected; it
never guesses and never clips.

`words` says how the arguments of a line make a value: one argument, the whole line, all of them, or
each argument an item.
"""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import timedelta
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from mailrider.errors import InvalidValue
from mailrider.model.address import DOTS, TRAILING_DOT, Mailbox
from mailrider.model.domain import Domain

T = TypeVar("T")
WordT = TypeVar("WordT", bound=enum.Enum)

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

MAX_SHOWN = 100  # characters of a wrong value that an error repeats
MAX_DURATION = timedelta(days=3653)  # ten years: longer is a slip of the hand
MAX_NUMBER = 10**12  # of anything that is counted; keeps sums and timers far from overflow


class Unacceptable(InvalidValue):
    """A value that a value type does not take; the message says what was expected."""


class Words(enum.Enum):
    """How many of a line's arguments make one value."""

    ONE = "one argument"
    LINE = "all arguments, joined by spaces"
    WORDS = "all arguments, each as it stands"
    EACH = "each argument is an item of a list"


@dataclass(frozen=True, slots=True)
class ValueType(Generic[T]):
    """A kind of value. `expected` completes the sentence "expected ...".

    `choices` are the words that it takes, if they are few. `convert` raises `ValueError`, `TypeError` or
    `KeyError` for what it does not take; their text is not shown, that of `Unacceptable` is. `item` is the type of the
    items, for a list. `alone`: the directive's name without arguments gives a value too, from the empty text.
    """

    name: str
    expected: str
    convert: Callable[[Any], T]
    choices: tuple[str, ...] = ()
    words: Words = Words.ONE
    item: ValueType[Any] | None = None
    alone: bool = False

    def accept(self, value: object) -> T:
        """The value, or `Unacceptable`."""
        try:
            return self.convert(value)
        except Unacceptable:
            raise
        except (ValueError, TypeError, LookupError, OverflowError) as error:
            raise Unacceptable(f"expected {self.expected}, not {show(self.written(value))}") from error

    def written(self, value: object) -> object:
        """A wrong value, as somebody wrote it."""
        is_words = isinstance(value, tuple) and all(isinstance(each, str) for each in value)
        return " ".join(cast("tuple[str, ...]", value)) if is_words else value

    def show(self, value: object) -> str:
        """The value as it would be written in a configuration file."""
        return " ".join(map(show_word, value)) if isinstance(value, tuple) else show_word(value)


def show(value: object) -> str:
    """A wrong value as an error repeats it: quoted, without control characters, bounded."""
    text = value if isinstance(value, str) else repr(value)
    printable = "".join(char if char.isprintable() else "\ufffd" for char in text[: MAX_SHOWN + 1])
    short = f"{printable[:MAX_SHOWN]}..." if len(printable) > MAX_SHOWN else printable
    return f'"{short}"' if isinstance(value, str) else short


def show_word(value: object) -> str:
    """A right value as a word of the configuration language."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, timedelta):
        return show_duration(value)
    return str(value)


# --- Booleans, words, numbers -------------------------------------------------------------------

_BOOLEANS = {"yes": True, "true": True, "on": True, "1": True}
_BOOLEANS |= {"no": False, "false": False, "off": False, "0": False}
_DIGITS = re.compile(r"[0-9]{1,100}")


def _boolean(value: bool | str) -> bool:
    if isinstance(value, bool):
        return value
    return _BOOLEANS[_string(value).lower()]


BOOLEAN = ValueType("boolean", "yes or no", _boolean, choices=("yes", "no"))


def integer(least: int = 0, most: int = MAX_NUMBER) -> ValueType[int]:
    """Whole numbers within bounds."""

    def convert(value: int | str) -> int:
        number = int(value) if isinstance(value, str) and _DIGITS.fullmatch(value) else value
        return _within(number, least, most, value)

    within = f", {least} or more" if most == MAX_NUMBER else f" from {least} to {most}"
    return ValueType("integer", f"a whole number{within}", convert)


def _within(number: object, least: int, most: int, given: object, unit: str = "") -> int:
    """A number within bounds. What is expected of a directive names its own bounds, but not the greatest of all."""
    if not isinstance(number, int) or isinstance(number, bool) or number < least:
        raise ValueError
    if number > most == MAX_NUMBER:
        raise Unacceptable(f"expected at most {MAX_NUMBER}{unit}, not {show(given)}")
    if number > most:
        raise ValueError
    return number


PORT = replace(integer(1, 65535), name="port")


def choice(kind: type[WordT], **aliases: WordT) -> ValueType[WordT]:
    """One of the members of an enum, by name in lower case (or by value, where that is a string)."""
    members = {each.value if isinstance(each.value, str) else each.name.lower(): each for each in kind}
    known = {**members, **aliases}

    def convert(value: WordT | str) -> WordT:
        if isinstance(value, kind):
            return value
        return known[_string(value).lower()]

    words = tuple(members)
    return ValueType(" | ".join(words), either(words), convert, choices=words)


def either(words: Iterable[str]) -> str:
    """`a, b or c`"""
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last


# --- Durations and sizes ------------------------------------------------------------------------

_UNITS = {"d": 86_400_000_000, "h": 3_600_000_000, "m": 60_000_000, "s": 1_000_000}
_UNITS |= {"ms": 1000, "us": 1}  # in microseconds, which is what timedelta counts
_DURATION = re.compile(r"(?:[0-9]{1,12}(?:\.[0-9]{1,6})?(?:ms|us|[dhms])\s*)+")
_DURATION_PART = re.compile(r"([0-9.]+)([a-z]+)")
_SIZES = {"g": 1 << 30, "m": 1 << 20, "k": 1 << 10, "b": 1}
_SIZE = re.compile(r"[0-9]{1,12}[GMKBgmkb](?:\s+[0-9]{1,12}[GMKBgmkb])*")


def duration(*, positive: bool = False, bare_seconds: bool = False) -> ValueType[timedelta]:
    """Spans of time: `1h5m`, `1h 5m`, `150ms`, `0`; a program may give a `timedelta` or seconds.

    `bare_seconds` takes a bare whole number in a configuration as seconds, too.
    """

    def convert(value: timedelta | float | str) -> timedelta:
        if isinstance(value, str):
            try:
                span = _parse_duration(value, bare_seconds=bare_seconds)
            except OverflowError:
                span = timedelta.max
        elif isinstance(value, timedelta):
            span = value
        elif isinstance(value, bool) or not math.isfinite(value):
            raise ValueError
        else:
            span = timedelta(seconds=value)
        if span > MAX_DURATION:
            raise Unacceptable(f"expected at most ten years, which are {MAX_DURATION.days}d, not {show(value)}")
        if span < timedelta(0) or (positive and not span):
            raise ValueError
        return span

    above = " longer than 0" if positive else ""
    either_way = "a number of seconds or " if bare_seconds else ""
    expected = f"{either_way}a duration{above}, such as 1h5m, 30s or 150ms"
    name = "seconds or duration" if bare_seconds else "duration"
    return ValueType(name, expected, convert, words=Words.LINE)


def _parse_duration(text: str, *, bare_seconds: bool) -> timedelta:
    if text == "0":
        return timedelta(0)
    if _DIGITS.fullmatch(text):
        if not bare_seconds:
            raise Unacceptable(f'expected a duration with its unit, not {show(text)}; did you mean "{text}s"?')
        return timedelta(seconds=int(text))
    if not _DURATION.fullmatch(text):
        raise ValueError
    parts = _DURATION_PART.findall(text)
    return timedelta(microseconds=sum(float(number) * _UNITS[unit] for number, unit in parts))


def show_duration(span: timedelta, most: int | None = None) -> str:
    """A duration as the configuration writes it: `1h5m`; the inverse of reading it. `most`: so many units of it."""
    left = span // timedelta(microseconds=1)
    parts = []
    for unit, size in _UNITS.items():
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts[:most]) or "0"


def size(least: int = 0, most: int = MAX_NUMBER, within: str = "") -> ValueType[int]:
    """Numbers of octets within bounds, which `within` puts in words: ` of 64K or more`."""

    def convert(value: int | str) -> int:
        number = value
        if isinstance(value, str) and _SIZE.fullmatch(value):
            number = sum(int(part[:-1]) * _SIZES[part[-1].lower()] for part in value.split())
        elif value == "0":
            number = 0
        return _within(number, least, most, value, " octets")

    return ValueType("size", f"a size{within} such as 32M, 3M 5K or 5b", convert, words=Words.LINE)


DURATION = duration()
TIMEOUT = duration(positive=True)


# --- Names, addresses, paths --------------------------------------------------------------------


def parsed(kind: type[T], parse: Callable[[str], T]) -> Callable[[object], T]:
    """A conversion that takes a value of that kind, or a text of which `parse` makes one."""
    return lambda value: value if isinstance(value, kind) else parse(_string(value))


def _ip(value: IPAddress | str) -> IPAddress:
    return value if isinstance(value, IPAddress) else ip_address(_string(value))


def _network(value: IPNetwork | str) -> IPNetwork:
    if isinstance(value, IPNetwork):
        return value
    network = ip_network(_string(value), strict=False)
    address = ip_address(value.partition("/")[0])
    if network.network_address != address:
        raise Unacceptable(f"expected a network, but {show(value)} has host bits set; did you mean {network}?")
    return network


def _path(value: Path | str) -> Path:
    text = str(value) if isinstance(value, Path) else _string(value)
    if not text or "\0" in text:
        raise ValueError
    return Path(text)


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def parse_mailbox(text: str) -> Mailbox:
    """A mail address; where many are wrong in the same way, the error says how."""
    if text.endswith(DOTS):
        raise Unacceptable(f"expected a mail address, not {show(text)}: {TRAILING_DOT}")
    return Mailbox.parse(text)


def _mailbox(value: Mailbox | str) -> Mailbox:
    mailbox = parsed(Mailbox, parse_mailbox)(value)
    if mailbox.domain is None:
        raise ValueError
    return mailbox


DOMAIN = ValueType("domain", "a domain name such as mx.example.org", parsed(Domain, Domain.parse))
MAILBOX = ValueType("mail address", "a mail address such as postmaster@example.org", _mailbox)
IP_ADDRESS = ValueType("IP address", "an IPv4 or IPv6 address", _ip)
NETWORK = ValueType("network", "a network such as 10.0.0.0/8 or fc00::/7", _network)


@dataclass(frozen=True, slots=True)
class PathType(ValueType[Path]):
    """A value type of paths; in a configuration relative ones begin at the state directory."""


PATH = PathType("path", "a path", _path)


# --- Lists --------------------------------------------------------------------------------------


def many(item: ValueType[T], *, none: bool = False) -> ValueType[tuple[T, ...]]:
    """Several values, each an argument (or each a line, for a type that takes the whole line).

    `none`: the lone word `none` is the empty list.
    """

    def convert(value: object) -> tuple[T, ...]:
        if none and value == "none":
            return ()
        if isinstance(value, str) or not isinstance(value, Iterable):
            return (item.accept(value),)
        return tuple(map(item.accept, cast("Iterable[object]", value)))

    one = f"({item.name})" if item.choices else item.name
    name, words = (f"{one}...", Words.EACH) if item.words is Words.ONE else (item.name, Words.LINE)
    choices = (*item.choices, "none") if none else item.choices
    return ValueType(name, item.expected, convert, choices, words, item)
