"""Words, and what programs give, to values."""

from __future__ import annotations

import enum
import math
from datetime import timedelta
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrider.errors import InvalidValue
from mailrider.model.domain import Domain
from mailrider.settings.types import (
    BOOLEAN,
    DOMAIN,
    DURATION,
    IP_ADDRESS,
    MAX_DURATION,
    NETWORK,
    PATH,
    PORT,
    TIMEOUT,
    Unacceptable,
    ValueType,
    Words,
    choice,
    duration,
    either,
    integer,
    many,
    show,
    show_duration,
    size,
)


class Colour(enum.StrEnum):
    RED = "red"
    DEEP_BLUE = "deep-blue"


class Size(enum.IntEnum):
    SMALL = 1
    LARGE = 2


COLOUR = choice(Colour, crimson=Colour.RED)
SECONDS = duration(bare_seconds=True)
SIZE = size()
second, minute, hour = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)

ACCEPTED: list[tuple[ValueType[Any], object, object]] = [
    *((BOOLEAN, word, True) for word in (True, "yes", "true", "on", "1", "Yes", "ON")),
    *((BOOLEAN, word, False) for word in (False, "no", "false", "off", "0")),
    (integer(), 0, 0),
    (integer(), "0", 0),
    (integer(), "007", 7),
    (integer(), 10**12, 10**12),
    (integer(2, 3), 3, 3),
    (PORT, "25", 25),
    (COLOUR, "red", Colour.RED),
    (COLOUR, "RED", Colour.RED),
    (COLOUR, "deep-blue", Colour.DEEP_BLUE),
    (COLOUR, Colour.RED, Colour.RED),
    (COLOUR, "crimson", Colour.RED),
    (choice(Size), "large", Size.LARGE),
    (choice(Size), Size.SMALL, Size.SMALL),
    (DURATION, "1h5m", hour + 5 * minute),
    (DURATION, "1h 5m", hour + 5 * minute),
    (DURATION, "1h\n5m", hour + 5 * minute),
    (DURATION, "150ms", timedelta(milliseconds=150)),
    (DURATION, "0", timedelta(0)),
    (DURATION, "0s", timedelta(0)),
    (DURATION, "5d", timedelta(days=5)),
    (DURATION, "1.5s", 1.5 * second),
    (DURATION, "20us", timedelta(microseconds=20)),
    (DURATION, "1m1m", 2 * minute),
    (DURATION, 90, 90 * second),
    (DURATION, 0.25, 0.25 * second),
    (DURATION, minute, minute),
    (DURATION, 0, timedelta(0)),
    (DURATION, MAX_DURATION, MAX_DURATION),
    (TIMEOUT, "1us", timedelta(microseconds=1)),
    (SECONDS, "150", 150 * second),
    (SECONDS, "2m30s", 150 * second),
    (SIZE, "32M", 32 * 1024 * 1024),
    (SIZE, "3M 5K", 3 * 1024 * 1024 + 5 * 1024),
    (SIZE, "5b", 5),
    (SIZE, "1G", 1024**3),
    (SIZE, "1k", 1024),
    (SIZE, "0", 0),
    (SIZE, 1234, 1234),
    (DOMAIN, "MX.Example.org.", Domain("mx.example.org")),
    (DOMAIN, "bücher.example", Domain("xn--bcher-kva.example")),
    (DOMAIN, Domain("a.b"), Domain("a.b")),
    (IP_ADDRESS, "192.0.2.1", IPv4Address("192.0.2.1")),
    (IP_ADDRESS, "2001:DB8::1", IPv6Address("2001:db8::1")),
    (IP_ADDRESS, IPv4Address("192.0.2.1"), IPv4Address("192.0.2.1")),
    (NETWORK, "10.0.0.0/8", IPv4Network("10.0.0.0/8")),
    (NETWORK, "10.0.0.0/255.0.0.0", IPv4Network("10.0.0.0/8")),
    (NETWORK, "192.0.2.1", IPv4Network("192.0.2.1/32")),
    (NETWORK, "fc00::/7", IPv6Network("fc00::/7")),
    (NETWORK, IPv6Network("fc00::/7"), IPv6Network("fc00::/7")),
    (PATH, "a b/c", Path("a b/c")),
    (PATH, Path("/a"), Path("/a")),
    (many(PORT), "25", (25,)),
    (many(PORT), 25, (25,)),
    (many(PORT), ["25", 26], (25, 26)),
    (many(PORT), (), ()),
    (many(PORT, none=True), "none", ()),
    (many(PORT, none=True), ["26"], (26,)),
    (many(IP_ADDRESS), IPv4Address("192.0.2.1"), (IPv4Address("192.0.2.1"),)),
]


