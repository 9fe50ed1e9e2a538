"""Text to tokens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrider.config.lexer import TokenKind, tokens, word_length

W, S, B, C, E, X = TokenKind.WORD, TokenKind.STRING, TokenKind.OPEN, TokenKind.CLOSE, TokenKind.END, TokenKind.ERROR

CASES = {
    "nothing": ("", []),
    "words are separated by spaces and tabs": ("a  b\tc", [(W, "a"), (W, "b"), (W, "c")]),
    "a line ends a directive": ("a\nb", [(W, "a"), (E, "\n"), (W, "b")]),
    "blank lines and comment lines are one end": ("a\n\n  # x\n\t\nb", [(W, "a"), (E, "\n\n  # x\n\t\n"), (W, "b")]),
    "a backslash at the end of a line continues it": ("a \\\n b", [(W, "a"), (W, "b")]),
    "a backslash right behind a word continues too": ("a\\\nb", [(W, "a"), (W, "b")]),
    "a backslash at the end of the text is nothing": ("a \\", [(W, "a")]),
    "a backslash before a space is text": ("a \\ \nb", [(W, "a"), (W, "\\"), (E, "\n"), (W, "b")]),
    "a backslash in a word is text": ("C:\\x\\", [(W, "C:\\x")]),
    "a comment goes to the end of the line": ('a # b { " \nc', [(W, "a"), (E, "\n"), (W, "c")]),
    "a backslash does not continue a comment": ("a # b \\\nc", [(W, "a"), (E, "\n"), (W, "c")]),
    "a comment may stand at the start": ("# a\nb", [(E, "\n"), (W, "b")]),
    "a # inside a word is text": ("a b#c #d", [(W, "a"), (W, "b#c")]),
    "a # right behind a string": ('"a"#b', [(S, "a"), (X, "expected a space behind the closing quote")]),
    "a string is one argument": ('a "b c"', [(W, "a"), (S, "b c")]),
    "a string may be empty": ('""', [(S, "")]),
    "a string may span lines": ('"a\n b"\nc', [(S, "a\n b"), (E, "\n"), (W, "c")]),
    "a quote in a string is escaped": (r'"a \"b\" c"', [(S, 'a "b" c')]),
    "any other backslash in a string is itself": (r'"a\b \n \\"', [(S, r"a\b \n \\")]),
    "a backslash at the end of a line in a string is text": ('"a\\\nb"', [(S, "a\\\nb")]),
    "a # or a brace in a string is text": ('"# { }"', [(S, "# { }")]),
    "a quoted brace is text": ('"{" "}"', [(S, "{"), (S, "}")]),
    "a quote inside a word is text": ('a"b c"', [(W, 'a"b'), (W, 'c"')]),
    "braces by themselves": ("a { b\n}", [(W, "a"), (B, "{"), (W, "b"), (E, "\n"), (C, "}")]),
    "empty braces": ("a {}", [(W, "a"), (B, "{}"), (C, "{}")]),
    "a brace in a word is text": ("a{ {env:X} }b", [(W, "a{"), (W, "{env:X}"), (W, "}b")]),
    "an unclosed quote": ('a "b\nc', [(W, "a"), (X, "this quote is never closed"), (E, "\n"), (W, "c")]),
    "an unclosed quote may be due to an earlier one": (
        'a "b\nc "d" e "f',
        [
            (W, "a"),
            (S, "b\nc "),
            (X, "expected a space behind the closing quote"),
            (W, 'd"'),
            (W, "e"),
            (
                X,
                "this quote is never closed; or one is missing in the string over several lines that begins in line 1",
            ),
        ],
    ),
    "text behind a closing quote": ('"a"b', [(S, "a"), (X, "expected a space behind the closing quote"), (W, "b")]),
    "a continuation behind a closing quote": ('"a"\\\nb', [(S, "a"), (W, "b")]),
    "a control character": ("a\0b", [(W, "a\0b"), (X, "this character cannot be seen (U+0000); remove it")]),
    "a lone CR": ("a\rb", [(W, "a\rb"), (X, "this character cannot be seen (U+000D); remove it")]),
    "a control character in a string": (
        '"a\x1bb"',
        [(S, "a\x1bb"), (X, "this character cannot be seen (U+001B); remove it")],
    ),
    "a no-break space": ("a\u00a0b", [(W, "a\u00a0b"), (X, "this character cannot be seen (U+00A0); remove it")]),
    "a no-break space in a string": ('"a\u00a0b"', [(S, "a\u00a0b")]),
    "umlauts": ("hostname mäil.example", [(W, "hostname"), (W, "mäil.example")]),
}


@pytest.mark.parametrize("case", CASES)
def test_tokens(case: str) -> None:
    text, expected = CASES[case]
    assert [(token.kind, token.text) for token in tokens(text)] == expected


def test_offsets_are_those_of_the_first_character() -> None:
    text = 'a "b"\n  {} # c\n}'
    found = {token.offset: text[token.offset] for token in tokens(text) if token.kind is not E}
    assert found == {0: "a", 2: '"', 8: "{", 9: "}", 15: "}"}


@pytest.mark.parametrize(
    ("text", "offset", "length"), [("ab c", 0, 2), ("ab c", 3, 1), ('"a b" c', 0, 5), ('"a\nb"', 0, 2), ("a", 1, 0)]
)
def test_the_length_of_a_word_in_its_line(text: str, offset: int, length: int) -> None:
    assert word_length(text, offset) == length


@given(st.text(alphabet=' \t\n\\"#{}a$()\0\u00a0', max_size=200))
def test_every_text_becomes_tokens_in_order(text: str) -> None:
    offsets = [token.offset for token in tokens(text) if token.kind is not TokenKind.ERROR]
    assert offsets == sorted(offsets)
    assert all(0 <= offset <= len(text) for offset in offsets)


@given(st.text(alphabet=" \t\n{}ab", max_size=100))
def test_nothing_but_spaces_is_passed_over(text: str) -> None:
    found = "".join(token.text for token in tokens(text.replace("{}", "{ }")) if token.kind is not TokenKind.END)
    assert found == "".join(text.split())
