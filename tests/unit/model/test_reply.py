"""Replies and enhanced status codes as values (RFC 5321 4.2, RFC 3463)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrider.errors import InvalidValue
from mailrider.model.reply import MAX_QUOTE, EnhancedCode, Reply, clean_text, quote_reply, split_enhanced
from mailrider.model.text import UNSAFE
from tests.unit.model.strategies import enhanced_codes, parses, replies, tricky_text


def enhanced(text: str) -> EnhancedCode:
    return EnhancedCode.parse(text)


@pytest.mark.parametrize(
    ("text", "code"),
    [("2.0.0", (2, 0, 0)), ("4.4.1", (4, 4, 1)), ("5.7.30", (5, 7, 30)), ("5.999.999", (5, 999, 999))],
)
def test_enhanced_codes(text: str, code: tuple[int, int, int]) -> None:
    assert enhanced(text) == EnhancedCode(*code)
    assert str(enhanced(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        "5.1",
        "5.1.",
        "5.1.1.1",
        "3.0.0",
        "1.0.0",
        "5.1000.0",
        "5.1.1 ",
        " 5.1.1",
        "5.1.1\n",
        "5.1.1 x",
        "5.١.1",
    ],
)
def test_what_is_no_enhanced_code(text: str) -> None:
    with pytest.raises(InvalidValue, match="not an enhanced status code"):
        EnhancedCode.parse(text)


@pytest.mark.parametrize("code", [(3, 0, 0), (0, 0, 0), (5, 1000, 0), (5, 0, 1000), (5, -1, 0), (5, 0, -1)])
def test_no_enhanced_code_is_made_that_could_not_be_parsed(code: tuple[int, int, int]) -> None:
    with pytest.raises(InvalidValue):
        EnhancedCode(*code)


@given(enhanced_codes)
def test_an_enhanced_code_survives_writing_and_parsing(code: EnhancedCode) -> None:
    assert EnhancedCode.parse(str(code)) == code


@given(tricky_text)
def test_any_text_is_an_enhanced_code_or_an_invalid_value(text: str) -> None:
    parses(EnhancedCode.parse, text)


@pytest.mark.parametrize(
    ("text", "code", "rest"),
    [
        ("5.1.1 no such user", "5.1.1", "no such user"),
        ("5.1.1", "5.1.1", ""),
        ("5.1.1 ", "5.1.1", ""),
        ("5.1.1  two spaces", "5.1.1", " two spaces"),
        ("5.1.1.1 is an address", None, "5.1.1.1 is an address"),
        ("5.1.1-x", None, "5.1.1-x"),
        ("5.1.1\n", None, "5.1.1\n"),
        ("OK 2.0.0", None, "OK 2.0.0"),
        ("", None, ""),
    ],
)
def test_the_enhanced_code_is_split_from_the_text(text: str, code: str | None, rest: str) -> None:
    assert split_enhanced(text) == (None if code is None else enhanced(code), rest)


@pytest.mark.parametrize("code", [-1, 0, 100, 199, 600, 2500])
def test_reply_codes_are_200_to_599(code: int) -> None:
    with pytest.raises(InvalidValue, match="not within 200 to 599"):
        Reply(code)


@pytest.mark.parametrize(
    ("code", "positive", "transient", "permanent"),
    [
        (200, True, False, False),
        (299, True, False, False),
        (354, False, False, False),
        (400, False, True, False),
        (499, False, True, False),
        (500, False, False, True),
        (599, False, False, True),
    ],
)
def test_the_first_digit_says_what_it_means(code: int, positive: bool, transient: bool, permanent: bool) -> None:
    reply = Reply(code)
    assert (reply.is_positive, reply.is_transient, reply.is_permanent) == (positive, transient, permanent)


@pytest.mark.parametrize(("code", "text"), [(250, "5.0.0"), (451, "5.4.1"), (550, "4.1.1"), (354, "2.0.0")])
def test_the_class_of_an_enhanced_code_is_that_of_the_code(code: int, text: str) -> None:
    with pytest.raises(InvalidValue, match="contradicts"):
        Reply(code, enhanced(text))
    assert Reply.from_lines(code, (f"{text} hm",)) == Reply(code, None, (f"{text} hm",))


@pytest.mark.parametrize(
    ("code", "given_code", "status"),
    [(250, "2.1.5", "2.1.5"), (250, None, "2.0.0"), (354, None, "2.0.0"), (450, None, "4.0.0"), (550, None, "5.0.0")],
)
def test_where_the_server_gave_no_enhanced_code_its_class_is_known(
    code: int, given_code: str | None, status: str
) -> None:
    assert str(Reply.make(code, given_code, "").status) == status


@pytest.mark.parametrize("lines", [(), ("a\r\nb",), ("a", "b\n"), ("\0",), ("\udc80",), ("a\u2028",)], ids=ascii)
def test_a_reply_is_lines_without_control_characters(lines: tuple[str, ...]) -> None:
    with pytest.raises(InvalidValue, match="lines of printable text"):
        Reply(250, None, lines)


def test_our_own_replies_are_cleaned() -> None:
    assert Reply.make(451, "4.4.1", " No\r\nanswer\t") == Reply(451, EnhancedCode(4, 4, 1), ("No answer",))


@pytest.mark.parametrize(
    ("lines", "code", "kept"),
    [
        (("5.1.1 no", "5.1.1 such", "5.1.1 user"), "5.1.1", ("no", "such", "user")),
        (("5.1.1 no", "such user"), "5.1.1", ("no", "such user")),
        (("5.1.1 no", "5.7.1 such user"), "5.1.1", ("no", "5.7.1 such user")),
        (("no such", "5.1.1 user"), None, ("no such", "5.1.1 user")),
        # Control characters are spaces first, so this one has an enhanced code.
        (("5.1.1\tno\rsuch user",), "5.1.1", ("no such user",)),
    ],
)
def test_replies_as_received(lines: tuple[str, ...], code: str | None, kept: tuple[str, ...]) -> None:
    assert Reply.from_lines(550, lines) == Reply(550, None if code is None else enhanced(code), kept)


def test_the_text_is_one_line() -> None:
    reply = Reply(550, enhanced("5.1.1"), ("  no", "such user "))
    assert reply.text == "no such user"
    assert str(reply) == "550 5.1.1 no such user"
    assert str(Reply(250)) == "250"


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("plain", "plain"),
        ("  spaces around  ", "spaces around"),
        ("line\r\nends\u2028of\x85all\vkinds", "line ends of all kinds"),
        ("\x1b[31mred\x1b[0m", "[31mred [0m"),
        ("reversed \u202etxt.exe", "reversed  txt.exe"),
        ("octets \udcff\udcfe", "octets"),
        ("jürgen 😀", "jürgen 😀"),
        ("", ""),
    ],
)
def test_clean_text(text: str, cleaned: str) -> None:
    assert clean_text(text) == cleaned


@given(tricky_text)
def test_cleaned_text_is_safe_and_stays_as_it_is(text: str) -> None:
    cleaned = clean_text(text)
    assert not UNSAFE.search(cleaned)
    assert clean_text(cleaned) == cleaned
    cleaned.encode()


@given(st.integers(200, 599), st.lists(tricky_text, min_size=1, max_size=4))
def test_any_text_makes_a_reply(code: int, lines: list[str]) -> None:
    reply = Reply.from_lines(code, tuple(lines))
    assert len(reply.lines) == len(lines)
    assert reply.enhanced is None or reply.enhanced.klass == code // 100
    assert not UNSAFE.search(str(reply))


def test_a_remote_reply_is_quoted_with_its_host() -> None:
    quoted = quote_reply("mx.example.net", Reply.from_lines(550, ("5.1.1 no such", "5.1.1 user")))
    assert quoted == Reply(550, EnhancedCode(5, 1, 1), ("mx.example.net said: no such user",))


@given(replies())
def test_a_quote_is_bounded_keeps_the_codes_and_has_an_enhanced_one(reply: Reply) -> None:
    long = Reply(reply.code, reply.enhanced, reply.lines * 200)
    quoted = quote_reply("mx.example.net", long)
    assert len(quoted.text) <= MAX_QUOTE
    assert (quoted.code, quoted.enhanced) == (reply.code, None if reply.code // 100 == 3 else reply.status)