@pytest.mark.parametrize(("type", "given", "value"), ACCEPTED)
def test_what_is_accepted(type: ValueType[Any], given: object, value: object) -> None:
    accepted = type.accept(given)
    assert accepted == value
    assert accepted.__class__ is value.__class__


REFUSED: list[tuple[ValueType[Any], object, str]] = [
    *((BOOLEAN, word, "expected yes or no, not") for word in ("", "y", "2", 1, 0, None, "yes no")),
    *((integer(), word, "expected a whole number, 0 or more, not") for word in ("", "-1", "1.0", "٣", "1_0", " 1")),
    *((integer(), word, "expected a whole number, 0 or more, not") for word in (-1, 1.0, True, None)),
    (integer(1), 10**12 + 1, "expected at most 1000000000000, not 1000000000001"),
    (integer(1), "9" * 20, 'expected at most 1000000000000, not "99999999999999999999"'),
    (integer(1, 3), "9" * 20, 'expected a whole number from 1 to 3, not "99999999999999999999"'),
    (integer(2, 3), 4, "expected a whole number from 2 to 3, not 4"),
    (PORT, "0", 'expected a whole number from 1 to 65535, not "0"'),
    (PORT, 65536, "expected a whole number from 1 to 65535, not 65536"),
    *((COLOUR, word, "expected red or deep-blue, not") for word in ("", "green", "deep_blue", 1, None)),
    (choice(Size), "1", 'expected small or large, not "1"'),
    (choice(Size), 1, "expected small or large, not 1"),
    *(
        (DURATION, word, "expected a duration, such as 1h5m, 30s or 150ms, not")
        for word in ("", "-1s", "1h5", "s", "1 h", "1w", "1hm", "1.s", ".5s", "1H", "١s")
    ),
    (DURATION, "1", 'expected a duration with its unit, not "1"; did you mean "1s"?'),
    *((DURATION, each, "expected a duration") for each in (-1, math.nan, math.inf, 1e300, -second)),
    *((DURATION, each, "expected a duration") for each in (True, None, b"1s")),
    (DURATION, MAX_DURATION + second, "expected at most ten years, which are 3653d, not"),
    (DURATION, "9" * 12 + "d", 'expected at most ten years, which are 3653d, not "999999999999d"'),
    (SECONDS, "9" * 20, "expected at most ten years, which are 3653d, not"),
    *((TIMEOUT, each, "expected a duration longer than 0, such as") for each in ("0", 0, "0s", timedelta(0))),
    (SECONDS, "1.5", "expected a number of seconds or a duration, such as"),
    *((SIZE, word, "expected a size such as 32M, 3M 5K or 5b, not") for word in ("", "1", "1T", "M", "-1M", "1.5M")),
    *((SIZE, each, "expected a size such as 32M, 3M 5K or 5b, not") for each in ("32M5K", -1, True, None, 2.0, "1 M")),
    (SIZE, "999999999999G", 'expected at most 1000000000000 octets, not "999999999999G"'),
    *((size(2, 4, " from 2b to 4b"), word, "expected a size from 2b to 4b such as") for word in ("1b", "5b")),
    *((DOMAIN, word, "expected a domain name such as mx.example.org, not") for word in ("", "a..b", "a b", None, 1)),
    *((IP_ADDRESS, each, "expected an IPv4 or IPv6 address, not") for each in ("", "1.2.3", "1.2.3.4/8", 1, None)),
    *((NETWORK, each, "expected a network such as 10.0.0.0/8 or fc00::/7, not") for each in ("", "ten", "::/129", 1)),
    (NETWORK, "10.0.0.1/8", "host bits set; did you mean 10.0.0.0/8?"),
    *((PATH, each, "expected a path, not") for each in ("", "a\0b", None, 1, b"a")),
    (many(PORT), [25, "x"], 'expected a whole number from 1 to 65535, not "x"'),
    (many(PORT), "none", 'expected a whole number from 1 to 65535, not "none"'),
    (many(PORT), None, "expected a whole number from 1 to 65535, not None"),
    (many(PORT, none=True), ["none"], 'expected a whole number from 1 to 65535, not "none"'),
]


