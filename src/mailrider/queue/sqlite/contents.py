"""The contents of messages in an SQLite store: small ones in a row, large ones in chunks.

A large content is written before its message comes. What no message names any more is swept: whoever removed it, and
whoever gave up writing it.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from mailrider.errors import InvalidValue
from mailrider.queue.sqlite import statements as sql
from mailrider.queue.sqlite.statements import compact
from mailrider.queue.sqlite.transactions import ROW, Transactions, insert_all
from mailrider.queue.sqlite.views import from_json
from mailrider.queue.sqlite.writer import StoreCall
from mailrider.queue.store import IdTaken, StoreUnavailable
from mailrider.smtp.content import CHUNK, Content

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Sequence

    from mailrider.queue.message import ContentInfo, LeasedJob
    from mailrider.queue.sqlite.threads import ReadThread
    from mailrider.queue.sqlite.writer import Add, Ask

    AskWithSpace: TypeAlias = Callable[[StoreCall, int], Awaitable[None]]

SWEPT: Final = 64  # chunks that one transaction deletes: 4 MiB, some 5 ms


@dataclass(slots=True)
class _Spool:
    """A content that is being written; its id is known once its first chunk stands."""

    content: int = 0
    is_given_up: bool = False


@dataclass(slots=True, eq=False)
class Contents:
    """Those of an open store. `ask_with_space` asks for something that brings so many octets of new mail.

    Chunks are read in a thread of their own (`supplier`): the event loop waits for no disk, and a message for no look
    at the queue.
    """

    transactions: Transactions
    ask: Ask
    ask_with_space: AskWithSpace
    reader: ReadThread
    supplier: ReadThread
    _spooling: set[int] = field(default_factory=set)
    """Contents that this process is writing, for messages that are to come."""

    # Writing ---------------------------------------------------------------------------------------------------------

    async def write(self, chunks: AsyncIterable[bytes]) -> int:
        """See `Store.write_content`. Each chunk is a transaction: a large one would make all others wait."""
        spool = _Spool()
        number = 0
        try:
            async for chunk in chunks:
                for start in range(0, len(chunk), CHUNK):
                    piece = chunk[start : start + CHUNK]
                    await self.ask_with_space(StoreCall(partial(self._put, spool, number, piece)), len(piece))
                    number += 1
        except BaseException as error:
            spool.is_given_up = True
            await self._give_up(spool.content, error)
            raise
        if not number:
            raise InvalidValue("there is no content")
        return spool.content

    def _put(self, spool: _Spool, number: int, octets: bytes, connection: sqlite3.Connection) -> None:
        if number == 0:
            self._spooling.discard(spool.content)  # of a transaction that was tried before and failed
            spool.content = connection.execute(sql.SPOOL, (self.transactions.lease,)).lastrowid or 0
            self._spooling.add(spool.content)
            if spool.is_given_up:
                self._spooling.discard(spool.content)
        insert_all(connection, "chunk", sql.CHUNK, [(spool.content, number, octets)])
        self.transactions.written += len(octets)

    async def name(self, content: int, request: Add) -> None:
        """Add the message that a content was written for."""
        try:
            await self.ask(request)
        except IdTaken:
            raise  # its content stays for it, under another id
        except BaseException as error:
            await self._give_up(content, error)
            raise
        self._spooling.discard(content)

    async def _give_up(self, content: int, error: BaseException) -> None:
        """A content is not wanted any more, because something failed. The next sweep takes what this one cannot."""
        self._spooling.discard(content)
        if isinstance(error, Exception):
            with suppress(StoreUnavailable):
                await self.sweep()

    # Reading ---------------------------------------------------------------------------------------------------------

    async def fill(self, jobs: Sequence[LeasedJob]) -> None:
        """Read the small contents of leased jobs at once."""
        if not jobs:
            return
        try:
            contents = await self.reader.run(partial(_small_contents, [job.message_id for job in jobs]))
        except Exception:
            # They are leased, so they must get to whoever attempts them: that asks again, and tells what is wrong.
            return
        for job in jobs:
            octets = contents.get(job.message_id)
            if octets is not None:
                job.content = _small(job, octets)

    async def read(self, job: LeasedJob) -> Content:
        """See `Store.content`. A large one is given chunk by chunk as it is sent, so that memory stays flat."""
        info = job.info
        if info.stored is None:
            octets = (await self.reader.run(partial(_small_contents, [job.message_id]))).get(job.message_id)
            if octets is None:
                raise StoreUnavailable(f"the content of message {job.message_id} is gone")
            return _small(job, octets)
        beginning, chunks = b"", 0
        while len(beginning) < min(info.size, info.header_size + 2):
            chunk = await self.supplier.run(partial(read_chunk, info.stored, chunks))
            if chunk is None:
                raise StoreUnavailable(f"the content of message {job.message_id} is gone")
            beginning, chunks = beginning + chunk, chunks + 1
        return Content.awaited(
            partial(self._chunks, info.stored, beginning, chunks),
            beginning,
            size=info.size,
            eight_bit=info.eight_bit,
            header_size=info.header_size,
        )

    async def _chunks(self, content: int, beginning: bytes, number: int) -> AsyncIterator[bytes]:
        """The content: the `beginning`, and what follows from the chunk of that number on."""
        piece: bytes | None = beginning
        while piece is not None:
            yield piece
            piece = await self.supplier.run(partial(read_chunk, content, number))
            number += 1

    # Deleting --------------------------------------------------------------------------------------------------------

    async def sweep(self) -> None:
        """Delete contents that no message names.

        What this process is writing is left alone, and so is what other living processes may be writing.
        """
        unnamed = await self.reader.run(lambda connection: from_json(connection, sql.UNNAMED, **self._living()))
        for content in unnamed:
            for start in range(0, await self.ask(StoreCall(partial(self._forget_spool, content))), SWEPT):
                await self.ask(StoreCall(partial(self._delete_chunks, content, start)))

    def _living(self) -> dict[str, Any]:
        return {"lease": self.transactions.lease, "writing": compact(list(self._spooling.copy()))}

    def _forget_spool(self, content: int, connection: sqlite3.Connection) -> int:
        """From now on no message can name this content; returns how many chunks it has, 0 if one names it by now."""
        values = {**self._living(), "content": content}
        connection.execute(sql.FORGET_SPOOL, values)
        count: int = connection.execute(sql.UNNAMED_CHUNKS, values).fetchone()[0]
        return count

    def _delete_chunks(self, content: int, start: int, connection: sqlite3.Connection) -> None:
        connection.execute(sql.DELETE_CHUNKS, (content, start, start + SWEPT))
        self.transactions.written += ROW * SWEPT


def _small_contents(ids: list[int], connection: sqlite3.Connection) -> dict[int, bytes]:
    return dict(connection.execute(sql.CONTENTS, (compact(ids),)).fetchall())


def _small(job: LeasedJob, octets: bytes) -> Content:
    info = job.info
    if len(octets) < info.size:
        return _cut_off(info, octets)
    return Content(info.size, info.eight_bit, info.header_size, True, octets)


def _cut_off(info: ContentInfo, octets: bytes) -> Content:
    """A content of a damaged store: whoever reads it to its end hears that it is not the whole message."""

    async def supply() -> AsyncIterator[bytes]:
        yield octets

    return Content.awaited(supply, octets, size=info.size, eight_bit=info.eight_bit, header_size=info.header_size)


def read_chunk(content: int, number: int, connection: sqlite3.Connection) -> bytes | None:
    """One chunk of a large content; None behind the last."""
    row = connection.execute(sql.READ_CHUNK, (content, number)).fetchone()
    return None if row is None else row[0]
