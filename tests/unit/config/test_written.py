"""What is written as an argument is read as the same text, or is not written at all."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrider.config import UnwritableError, quoted
from mailrider.config.expand import Allowance, Expander, decode
from mailrider.config.source import Problems

if TYPE_CHECKING:
    from mailrider.config.parser import Node

SPECIAL = ' \t\r\n\\"#{}$()ab:\0\u00a0\u200b\ufeff\ud800'
ANY = st.text(st.characters(exclude_categories=[])) | st.text(alphabet=SPECIAL, max_size=12)


def read(text: str) -> list[Node]:
    """A file of that text, as it is understood."""
    problems = Problems()
    source = decode("test.conf", text.encode(), Path("/nowhere"), problems)
    assert source is not None
    expander = Expander(problems, {"HOME": "/root"}, read=Path.read_bytes, allowance=Allowance(problems))
    nodes = list(expander.expand(source))
    assert not problems
    return nodes


def arguments(text: str) -> list[list[str]]:
    assert all(word.file is None for node in read(text) for word in node.arguments)
    return [[word.text for word in node.arguments] for node in read(text)]


@given(ANY)
def test_a_text_that_is_written_is_read_as_that_text_wherever_it_stands(text: str) -> None:
    with suppress(UnwritableError):
        written = quoted(text)
        assert arguments(f"name {written} more\nlast {written}") == [[text, "more"], [text]]
        assert arguments(f"block {written} {{\n}}\n") == [[text]]


@given(st.text(alphabet=' \t\n\\"#{}$()ab:/\u00a0\u200b', max_size=12))
def test_only_what_no_argument_can_be_is_not_written(text: str) -> None:
    before = [len(run) - len(run.rstrip("\\")) for run in text.split('"')]
    is_odd = any(backslashes % 2 for backslashes in before)
    is_used = any(start in text for start in ("$(", "{env:", "{file:"))
    if not is_odd and not is_used:
        quoted(text)
    elif is_odd:
        with pytest.raises(UnwritableError):
            quoted(text)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("/a/b", "/a/b"),
        ("", '""'),
        ("/a b/c", '"/a b/c"'),
        ('a "b" c', '"a \\"b\\" c"'),
        ("# a", '"# a"'),
        ("{}", '"{}"'),
        ("a\u00a0b", '"a\u00a0b"'),
        ("a\u200bb", '"a\u200bb"'),
        ("C:\\x", '"C:\\x"'),
        ("C:\\\\", '"C:\\\\"'),
        ("a$b", '"a$b"'),
    ],
)
def test_a_text_has_quotes_where_it_is_more_than_a_plain_word(text: str, written: str) -> None:
    assert quoted(text) == written


@pytest.mark.parametrize(
    "text",
    ["C:\\", "a b\\", '\\"', "$(x)", "a $(x)", "{env:HOME}", "{file:secret}", "\0", "a\r\nb", "\ufeff", "\ud800"],
)
def test_what_no_argument_can_be_is_refused_and_not_written_as_something_else(text: str) -> None:
    with pytest.raises(UnwritableError, match="no argument can be this text"):
        quoted(text)
