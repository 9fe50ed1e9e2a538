"""Replies on the wire: every sample whole, byte by byte and with trailing bytes; and what is no reply."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrider.model.reply import EnhancedCode, Reply
from mailrider.smtp.replies import (
    MAX_FINAL_LINES,
    MAX_LINE,
    MAX_LINES,
    ReplyParser,
    ReplyViolation,
    Tolerance,
    encode_reply,
)
from tests.unit.model.strategies import replies


def parse(data: bytes) -> list[Reply]:
    return list(ReplyParser().receive(data))


def lines(code: int, *text: str) -> Reply:
    return Reply.from_lines(code, text)


LONGEST_TEXT = "x" * (MAX_LINE - len("250 \r\n"))

REPLIES: dict[str, tuple[bytes, Reply]] = {
    "one line": (b"250 OK\r\n", lines(250, "OK")),
    "code alone": (b"250\r\n", lines(250, "")),
    "code and space": (b"250 \r\n", lines(250, "")),
    "enhanced code": (b"550 5.1.1 no such user\r\n", Reply(550, EnhancedCode(5, 1, 1), ("no such user",))),
    "several lines": (b"250-a\r\n250-b\r\n250 c\r\n", lines(250, "a", "b", "c")),
    "empty lines": (b"250-\r\n250-\r\n250\r\n", lines(250, "", "", "")),
    "enhanced code on each line": (
        b"550-5.7.1 no\r\n550-5.7.1 way\r\n550 5.7.1 ever\r\n",
        Reply(550, EnhancedCode(5, 7, 1), ("no", "way", "ever")),
    ),
    "enhanced code of another class": (b"450 5.1.1 hm\r\n", Reply(450, None, ("5.1.1 hm",))),
    "intermediate": (b"354 go ahead\r\n", lines(354, "go ahead")),
    "the least code": (b"200 x\r\n", lines(200, "x")),
    "the greatest code": (b"599 x\r\n", lines(599, "x")),
    "UTF-8 (RFC 6531 3.7.4.2)": ("250 grüß dich\r\n".encode(), lines(250, "grüß dich")),
    "text that is not UTF-8": (b"250 gr\xfc\xdf\r\n", lines(250, r"gr\xfc\xdf")),
    "surrogates in UTF-8": (b"250 \xed\xa0\x80\r\n", lines(250, r"\xed\xa0\x80")),
    "control characters": (b"250 a\tb\x1b[2Jc\rd\r\n", lines(250, "a b [2Jc d")),
    "a text like a code": (b"250 250-x\r\n", lines(250, "250-x")),
    "the longest line": (f"250 {LONGEST_TEXT}\r\n".encode(), lines(250, LONGEST_TEXT)),
    "the most lines": (
        b"250-x\r\n" * (MAX_LINES - 1) + b"250 x\r\n",
        lines(250, *["x"] * MAX_LINES),
    ),
}


@pytest.mark.parametrize(("data", "reply"), REPLIES.values(), ids=REPLIES)
def test_a_reply_in_one_piece(data: bytes, reply: Reply) -> None:
    assert parse(data) == [reply]


@pytest.mark.parametrize(("data", "reply"), REPLIES.values(), ids=REPLIES)
def test_a_reply_byte_by_byte_is_complete_with_its_last_byte(data: bytes, reply: Reply) -> None:
    parser = ReplyParser()
    assert parser.is_empty
    for octet in data[:-1]:
        assert list(parser.receive(bytes([octet]))) == []
        assert not parser.is_empty
    assert list(parser.receive(data[-1:])) == [reply]
    assert parser.is_empty


@pytest.mark.parametrize("trailing", [b"2", b"250", b"250-x\r\n", b"250 x\r"])
@pytest.mark.parametrize(("data", "reply"), REPLIES.values(), ids=REPLIES)
def test_what_follows_a_reply_waits_for_its_end(data: bytes, reply: Reply, trailing: bytes) -> None:
    parser = ReplyParser()
    assert list(parser.receive(data + trailing)) == [reply]
    assert not parser.is_empty


VIOLATIONS: dict[str, bytes] = {
    "bare LF": b"250 OK\n",
    "bare LF alone": b"\n",
    "bare LF in the middle of a reply": b"250-OK\n250 OK\r\n",
    "empty line": b"\r\n",
    "no code": b"OK\r\n",
    "code of two digits": b"25 OK\r\n",
    "code of two digits alone": b"25\r\n",
    "code of four digits": b"2500 OK\r\n",
    "digits that are not ASCII": "２５０ OK\r\n".encode(),
    "sign": b"+25 OK\r\n",
    "space before the code": b" 250 OK\r\n",
    "tab behind the code": b"250\tOK\r\n",
    "1xx": b"150 hm\r\n",
    "199": b"199 hm\r\n",
    "600": b"600 hm\r\n",
    "000": b"000 hm\r\n",
    "codes that differ": b"250-a\r\n251 b\r\n",
    "codes that differ, and go on": b"250-a\r\n550-b\r\n",
    "a line without a code in a reply": b"250-a\r\nb\r\n",
    "NUL": b"250 a\0b\r\n",
    "NUL in the first of several lines": b"250-a\0b\r\n250 c\r\n",
    "NUL in the last of several lines": b"250-a\r\n250 b\0\r\n",
    "line too long": f"250 {LONGEST_TEXT}x\r\n".encode(),
    "line without end": b"250 " + b"x" * MAX_LINE,
    "too many lines": b"250-x\r\n" * MAX_LINES + b"250 x\r\n",
    "lines without end": b"250-x\r\n" * 10_000,
    "HTTP": b"HTTP/1.1 400 Bad Request\r\n",
    "TLS": bytes.fromhex("16030100") + b"\n",
}


@pytest.mark.parametrize("data", VIOLATIONS.values(), ids=VIOLATIONS)
def test_what_is_no_reply_is_a_violation(data: bytes) -> None:
    with pytest.raises(ReplyViolation):
        parse(data)


@pytest.mark.parametrize("data", VIOLATIONS.values(), ids=VIOLATIONS)
def test_a_violation_byte_by_byte(data: bytes) -> None:
    assert outcome([bytes([octet]) for octet in data]) == ([], False)


@pytest.mark.parametrize("data", VIOLATIONS.values(), ids=VIOLATIONS)
def test_the_good_replies_before_a_violation_count(data: bytes) -> None:
    received = iter(ReplyParser().receive(b"250 one\r\n250-two\r\n250 two\r\n" + data))
    assert [next(received), next(received)] == [lines(250, "one"), lines(250, "two", "two")]
    with pytest.raises(ReplyViolation):
        next(received)


# What is borne where nobody gains from strictness ---------------------------------------------------------------------


def tolerant(tolerance: Tolerance) -> ReplyParser:
    parser = ReplyParser()
    parser.tolerance = tolerance
    return parser


WORDLESS = {
    "an empty line": b"\r\n",
    "an empty line with a bare LF": b"\n",
    "words": b"Welcome!\r\n",
    "words with a bare LF": b"Welcome!\n",
    "two digits": b"25\r\n",
}


@pytest.mark.parametrize("data", WORDLESS.values(), ids=WORDLESS)
@pytest.mark.parametrize("tolerance", [Tolerance.WORDS, Tolerance.FRAMING])
def test_lines_without_a_code_are_skipped_and_the_first_is_remembered(tolerance: Tolerance, data: bytes) -> None:
    for pieces in ([b"250-a\r\n" + data + b"250 b\r\n"], [b"250-a\r\n", data, b"250 b\r\n"]):
        parser = tolerant(tolerance)
        assert [reply for piece in pieces for reply in parser.receive(piece)] == [lines(250, "a", "b")]
        assert parser.skipped == (data.decode().strip() or "(an empty line)")
        assert parser.is_irregular is (tolerance is Tolerance.FRAMING)


STILL_VIOLATIONS = {
    "a bare LF behind a code": b"250 OK\n",
    "a NUL": b"GET\0\r\n",
    "a code of 199": b"199 hm\r\n",
    "a code of four digits": b"2500 OK\r\n",
    "codes that differ": b"220-mx\r\n521 blocked\r\n",
    "a line too long": b"x" * MAX_LINE + b"\r\n",
    "too many lines": b"x\r\n" * (MAX_LINES + 1),
}


@pytest.mark.parametrize("data", STILL_VIOLATIONS.values(), ids=STILL_VIOLATIONS)
def test_before_the_first_message_only_lines_without_a_code_are_skipped(data: bytes) -> None:
    with pytest.raises(ReplyViolation):
        list(tolerant(Tolerance.WORDS).receive(data))


FRAMED = {
    "a bare LF": (b"250 ok\n", lines(250, "ok")),
    "two CRs": (b"250 ok\r\r\n", lines(250, "ok")),
    "a NUL": (b"250 o\0k\r\n", lines(250, "o k")),
    "codes that differ": (b"250-a\r\n451 b\r\n", lines(451, "a", "b")),
    "a line too long": (f"250 {LONGEST_TEXT}xxx\r\n".encode(), lines(250, LONGEST_TEXT + "xx")),
    "a line without an end": (b"250 " + b"x" * MAX_LINE, lines(250, "x" * (MAX_LINE - 4))),
    "a space before the code": (b" 250 ok\r\n", lines(250, "ok")),
    "a tab behind the code": (b"250\tok\r\n", lines(250, "\tok")),
    "199 before it": (b"199 hm\r\n250 ok\r\n", lines(250, "ok")),
}


@pytest.mark.parametrize(("data", "reply"), FRAMED.values(), ids=FRAMED)
def test_behind_the_end_of_a_message_any_legible_code_counts(data: bytes, reply: Reply) -> None:
    parser = tolerant(Tolerance.FRAMING)
    assert list(parser.receive(data)) == [reply]
    assert parser.is_irregular


def test_so_does_that_of_a_reply_with_many_lines_but_not_without_end() -> None:
    final = b"250-x\r\n" * (MAX_FINAL_LINES - 1) + b"250 x\r\n"
    parser = tolerant(Tolerance.FRAMING)
    assert list(parser.receive(final)) == [lines(250, *["x"] * MAX_LINES)], "nobody reads more of it"
    assert parser.is_irregular
    with pytest.raises(ReplyViolation, match="more than 1000 lines"):
        list(tolerant(Tolerance.FRAMING).receive(b"250-x\r\n" + final))


def test_a_line_without_an_end_and_without_a_code_is_skipped_too() -> None:
    parser = tolerant(Tolerance.FRAMING)
    assert list(parser.receive(b"x" * MAX_LINE)) == []
    assert list(parser.receive(b"250 ok\r\n")) == [lines(250, "ok")]


def test_a_well_formed_reply_is_regular_however_tolerant_the_parser_is() -> None:
    parser = tolerant(Tolerance.FRAMING)
    assert list(parser.receive(b"250 ok\r\n")) == [lines(250, "ok")]
    assert not parser.is_irregular


@pytest.mark.parametrize("data", [b"HTTP/1.1 'Bad'\r\n", b"250 'Bad'\n", b"250-a\r\n550 'Bad'\r\n", b"250 'Bad'\0\r\n"])
def test_an_error_repeats_what_the_server_said_as_it_is(data: bytes) -> None:
    with pytest.raises(ReplyViolation, match=r": .*'Bad'$"):
        parse(data)


def test_nothing_is_believed_after_a_violation() -> None:
    parser = ReplyParser()
    with pytest.raises(ReplyViolation, match="bare LF"):
        list(parser.receive(b"250 OK\n"))
    with pytest.raises(ReplyViolation, match="before"):
        list(parser.receive(b"250 OK\r\n"))


def test_a_line_is_bounded_before_it_ends() -> None:
    parser = ReplyParser()
    assert list(parser.receive(b"2" * (MAX_LINE - 1))) == []
    with pytest.raises(ReplyViolation, match="longer than"):
        list(parser.receive(b"2"))


@pytest.mark.parametrize(
    ("reply", "data"),
    [
        (Reply(250), b"250 \r\n"),
        (Reply.make(250, None, "OK"), b"250 OK\r\n"),
        (Reply.make(550, "5.1.1", "no"), b"550 5.1.1 no\r\n"),
        (Reply(250, None, ("mx.example.org", "SIZE 5")), b"250-mx.example.org\r\n250 SIZE 5\r\n"),
        (Reply(550, EnhancedCode(5, 7, 1), ("a", "ü")), "550-5.7.1 a\r\n550 5.7.1 ü\r\n".encode()),
    ],
)
def test_a_reply_as_a_server_sends_it(reply: Reply, data: bytes) -> None:
    assert encode_reply(reply) == data


def cut(data: bytes, places: list[int]) -> list[bytes]:
    borders = sorted({min(place, len(data)) for place in places} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(borders)]


@given(st.lists(replies(), max_size=4), st.lists(st.integers(0, 2000), max_size=8))
def test_replies_survive_the_wire_however_they_are_cut(sent: list[Reply], places: list[int]) -> None:
    parser = ReplyParser()
    received: list[Reply] = []
    for piece in cut(b"".join(map(encode_reply, sent)), places):
        received += parser.receive(piece)
    assert received == sent
    assert parser.is_empty


@given(replies())
def test_an_encoded_reply_has_no_line_ends_but_its_own(reply: Reply) -> None:
    data = encode_reply(reply)
    assert data.count(b"\r\n") == data.count(b"\r") == data.count(b"\n") == len(reply.lines)
    assert b"\0" not in data


wire = st.one_of(
    st.binary(max_size=60),
    st.text(st.sampled_from("250-4 5.1\r\n\0x"), max_size=40).map(str.encode),
    st.lists(st.sampled_from([b"250", b"550", b"-", b" ", b"5.1.1 ", b"\r\n", b"\n", b"x", b"\xff"]), max_size=20).map(
        b"".join
    ),
)


def outcome(pieces: list[bytes]) -> tuple[list[Reply], bool]:
    parser, received = ReplyParser(), list[Reply]()
    try:
        for piece in pieces:
            for reply in parser.receive(piece):
                received.append(reply)
    except ReplyViolation:
        return received, False
    return received, True


@given(wire, st.lists(st.integers(0, 60), max_size=6))
def test_any_bytes_are_replies_or_a_violation_however_they_are_cut(data: bytes, places: list[int]) -> None:
    assert outcome(cut(data, places)) == outcome([data])


@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        (b"250-2.0.0 one\r\n", "250 2.0.0 one"),
        (b"250-one\r\n250 two", "250 one two"),
        (b"250-one\r\n25", "250 one"),
        (b"552 5.3.4 too la\r", "552 5.3.4 too la"),
        (b"250 o\0k", "250 o k"),
        (b"250", None),
        (b"thank you", None),
        (b"", None),
        (b"250 ok\r\n", None),  # that one was given already
    ],
)
def test_behind_the_end_of_a_message_a_reply_need_not_be_ended(octets: bytes, expected: str | None) -> None:
    parser = tolerant(Tolerance.FRAMING)
    list(parser.receive(octets))
    reply = parser.end()
    assert (None if reply is None else str(reply)) == expected
    assert parser.is_empty


@pytest.mark.parametrize("tolerance", [Tolerance.NONE, Tolerance.WORDS])
def test_anywhere_else_it_has_to_be(tolerance: Tolerance) -> None:
    parser = tolerant(tolerance)
    list(parser.receive(b"250-one\r\n250 two"))
    assert parser.end() is None


def test_of_many_lines_without_an_end_no_more_is_kept_than_of_others() -> None:
    parser = tolerant(Tolerance.FRAMING)
    list(parser.receive(b"250-x\r\n" * (MAX_LINES + 9) + b"250 x"))
    assert parser.end() == lines(250, *["x"] * MAX_LINES)


def test_of_what_broke_the_protocol_nothing_counts_at_the_end() -> None:
    parser = tolerant(Tolerance.FRAMING)
    with pytest.raises(ReplyViolation):
        list(parser.receive(b"250-ok\r\n" * (MAX_FINAL_LINES + 1)))
    assert parser.end() is None
