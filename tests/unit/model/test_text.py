"""Characters that no value may carry."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrider.model.text import UNSAFE, cut, few, json_line, logical_lines, without_case

HARMFUL = {
    "NUL": "\0",
    "LF": "\n",
    "CR": "\r",
    "tab": "\t",
    "escape": "\x1b",
    "delete": "\x7f",
    "C1, next line": "\x85",
    "C1, control sequence introducer": "\x9b",
    "line separator": "\u2028",
    "paragraph separator": "\u2029",
    "right-to-left embedding": "\u202b",
    "right-to-left override": "\u202e",
    "first strong isolate": "\u2068",
    "high surrogate": "\ud800",
    "an octet that was not UTF-8": b"\x80".decode(errors="surrogateescape"),
}
HARMLESS = {
    "space": " ",
    "tilde": "~",
    "no-break space": "\xa0",
    "zero width non-joiner, Persian needs it": "\u200c",
    "zero width joiner, Indic scripts need it": "\u200d",
    "right-to-left mark": "\u200f",
    "Hebrew": "א",
    "emoji": "😀",
}


@pytest.mark.parametrize("character", HARMFUL.values(), ids=HARMFUL)
def test_harmful_characters_are_found(character: str) -> None:
    assert UNSAFE.search(f"a{character}b")


@pytest.mark.parametrize("character", HARMLESS.values(), ids=HARMLESS)
def test_harmless_characters_are_left_alone(character: str) -> None:
    assert not UNSAFE.search(f"a{character}b")


def test_a_run_of_harmful_characters_is_one_match() -> None:
    assert UNSAFE.sub(" ", "a\r\n\u2028\0b") == "a b"


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("grüße", '"grüße"'),
        ("a\nb", r'"a\nb"'),
        ("a\x85\u2028\u202eb", r'"a\u0085\u2028\u202eb"'),
        ("\x1b\x7f", r'"\u001b\u007f"'),
        ("\udcff", r'"\udcff"'),
        ({"ä": [1, None, True]}, '{"ä": [1, null, true]}'),
    ],
)
def test_json_is_one_line_and_readable_but_for_what_does_harm(value: object, line: str) -> None:
    assert json_line(value) == line


@given(
    st.recursive(
        st.none() | st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_json_means_the_same_whatever_was_escaped(value: object) -> None:
    line = json_line(value)
    assert json.loads(line) == value
    assert not UNSAFE.search(line)
    line.encode()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("\n# only a comment\n   \n", []),
        ("a\nb\n", [(1, "a"), (2, "b")]),
        ("a: x,\n  y,\n# in between\n\n\tz\nb", [(1, "a: x, y, z"), (6, "b")]),
        ("  continues nothing\nb", [(1, "continues nothing"), (2, "b")]),
    ],
)
def test_lines_that_begin_with_white_space_continue_others(text: str, expected: list[tuple[int, str]]) -> None:
    assert list(logical_lines(text)) == expected


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, ""), (1, "0"), (5, "0, 1, 2, 3, 4"), (6, "0, 1, 2, 3, 4 and 1 more"), (40, "0, 1, 2, 3, 4 and 35 more")],
)
def test_an_error_names_at_most_five_words(count: int, text: str) -> None:
    assert few(map(str, range(count))) == text


@pytest.mark.parametrize(
    ("text", "octets", "expected"),
    [("abc", 3, "abc"), ("abcd", 3, "abc"), ("a\u20acb", 3, "a"), ("a\u20acb", 4, "a\u20ac"), ("\ud800b", 9, "?b")],
)
def test_a_text_is_cut_by_octets_and_between_characters(text: str, octets: int, expected: str) -> None:
    assert cut(text, octets) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("KIM", "kim"), ("JÖRG", "jörg"), ("\N{KELVIN SIGN}im", "\N{KELVIN SIGN}im"), ("ΑΩ İ", "αω i̇"), ("", "")],
)
def test_no_letter_becomes_one_of_ascii(text: str, expected: str) -> None:
    assert without_case(text) == expected
