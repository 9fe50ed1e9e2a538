"""Content: mended line ends, stuffed dots, exact sizes, right across chunk borders."""

from __future__ import annotations

import itertools
import re
import tracemalloc
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrider.errors import LocalError
from mailrider.header.fields import MAX_HEADER
from mailrider.smtp.content import CHUNK, END_OF_DATA, Content, DotStuffer, IncompleteContent, Mender, is_clean
from tests.support.contents import awaited

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from mailrider.smtp.content import Octets

# Text in which line ends, dots, empty lines and 8-bit octets meet all the time.
TRICKY = st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b".", b"a", b"A: 1", b" ", b"\xe4"]), max_size=24).map(
    b"".join
)
SIZES = st.integers(1, 40)


def mend(message: bytes) -> bytes:
    """The rules as they are written."""
    empty_line = re.search(rb"(?:\A|\n)(?=\r?\n)", message)
    at = empty_line.end() if empty_line else len(message)
    header = re.sub(rb"\r(?!\n)", b" ", message[:at])
    header = re.sub(rb"(?<!\r)\n", b"\r\n", header)
    body = re.sub(rb"\r\n|\r|\n", b"\r\n", message[at:])
    mended = header + body
    return mended if not mended or mended.endswith(b"\r\n") else mended + b"\r\n"


def stuff(mended: bytes) -> bytes:
    """RFC 5321 4.5.2, with the end of data behind it."""
    return re.sub(rb"(?:\A|(?<=\r\n))\.", b"..", mended) + b".\r\n"


def cut(message: bytes, size: int) -> list[bytes]:
    return [message[start : start + size] for start in range(0, len(message), size)]


def supply(message: bytes, size: int) -> Callable[[], Iterable[bytes]]:
    return lambda: iter(cut(message, size))


# The rules ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "mended"),
    [
        (b"A: 1\r\n\r\nbody\r\n", b"A: 1\r\n\r\nbody\r\n"),
        (b"A: 1\n\nbody\n", b"A: 1\r\n\r\nbody\r\n"),
        (b"A: 1\r\n\r\none\rtwo\nthree", b"A: 1\r\n\r\none\r\ntwo\r\nthree\r\n"),
        (b"A: 1\rB: 2\r\n\r\nbody\r\n", b"A: 1 B: 2\r\n\r\nbody\r\n"),
        (b"A: 1\r\r\nB: 2\r\n\r\nbody\r\n", b"A: 1 \r\nB: 2\r\n\r\nbody\r\n"),
        (b"A: 1\r\n\r\nbody\r", b"A: 1\r\n\r\nbody\r\n"),
        (b"A: 1\r\n\r\nbody\r\r\n", b"A: 1\r\n\r\nbody\r\n\r\n"),
        (b"A: 1\r\n\r\nbody\n\r\n", b"A: 1\r\n\r\nbody\r\n\r\n"),
        (b"A: 1\r", b"A: 1 \r\n"),
        (b"A: 1", b"A: 1\r\n"),
        (b"\n", b"\r\n"),
        (b"\r", b" \r\n"),
        (b"", b""),
        (b"\rA: 1\n\n\r", b" A: 1\r\n\r\n\r\n"),
        (b"\n\r.\r", b"\r\n\r\n.\r\n"),
    ],
)
def test_line_ends_are_mended(message: bytes, mended: bytes) -> None:
    assert mend(message) == mended
    content = Content.inspect(message)
    assert b"".join(content.chunks()) == mended
    assert content.size == len(mended)


@pytest.mark.parametrize(
    ("message", "sent"),
    [
        (b"", b".\r\n"),
        (b".", b"..\r\n.\r\n"),
        (b"A: 1\r\n\r\n.\r\n", b"A: 1\r\n\r\n..\r\n.\r\n"),
        (b"A: 1\r\n\r\n.\r\n.\r\n..x\r\ny.\r\n", b"A: 1\r\n\r\n..\r\n..\r\n...x\r\ny.\r\n.\r\n"),
        (b"A: 1\n\n.\nQUIT\n", b"A: 1\r\n\r\n..\r\nQUIT\r\n.\r\n"),
        (b"A: 1\n\nx\r.\rQUIT", b"A: 1\r\n\r\nx\r\n..\r\nQUIT\r\n.\r\n"),
    ],
)
def test_dots_are_stuffed_and_a_lone_one_ends_the_data(message: bytes, sent: bytes) -> None:
    assert b"".join(Content.inspect(message).stuffed()) == sent


