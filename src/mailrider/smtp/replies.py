"""Replies on the wire: bytes in, `Reply` values out, and back (RFC 5321 4.2).

`ReplyParser` takes bytes as they come. What it never does: believe a reply that is not well-formed. Lines and replies
have caps; a reply whose lines carry different codes, a NUL, a bare LF, or a code outside 200 to 599 is a violation,
after which the parser refuses to go on.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from mailrider.errors import PeerError
from mailrider.model.reply import Reply

if TYPE_CHECKING:
    from collections.abc import Iterator

# RFC 5321 4.5.3.1.5 gives 512 octets to a reply line; servers send more, so four times that.
MAX_LINE = 2048
# Sendmail's help is the longest known reply with some 30 lines; an endless one must end somewhere.
MAX_LINES = 100
# Octets of several lines whose meaning is remembered: servers say the same to everybody, EHLO's reply has some 300.
MAX_REMEMBERED = 1024


class ReplyViolation(PeerError):
    """The server's bytes are not an SMTP reply."""


class ReplyParser:
    """Bytes to replies."""

    __slots__ = ("_broken", "_buffer", "_code", "_lines")

    def __init__(self) -> None:
        self._buffer = b""
        self._code = 0
        self._lines: list[str] = []
        self._broken = False

    @property
    def is_empty(self) -> bool:
        """True between replies: no byte of a further one has been received."""
        return not self._buffer and not self._lines

    def receive(self, data: bytes) -> Iterator[Reply]:
        """The replies that `data` completes, in order; to be exhausted.

        Raises `ReplyViolation` behind the last good one; then the connection is worthless.
        """
        if self.is_empty and not self._broken and data.count(b"\n") > 1 and len(data) <= MAX_REMEMBERED:
            remembered = _parse_whole(data)
            if remembered is not None:
                return iter(remembered)
        return self._parse(data)

    def _parse(self, data: bytes) -> Iterator[Reply]:
        if self._broken:
            raise ReplyViolation("the server broke the protocol before")
        pieces = ((self._buffer + data) if self._buffer else data).split(b"\n")
        self._buffer = pieces.pop()
        self._broken = True  # until all of it turned out well
        for piece in pieces:
            if len(piece) >= MAX_LINE:
                raise ReplyViolation(f"reply line longer than {MAX_LINE} octets")
            if piece[-1:] != b"\r":
                raise ReplyViolation("reply line ends in a bare LF")
            reply = self._take_line(piece[:-1])
            if reply is not None:
                yield reply
        if len(self._buffer) >= MAX_LINE:
            raise ReplyViolation(f"reply line longer than {MAX_LINE} octets")
        self._broken = False

    def _take_line(self, line: bytes) -> Reply | None:
        if not self._lines and line[3:4] != b"-":
            return _parse_single(line)
        code, is_last, text = _parse_line(line)
        if self._lines and code != self._code:
            raise ReplyViolation(f"reply changes its code from {self._code} to {code}")
        self._code = code
        self._lines.append(text)
        if not is_last:
            if len(self._lines) >= MAX_LINES:
                raise ReplyViolation(f"reply has more than {MAX_LINES} lines")
            return None
        lines, self._lines = tuple(self._lines), []
        return Reply.from_lines(code, lines)


@lru_cache(maxsize=512)
def _parse_single(line: bytes) -> Reply:
    code, _, text = _parse_line(line)
    return Reply.from_lines(code, (text,))


def _parse_line(line: bytes) -> tuple[int, bool, str]:
    """Code, whether it is the reply's last line, text."""
    digits, separator = line[:3], line[3:4]
    if not (len(digits) == 3 and digits.isdigit() and b"200" <= digits <= b"599") or separator not in (b"", b" ", b"-"):
        raise ReplyViolation(f"not a reply line: {line[:80]!r}")
    if b"\0" in line:
        raise ReplyViolation("NUL in a reply line")
    # Text is for people (RFC 6531 3.7.4.2 allows UTF-8): undecodable octets must not hide the code.
    return int(digits), separator != b"-", line[4:].decode("utf-8", "backslashreplace")


@lru_cache(maxsize=512)
def _parse_whole(data: bytes) -> tuple[Reply, ...] | None:
    """The replies that `data` is, if it is whole and right: what servers say to EHLO and to MAIL, RCPT and DATA."""
    parser = ReplyParser()
    try:
        replies = tuple(parser._parse(data))
    except ReplyViolation:
        return None
    return replies if parser.is_empty else None


def encode_reply(reply: Reply) -> bytes:
    """A reply as a server sends it; the enhanced code stands on every line (RFC 2034 4)."""
    prefix = f"{reply.enhanced} " if reply.enhanced else ""
    *first, last = reply.lines
    lines = [f"{reply.code}-{prefix}{line}\r\n" for line in first]
    lines.append(f"{reply.code} {prefix}{last}\r\n")
    return "".join(lines).encode("utf-8")
