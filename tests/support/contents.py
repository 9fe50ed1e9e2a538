"""Content that has to be awaited, as a queue's store gives it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from mailrider.smtp.content import Content

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


def awaited(octets: bytes, size: int = 65536) -> Content:
    """A clean message that comes in chunks of `size` octets."""
    content = Content.inspect(octets)
    assert content.is_clean

    async def supply() -> AsyncIterator[bytes]:
        for start in range(0, len(octets), size):
            await asyncio.sleep(0)
            yield octets[start : start + size]

    beginning = octets[: content.header_size + 2]
    return Content.awaited(
        supply, beginning, size=content.size, eight_bit=content.eight_bit, header_size=content.header_size
    )
