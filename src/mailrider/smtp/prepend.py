"""A message with further fields before its header: trace (RFC 5321 4.4), signatures, results of checks.

The message itself is not copied, unless it is small.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Final

from mailrider.smtp.content import CHUNK, Content

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

COPIED: Final = 4 * CHUNK  # octets up to which one piece is made: it is sent with a single write


def prepend(content: Content, fields: bytes, signed_by: tuple[str, ...] = ()) -> Content:
    """The same message below `fields`: whole lines, each ending in CRLF. `signed_by`: whose signatures they are."""
    if not fields:
        return content
    if content.beginning is not None:
        return _awaited(content, content.beginning, fields, signed_by)
    source: bytes | None = None
    if content.size <= COPIED:
        source = b"".join((fields, *content.chunks()))

    def supply() -> Iterator[bytes]:
        return chain((fields,), map(bytes, content.chunks()))

    return Content(
        content.size + len(fields),
        content.eight_bit or not fields.isascii(),
        content.header_size + len(fields),
        True,
        supply if source is None else source,
        signed_by=signed_by,
    )


def _awaited(content: Content, beginning: bytes, fields: bytes, signed_by: tuple[str, ...]) -> Content:
    async def supply() -> AsyncIterator[bytes]:
        yield fields
        async for piece in content.pieces():
            yield bytes(piece)

    made = Content.awaited(
        supply,
        fields + beginning,
        size=content.size + len(fields),
        eight_bit=content.eight_bit or not fields.isascii(),
        header_size=content.header_size + len(fields),
    )
    made.signed_by = signed_by
    return made
