"""What a receiver stored: the messages of a Maildir, byte for byte.

A receiver puts trace fields in front of a message, and stores lines with a bare LF; everything
else must be what was sent. `StoredMessage` takes the two apart.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.peers.process import READY_WITHIN, NotReadyError, end_of, wait_until

if TYPE_CHECKING:
    from pathlib import Path

# What Postfix and OpenSMTPD write: fields of the delivery, then exactly one Received of their own.
_TRACE = re.compile(rb"(?:(?:Return-Path|X-Original-To|Delivered-To):[^\n]*\n)+Received:[^\n]*\n(?:[ \t][^\n]*\n)*")
_DELIVERED_TO = re.compile(rb"^Delivered-To: (.*)$", re.IGNORECASE | re.MULTILINE)
_TRACE_IS_WITHIN = 16 * 1024  # bytes; enough to tell whose a message is without reading all of it


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """`trace`: what the receiver wrote in front; `content`: the message, with CRLF line ends."""

    trace: bytes
    content: bytes


@dataclass(frozen=True, slots=True)
class Maildir:
    """The one mailbox of a receiver; whose a message is says its Delivered-To field.

    `log` is the receiver's, quoted when mail does not come.
    """

    path: Path
    log: Path
    _owners: dict[Path, str] = field(default_factory=dict)

    def messages(self, recipient: str) -> list[StoredMessage]:
        """What has arrived for `recipient` until now, oldest first."""
        return [_split(path.read_bytes()) for path in self._files(recipient)]

    def wait_for(self, recipient: str, count: int = 1, within: float = READY_WITHIN) -> list[StoredMessage]:
        """The messages of `recipient`, once there are `count` of them."""
        try:
            wait_until(lambda: len(self._files(recipient)) >= count, f"mail for {recipient}", within)
        except NotReadyError as error:
            raise NotReadyError(f"{error}\n{end_of(self.log)}") from None
        return self.messages(recipient)

    def _files(self, recipient: str) -> list[Path]:
        files = (path for path in self.path.glob("new/*") if self._owner(path) == recipient)
        return sorted(files, key=lambda path: path.stat().st_mtime_ns)

    def _owner(self, path: Path) -> str:
        if path not in self._owners:
            with path.open("rb") as file:
                delivered_to = _DELIVERED_TO.search(file.read(_TRACE_IS_WITHIN))
            assert delivered_to, f"{path} has no Delivered-To"
            self._owners[path] = delivered_to[1].decode()
        return self._owners[path]


def _split(stored: bytes) -> StoredMessage:
    trace = _TRACE.match(stored)
    assert trace, f"not what a receiver stores: {stored[:200]!r}"
    return StoredMessage(trace[0], stored[trace.end() :].replace(b"\n", b"\r\n"))
