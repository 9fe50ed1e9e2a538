"""DATA decoded: one end of data, and a clear no to everything that others might take for one."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mailrider.smtp.content import Content
from mailrider.smtp.data import ChunkInspector, DataDecoder, sending_fault

TRICKY = st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b".", b"a", b"\0", b"\r\n.\r\n"]), max_size=24).map(b"".join)
MESSAGES = st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b".", b"a", b"A: 1", b"\xe4"]), max_size=24).map(b"".join)


def decode(data: bytes, size: int, limit: int | None = None) -> tuple[DataDecoder, bytes]:
    """Feeds `data` in chunks until the end of data; what is left is added to `trailing`."""
    decoder = DataDecoder(limit)
    content = b""
    for start in range(0, len(data), size):
        content += decoder.feed(data[start : start + size])
        if decoder.ended:
            decoder.trailing += data[start + size :]
            break
    return decoder, content


@given(MESSAGES, st.integers(1, 40), st.sampled_from([b"", b"QUIT\r\n", b".\r\n", b"\r\n.\r\n", b"\n.\n", b"\r."]))
def test_what_was_sent_is_what_arrives(message: bytes, size: int, trailing: bytes) -> None:
    sent = Content.inspect(message)
    decoder, content = decode(b"".join(sent.stuffed()) + trailing, size)
    assert content == b"".join(sent.chunks())
    assert decoder.size == sent.size
    assert (decoder.ended, decoder.trailing, decoder.dubious) == (True, trailing, "")


@given(TRICKY, st.integers(1, 40), st.none() | st.integers(0, 10))
def test_chunk_borders_change_nothing(data: bytes, size: int, limit: int | None) -> None:
    whole, content = decode(data, 1000, limit)
    parts, in_parts = decode(data, size, limit)
    assert parts.ended is whole.ended
    assert parts.trailing == whole.trailing
    assert bool(parts.dubious) is bool(whole.dubious)
    assert parts.size == whole.size
    if not whole.dubious and not whole.is_oversize:
        assert in_parts == content
    assert len(in_parts) <= len(data)


@given(TRICKY)
def test_crlf_dot_crlf_ends_the_data_and_nothing_else_does(data: bytes) -> None:
    decoder, _ = decode(data, 3)
    end = (b"\r\n" + data).find(b"\r\n.\r\n")
    assert decoder.ended is (end >= 0)
    if end >= 0:
        assert decoder.trailing == data[end + 3 :]


# What some server, somewhere, took for the end of data; "\r\n" stands in for "any line before it".
SMUGGLING = [
    b"\n.\n",
    b"\n.\r\n",
    b"\n.\r",
    b"\r.\r",
    b"\r.\n",
    b"\r.\r\n",
    b"\r\n.\n",
    b"\r\n.\r",
    b"\r\n.\r\r\n",
    b"\r\r\n.\r\r\n",
    b"\r\n\0.\r\n",
    b"\n\0.\n",
    b"\r\n.\0\r\n",
    b"\r\n.\0\n",
]


@pytest.mark.parametrize("end", SMUGGLING)
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 1000])
def test_a_smuggled_message_never_gets_through(end: bytes, size: int) -> None:
    second = b"MAIL FROM:<boss@example.org>\r\nRCPT TO:<victim@example.net>\r\nDATA\r\nA: 1\r\n\r\nPay me.\r\n"
    decoder, content = decode(b"A: 1\r\n\r\nHello" + end + second + b".\r\nRSET\r\n", size)
    assert decoder.ended
    assert decoder.dubious
    assert decoder.trailing == b"RSET\r\n"
    assert b"MAIL" not in content


@pytest.mark.parametrize("end", [b".\n", b".\rx", b".\0", b"\0."])
def test_a_false_end_at_the_very_beginning_is_seen(end: bytes) -> None:
    decoder, content = decode(end + b"\r\n.\r\n", 1)
    assert decoder.dubious
    assert content == b""


@pytest.mark.parametrize("text", [b"a\nb\r\n", b"a\rb\r\n", b"a\0b\r\n", b"a.\nb.\r\n", b"..a\r\n\n\r\n", b"\r\r\n"])
def test_bare_line_ends_elsewhere_pass_as_they_are(text: bytes) -> None:
    decoder, content = decode(text.replace(b"..", b"...") + b".\r\n", 1)
    assert decoder.dubious == ""
    assert content == text


def test_an_empty_message_ends_at_once() -> None:
    decoder, content = decode(b".\r\nQUIT\r\n", 100)
    assert (content, decoder.size, decoder.ended, decoder.trailing) == (b"", 0, True, b"QUIT\r\n")


def test_a_message_too_large_is_read_to_its_end_and_not_kept() -> None:
    decoder = DataDecoder(1000)
    kept = 0
    for _ in range(100):
        kept += len(decoder.feed(b"x" * 98 + b"\r\n"))
    assert kept <= 1000
    assert decoder.is_oversize
    assert decoder.feed(b".\r\n") == b""
    assert decoder.ended
    assert decoder.size == 10_000


def test_a_message_of_exactly_the_limit_passes() -> None:
    decoder, content = decode(b"..23456\r\n.\r\n", 4, limit=8)
    assert content == b".23456\r\n"
    assert not decoder.is_oversize


def test_little_is_held_back() -> None:
    decoder = DataDecoder()
    fed = given_out = 0
    for octets in (b"x" * 1000, b"\r", b"\n", b".", b"x" * 1000, b"\r\n.", b"\r"):
        given_out += len(decoder.feed(octets))
        fed += len(octets)
        assert fed - given_out <= 5


# In chunks ------------------------------------------------------------------------------------------------------------


def inspected(content: bytes, size: int) -> str:
    """Why content that comes in chunks of that size is dubious."""
    inspector = ChunkInspector()
    for start in range(0, len(content), size):
        inspector.feed(content[start : start + size])
    return inspector.dubious


@pytest.mark.parametrize("end", SMUGGLING)
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 1000])
def test_what_data_refuses_chunks_cannot_hold(end: bytes, size: int) -> None:
    assert inspected(b"A: 1\r\n\r\nHello" + end + b"MAIL FROM:<boss@example.org>\r\n", size)


@pytest.mark.parametrize("start", [b".\n", b".\rx", b".\0", b"\0."])
def test_nor_begin_with_it(start: bytes) -> None:
    assert inspected(start + b"\r\nx", 1)


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
@pytest.mark.parametrize(
    "text", [b".\r\n", b"a\r\n.\r\nb\r\n", b"a\r\n..b\r\n", b"a\nb\r\n", b"a\rb\r\n", b"a\0b\r\n", b"a.\nb.\r\n", b""]
)
def test_a_lone_dot_in_chunks_is_a_line_like_others(text: bytes, size: int) -> None:
    assert inspected(text, size) == ""


@given(TRICKY, st.integers(1, 40))
def test_borders_of_chunks_change_nothing(data: bytes, size: int) -> None:
    assert bool(inspected(data, size)) is bool(inspected(data, 1000))


@given(TRICKY)
@example(b"\n\r\x00")
def test_what_passes_in_chunks_passes_as_data(data: bytes) -> None:
    if not inspected(data, 1000):
        sent = Content.inspect(data)
        decoder, content = decode(b"".join(sent.stuffed()), 1000)
        assert (decoder.ended, decoder.dubious, content) == (True, "", b"".join(sent.chunks()))


@pytest.mark.parametrize("line", [b"\0.\r\n", b"\0\0.\r\n", b"\0.x", b"\0.\n", b"\0..\r\n"])
@pytest.mark.parametrize("end", [b"\r\n", b"\n", b"\r"])
def test_a_dot_behind_a_nul_is_never_sent(line: bytes, end: bytes) -> None:
    assert sending_fault(b"A: 1\r\n\r\nHello" + end + line)


def test_a_dot_behind_a_nul_that_begins_the_message_is_not_sent_either() -> None:
    assert sending_fault(b"\0.\r\nMAIL FROM:<boss@example.org>\r\n")


@pytest.mark.parametrize("text", [b"a\r\n.\r\nb", b"a\r\n\0x.\r\n", b"a\r\nx\0.\r\n", b"a\0", b"\0\r\n", b""])
def test_other_dots_and_other_nuls_are(text: bytes) -> None:
    assert sending_fault(b"A: 1\r\n\r\n" + text) == ""