def test_a_clean_message_is_never_copied() -> None:
    message = b"A: 1\r\n\r\n" + b"line\r\n" * 1000
    content = Content.inspect(message)
    assert content.is_clean
    (whole,) = content.chunks()
    assert whole is message
    pieces = list(content.chunks(100))
    assert all(isinstance(piece, memoryview) and piece.obj is message for piece in pieces)
    assert Mender().feed(message) is message
    assert DotStuffer().feed(message) is message
    *first, last = content.stuffed(1000)
    assert all(isinstance(piece, memoryview) and piece.obj is message for piece in first)
    assert b"".join((*first, last)) == message + b".\r\n"


@pytest.mark.parametrize(
    ("before", "behind", "clean"), [(b"\r", b"\n", True), (b"\r", b"", False), (b"", b"\n", False)]
)
def test_a_large_message_is_looked_at_in_parts(before: bytes, behind: bytes, clean: bool) -> None:
    message = b"A: 1\r\n\r\n"
    message += b"x" * (CHUNK - len(message) - 1) + (before or b"x")
    assert len(message) == CHUNK
    assert is_clean(message + behind + b"x" * CHUNK + b"\r\n") is clean


def test_a_line_end_between_two_chunks_begins_a_line() -> None:
    stuffer = DotStuffer()
    assert [stuffer.feed(chunk) for chunk in (b"a\r", b"\n.b\r\n", b".")] == [b"a\r", b"\n..b\r\n", b".."]
    content = Content.inspect(b"A: 1\r\n\r\nab\r\n.c\r\n")
    for size in range(1, 20):
        assert b"".join(content.stuffed(size)) == b"A: 1\r\n\r\nab\r\n..c\r\n.\r\n"


def test_a_stuffer_passes_over_what_a_mender_held_back() -> None:
    stuffer = DotStuffer()
    assert [stuffer.feed(chunk) for chunk in (b"", b".a\r", b"", b"\n", b"", b".")] == [
        b"",
        b"..a\r",
        b"",
        b"\n",
        b"",
        b"..",
    ]


def test_a_small_message_is_sent_in_one_piece() -> None:
    for message in (b"A: 1\r\n\r\n.\r\n", b"A: 1\n\n.\n"):
        assert len(list(Content.inspect(message).stuffed())) == 1


@pytest.mark.parametrize(
    ("message", "clean"),
    [
        (b"", True),
        (b"a\r\n", True),
        (b"a", False),
        (b"a\r", False),
        (b"a\n", False),
        (b"a\n\r", False),
        (b"\r\r\n", False),
    ],
)
def test_clean_means_that_every_line_ends_in_crlf(message: bytes, clean: bool) -> None:
    assert is_clean(message) is clean


def test_a_header_in_latin1_needs_no_smtputf8() -> None:
    latin = Content.inspect(b"Subject: \xe4\r\n\r\nbody\r\n")
    assert (latin.eight_bit, latin.header_is_utf8) == (True, False)


def test_eight_bit_and_the_header_are_known() -> None:
    plain = Content.inspect(b"Subject: a\r\n\r\nbody\r\n")
    assert (plain.eight_bit, plain.header, plain.header_is_utf8) == (False, b"Subject: a\r\n", False)
    latin = Content.inspect(b"Subject: a\n\nb\xf6dy\n")
    assert (latin.eight_bit, latin.header, latin.header_is_utf8) == (True, b"Subject: a\r\n", False)
    utf8 = Content.inspect("Subject: ä\r\n\r\nbody\r\n".encode())
    assert (utf8.eight_bit, utf8.header_is_utf8) == (True, True)
    assert utf8.header_fields("Subject") == ["ä".encode()]
    assert utf8.header_fault() is None
    assert Content.inspect(b"\r\nbody\r\n").header == b""
    assert Content.inspect(b"").header == b""


def test_a_message_without_an_empty_line_is_all_header() -> None:
    assert Content.inspect(b"Subject: a\r\nX: y\r\n").header == b"Subject: a\r\nX: y\r\n"
    assert Content.inspect(b"Subject: a\nX: y").header == b"Subject: a\r\nX: y\r\n"
    fault = Content.inspect(b"Subject: a\nHello\nworld\n").header_fault()
    assert fault is not None
    assert fault.line == 2


# Whole, in chunks, octet by octet -------------------------------------------------------------------------------------


@given(TRICKY, SIZES, SIZES)
def test_content_is_the_same_however_it_comes_and_goes(message: bytes, size_in: int, size_out: int) -> None:
    mended = mend(message)
    whole = Content.inspect(message)
    header_size = len(whole.header)
    stored = Content.stored(
        supply(mended, size_in), size=len(mended), eight_bit=whole.eight_bit, header_size=header_size
    )
    for content in (whole, stored):
        assert content.size == len(mended)
        assert content.eight_bit is not message.isascii()
        assert content.header == whole.header
        assert content.header_size == header_size
        assert mended.startswith(content.header)
        pieces = [bytes(piece) for piece in content.chunks(size_out)]
        assert pieces == cut(mended, size_out)
        assert b"".join(content.stuffed(size_out)) == stuff(mended)
    assert whole.is_clean is (mended == message)