@pytest.mark.parametrize(("type", "given", "message"), REFUSED)
def test_what_is_refused(type: ValueType[Any], given: object, message: str) -> None:
    with pytest.raises(Unacceptable) as caught:
        type.accept(given)
    assert message in str(caught.value)
    assert isinstance(caught.value, InvalidValue)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("a", '"a"'),
        ("a\nb\x00\u202e", '"a\ufffdb\ufffd\ufffd"'),
        ("x" * 100, f'"{"x" * 100}"'),
        ("x" * 101, f'"{"x" * 100}..."'),
        (5, "5"),
        (None, "None"),
    ],
)
def test_wrong_values_are_shown_safely(value: object, shown: str) -> None:
    assert show(value) == shown


@pytest.mark.parametrize(
    ("type", "value", "shown"),
    [
        (BOOLEAN, True, "yes"),
        (BOOLEAN, False, "no"),
        (DURATION, 65 * minute, "1h5m"),
        (COLOUR, Colour.DEEP_BLUE, "deep-blue"),
        (PORT, 25, "25"),
        (many(PORT), (25, 26), "25 26"),
        (many(PORT), (), ""),
    ],
)
def test_right_values_are_shown_as_they_are_written(type: ValueType[Any], value: object, shown: str) -> None:
    assert type.show(value) == shown


@pytest.mark.parametrize(
    ("type", "name", "choices", "words"),
    [
        (many(PATH), "path...", (), Words.EACH),
        (many(COLOUR), "(red | deep-blue)...", ("red", "deep-blue"), Words.EACH),
        (many(NETWORK, none=True), "network...", ("none",), Words.EACH),
        (many(DURATION), "duration", (), Words.LINE),
        (SECONDS, "seconds or duration", (), Words.LINE),
        (BOOLEAN, "boolean", ("yes", "no"), Words.ONE),
    ],
)
def test_what_is_known_of_a_type(type: ValueType[Any], name: str, choices: tuple[str, ...], words: Words) -> None:
    assert (type.name, type.choices, type.words) == (name, choices, words)


@pytest.mark.parametrize(("words", "text"), [(["a"], "a"), (["a", "b"], "a or b"), (["a", "b", "c"], "a, b or c")])
def test_alternatives_in_words(words: list[str], text: str) -> None:
    assert either(words) == text


@given(st.timedeltas(min_value=timedelta(0), max_value=MAX_DURATION))
def test_a_duration_that_is_written_is_read_as_it_was(span: timedelta) -> None:
    assert DURATION.accept(show_duration(span)) == span
    assert SECONDS.accept(show_duration(span)) == span


@given(st.lists(st.tuples(st.integers(0, 999), st.sampled_from("GMKb")), min_size=1, max_size=4))
def test_sizes_add_up(parts: list[tuple[int, str]]) -> None:
    of = {"G": 1024**3, "M": 1024**2, "K": 1024, "b": 1}
    expected = sum(number * of[unit] for number, unit in parts)
    text = " ".join(f"{number}{unit}" for number, unit in parts)
    if expected <= 10**12:
        assert SIZE.accept(text) == expected


@given(st.text(max_size=30) | st.from_regex(r"[0-9.dhmsu GMKb-]{0,20}", fullmatch=True))
@pytest.mark.parametrize("type", [BOOLEAN, integer(), PORT, DURATION, SECONDS, SIZE, DOMAIN, NETWORK, PATH, many(PORT)])
def test_any_word_is_accepted_or_refused(type: ValueType[Any], text: str) -> None:
    try:
        type.accept(text)
    except Unacceptable as refused:
        problem = str(refused)
    else:
        problem = "expected nothing else"
    assert problem.startswith("expected ")
