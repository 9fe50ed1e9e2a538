"""Tokens to nodes, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrider.config.parser import MAX_NESTING, Node, parse
from mailrider.config.source import Position, Problems, Source

Shape = tuple[Any, ...]  # (name, arguments, children or None)


def parsed(text: str) -> tuple[tuple[Node, ...], list[str]]:
    problems = Problems()
    nodes = parse(Source("f", text, Path()), problems, lambda _: None)
    return nodes, [f"{problem.line}:{problem.column} {problem.message}" for problem in problems.in_order()]


def shape(node: Node) -> Shape:
    children = None if node.children is None else [shape(child) for child in node.children]
    return (node.name.text, [word.text for word in node.arguments], children)


CASES: dict[str, tuple[str, list[Shape]]] = {
    "nothing": ("\n # only a comment\n\n", []),
    "a directive": ("a b c", [("a", ["b", "c"], None)]),
    "two": ("a\nb", [("a", [], None), ("b", [], None)]),
    "an empty block": ("a b { }", [("a", ["b"], [])]),
    "an empty block in braces without a space": ("a {}", [("a", [], [])]),
    "a block": ("a {\n b c\n d\n}\n", [("a", [], [("b", ["c"], None), ("d", [], None)])]),
    "a block in one line": ("a { b c }", [("a", [], [("b", ["c"], None)])]),
    "blocks in blocks": ("a { b { c { } } }", [("a", [], [("b", [], [("c", [], [])])])]),
    "several close in one line": ("a {\nb {\nc } }\nd", [("a", [], [("b", [], [("c", [], None)])]), ("d", [], None)]),
    "a comment behind a brace": ("a { # x\n b\n} # y", [("a", [], [("b", [], None)])]),
    "a continued line": ("a \\\n b \\\n {\n c\n}", [("a", ["b"], [("c", [], None)])]),
    "a quoted name": ('"a b" c', [("a b", ["c"], None)]),
    "an empty quoted name": ('"" c', [("", ["c"], None)]),
}


@pytest.mark.parametrize("case", CASES)
def test_nodes(case: str) -> None:
    text, expected = CASES[case]
    nodes, problems = parsed(text)
    assert ([shape(node) for node in nodes], problems) == (expected, [])


WRONG: dict[str, tuple[str, list[Shape], list[str]]] = {
    "an unclosed block": (
        "a {\n b",
        [("a", [], [("b", [], None)])],
        ["1:3 this block is never closed: expected } before the end of the file"],
    ),
    "two unclosed blocks": (
        "a {\n b {",
        [("a", [], [("b", [], [])])],
        [
            "1:3 this block is never closed: expected } before the end of the file",
            "2:4 this block is never closed: expected } before the end of the file",
        ],
    ),
    "a brace too many": ("a\n}\nb", [("a", [], None), ("b", [], None)], ["2:1 there is no block to close here"]),
    "a brace on a line of its own": (
        "a\n{\n b\n}\nc",
        [("a", [], None), ("c", [], None)],
        ["2:1 expected the name of a directive before {, on the same line"],
    ),
    "text behind a block": (
        "a { } b\nc",
        [("a", [], []), ("b", [], None), ("c", [], None)],
        ["1:7 expected the end of the line behind }"],
    ),
    "an error in the text does not hide the others": (
        'a "b\n}\n',
        [("a", [], None)],
        ["1:3 this quote is never closed", "2:1 there is no block to close here"],
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_told_and_the_rest_is_read(case: str) -> None:
    text, expected, messages = WRONG[case]
    nodes, problems = parsed(text)
    assert ([shape(node) for node in nodes], problems) == (expected, messages)


def nested(levels: int) -> str:
    return "a {\n" * levels + "b\n" + "}\n" * levels + "c\n"


def test_255_levels_of_blocks_are_read() -> None:
    nodes, problems = parsed(nested(255))
    assert problems == []
    for _ in range(255):
        assert nodes[0].children is not None
        nodes = nodes[0].children
    assert shape(nodes[0]) == ("b", [], None)


@pytest.mark.parametrize("levels", [256, 257, 5000])
def test_256_levels_of_blocks_are_an_error_and_reading_goes_on_behind_them(levels: int) -> None:
    nodes, problems = parsed(nested(levels))
    assert problems == [f"{MAX_NESTING + 1}:3 blocks are nested more than 255 levels deep"]
    assert [node.name.text for node in nodes] == ["a", "c"]


def test_every_word_is_counted() -> None:
    counted: list[str] = []
    parse(Source("f", 'a "b" {\n c }', Path()), Problems(), lambda position: counted.append(str(position)))
    assert counted == ["f:1:1", "f:1:3", "f:1:7", "f:2:2"]


def test_positions_carry_the_import() -> None:
    at = Position(Source("main", "import f", Path()), 7)
    (node,) = parse(Source("f", "a", Path()), Problems(), lambda _: None, at)
    assert node.name.position.trail == ("main:1:8",)


# --- Nodes written as text are the same nodes when read again ------------------------------------


def written(shape: Shape, indent: str = "") -> str:
    name, arguments, children = shape
    line = indent + " ".join(map(quoted, (name, *arguments)))
    if children is None:
        return line + "\n"
    return f"{line} {{\n{''.join(written(child, indent + '    ') for child in children)}{indent}}}\n"


def quoted(text: str) -> str:
    return '"' + text.replace('"', '\\"') + '"'


# A string cannot end in a lone backslash, nor hold one right before a quote: it would escape the quote.
texts = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="\\"), max_size=8) | st.sampled_from(
    ["a b", "{", "}", "#", "# a", 'x"y', "line\nline", "\\a", "", "&name", "$(x)", "{env:X}"]
)
shapes: st.SearchStrategy[Shape] = st.recursive(
    st.tuples(texts, st.lists(texts, max_size=3), st.none()),
    lambda inner: st.tuples(texts, st.lists(texts, max_size=3), st.lists(inner, max_size=3)),
    max_leaves=20,
)


@given(st.lists(shapes, max_size=4))
def test_what_is_written_is_read_as_it_was(shapes: list[Shape]) -> None:
    nodes, problems = parsed("".join(map(written, shapes)))
    assert problems == []
    assert [shape(node) for node in nodes] == shapes


@given(st.text(alphabet=' \n\\"#{}ab', max_size=300))
def test_any_text_is_read_to_its_end_and_every_problem_has_a_place_in_it(text: str) -> None:
    problems = Problems()
    parse(Source("f", text, Path()), problems, lambda _: None)
    lines = text.split("\n")
    for problem in problems.in_order():
        assert 1 <= problem.line <= len(lines)
        assert 1 <= problem.column <= len(lines[problem.line - 1]) + 1
