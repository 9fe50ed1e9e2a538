"""Characters that no value may carry."""

from __future__ import annotations

import pytest

from mailrider.model.text import UNSAFE

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