@given(TRICKY, SIZES, SIZES)
async def test_content_that_has_to_be_awaited_is_the_same(message: bytes, size_in: int, size_out: int) -> None:
    mended = mend(message)
    whole, content = Content.inspect(mended), awaited(mended, size_in)
    assert (content.size, content.eight_bit, content.header) == (whole.size, whole.eight_bit, whole.header)
    for each in (whole, content):
        assert [bytes(piece) async for piece in each.pieces(size_out)] == cut(mended, size_out)
        assert b"".join([piece async for piece in each.stuffed_pieces(size_out)]) == stuff(mended)
        assert b"".join((await each.loaded()).chunks()) == mended
        assert each.first(len(each.header) + 2) == mended[: len(each.header) + 2]


def test_content_that_has_to_be_awaited_is_not_read_without_that() -> None:
    with pytest.raises(LocalError, match="awaited"):
        next(awaited(b"A: 1\r\n\r\nx\r\n").chunks())


# https://github.com/OpenSMTPD/OpenSMTPD/issues/373: what a queue keeps may be damaged
CUT_OFF = b"A: 1\r\n\r\nfirst\r\nsecond\r\n"


@pytest.mark.parametrize("size", [3, 8, 65536])
def test_content_whose_supply_ends_early_gets_no_end(size: int) -> None:
    left = supply(CUT_OFF[:-8], size)
    content = Content.stored(left, size=len(CUT_OFF), eight_bit=False, header_size=6)
    for taken in (content.chunks(size), content.stuffed(size)):
        octets = bytearray()
        with pytest.raises(IncompleteContent, match="the message has 23 octets, and 15 came"):
            octets.extend(itertools.chain.from_iterable(taken))
        assert not octets.endswith(b".\r\n")


async def gather(pieces: AsyncIterator[Octets], octets: bytearray) -> None:
    async for piece in pieces:
        octets.extend(piece)


@pytest.mark.parametrize("size", [3, 8, 65536])
async def test_content_that_has_to_be_awaited_and_ends_early_gets_no_end(size: int) -> None:
    async def ending() -> AsyncIterator[bytes]:
        for piece in cut(CUT_OFF[:-8], size):
            yield piece

    content = Content.awaited(ending, CUT_OFF[:8], size=len(CUT_OFF), eight_bit=False, header_size=6)
    for taken in (content.pieces(size), content.stuffed_pieces(size)):
        octets = bytearray()
        with pytest.raises(IncompleteContent, match="the message has 23 octets, and 15 came"):
            await gather(taken, octets)
        assert not octets.endswith(b".\r\n")


@given(st.lists(TRICKY, max_size=6))
def test_a_mender_takes_any_chunks(chunks: list[bytes]) -> None:
    mender = Mender()
    mended = b"".join([mender.feed(memoryview(chunk)) for chunk in chunks]) + mender.finish()
    message = b"".join(chunks)
    assert mended == mend(message)
    assert mender.size == len(mended)
    assert mender.changed is (mended != message)


def test_an_endless_header_becomes_body_at_its_bound() -> None:
    line = b"X: " + b"x" * 96 + b"\n"
    message = line * (MAX_HEADER // 100 + 10) + b"\r\n\nbody\r"
    content = Content.inspect(message)
    assert content.header_size == MAX_HEADER // 100 * 101
    assert content.header_is_cut
    mended = message.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")
    assert b"".join(content.chunks()) == mended
    assert str(content.header_fault()).endswith(f"a header has no more than {MAX_HEADER} octets")
    assert Content.inspect(b"x" * (MAX_HEADER + 1) + b"\r\n\r\n").header == b""


@pytest.mark.parametrize("message", [b"", b"\r\n", b"A: 1\r\n", b"A: 1\r\n\r\n", b"A: 1\n\nx", b"\r\nx\r\n"])
def test_a_header_that_ends_is_not_cut(message: bytes) -> None:
    assert not Content.inspect(message).header_is_cut


def test_a_large_message_is_sent_without_a_second_copy() -> None:
    clean = b"A: 1\r\n\r\n" + (b"x" * 70 + b"\r\n.\r\n") * 140_000
    untidy = clean.replace(b"\r\n", b"\n")
    for message in (clean, untidy):
        tracemalloc.start()
        try:
            content = Content.inspect(message)
            streams = [content.stuffed() for _ in range(20)]
            for _ in range(5):
                for stream in streams:
                    next(stream)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < len(streams) * 6 * CHUNK


def test_the_end_of_data_is_a_lone_dot() -> None:
    assert END_OF_DATA == b".\r\n"
