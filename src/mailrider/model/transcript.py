"""What was said on a connection, as it is kept for one of a message's recipients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_TRANSCRIPT: Final = 16 * 1024  # octets that are kept: of more, the beginning and the end
_BEGINNING: Final = 4 * 1024
_CUT: Final = "\n-- (left out)\n"


@dataclass(frozen=True, slots=True)
class OwnLines:
    """Lines that belong to single recipients, by their addresses."""

    by_mailbox: Mapping[str, str]

    def of(self, mailbox: str) -> str:
        """Those of a recipient, and that there are others."""
        others = len(self.by_mailbox) - (mailbox in self.by_mailbox)
        lines = [self.by_mailbox[mailbox]] if mailbox in self.by_mailbox else []
        if others:
            lines.append(f"(and {others} other {'recipient' if others == 1 else 'recipients'})")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Transcript:
    """A dialogue in pieces: text for all recipients of the transaction, and the lines of single ones.

    Nobody is shown the addresses of others: what is kept of a recipient can be erased with it.
    """

    pieces: tuple[str | OwnLines, ...]

    def of(self, mailbox: str) -> str:
        """The dialogue as it concerns one recipient, not longer than `MAX_TRANSCRIPT` octets."""
        text = "\n".join(piece if isinstance(piece, str) else piece.of(mailbox) for piece in self.pieces)
        octets = text.encode()
        if len(octets) <= MAX_TRANSCRIPT:
            return text
        end = octets[len(octets) - (MAX_TRANSCRIPT - _BEGINNING - len(_CUT)) :]
        return octets[:_BEGINNING].decode(errors="ignore") + _CUT + end.decode(errors="ignore")
