"""Patterns as those of file names, for texts of any length."""

from __future__ import annotations

import fnmatch
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrider.endpoint.pipeline.glob import Glob


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [
        ("", "", True),
        ("", "a", False),
        ("*", "", True),
        ("a*a", "a", False),
        ("a*a", "aa", True),
        ("*b*", "abc", True),
        ("a?c", "aBc", True),
        ("a?c", "ac", False),
        ("a?c", "a\nc", True),
        ("[a-c]x", "Bx", True),
        ("[!a-c]x", "bx", False),
        ("[]]x", "]x", True),
        ("[*]", "*", True),
        ("[*]", "a", False),
        ("[a", "[a", True),
        ("*[0-9]?*.exe", "x9y.exe", True),
        ("*[0-9]?*.exe", "x9.exe", False),
        ("*[0-9]??.exe", "x9.exe", False),
        ("GR\u00dcN*", "gr\u00fcn!", True),
        ("*kauf*", "ver\u212aauf", True),  # the Kelvin sign, which looks like a K
        ("\\d", "\\d", True),
    ],
)
def test_a_pattern_describes_the_whole_text(pattern: str, text: str, fits: bool) -> None:
    assert Glob.of(pattern).fits(text) is fits


@given(st.text("ab*?[]!-", max_size=12), st.text("abAB]-!\n", max_size=12))
def test_it_means_what_fnmatch_means(pattern: str, text: str) -> None:
    expected = re.match(fnmatch.translate(pattern.lower()), text.lower()) is not None
    assert Glob.of(pattern).fits(text) is expected


@given(st.text("ab", min_size=1, max_size=4), st.integers(0, 20))
def test_a_part_is_found_wherever_it_stands(word: str, before: int) -> None:
    text = "x" * before + word + "y"
    assert Glob.of(f"*{word[:-1]}[{word[-1]}]*").fits(text)
    assert not Glob.of(f"*{word[:-1]}[{word[-1]}]").fits(text)


def test_a_part_is_found_across_the_pieces_in_which_a_long_text_is_searched() -> None:
    word = "?" * 500 + "end"
    for at in (2083, 2084, 2085, 4168, 10_000):
        text = "-" * at + "end" + "-" * 3000
        assert Glob.of(f"*{word}*").fits(text)
        assert not Glob.of(f"*{word}x*").fits(text)
