"""A client that says octets and hears replies, whoever serves it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio


class RawClient:
    """Says what it is told, and hears replies."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def say(self, octets: bytes) -> None:
        self.writer.write(octets)
        await self.writer.drain()

    async def hear_octets(self) -> bytes:
        """One reply, all its lines; what there is of it where the connection ends."""
        reply = b""
        while line := await self.reader.readline():
            reply += line
            if line[3:4] != b"-":
                break
        return reply
