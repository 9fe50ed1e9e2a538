"""One SMTP connection past EHLO, which carries transactions; `connection.opening` opens it.

`Session.transact` drives a `Transaction` and never raises for a mail reason. `Session.quit` is polite and changes
nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, cast

from mailrider.delivery.connection.transcript import shortened
from mailrider.delivery.connection.unusable import NOT_TRUSTED, Unusable
from mailrider.errors import LocalError, NetworkError, PeerError
from mailrider.model.outcome import TryResult
from mailrider.model.reply import MAX_QUOTE, Reply, quote_reply
from mailrider.model.security import PeerEvidence
from mailrider.smtp.client import ClientState, OutOfStep
from mailrider.smtp.commands import EndOfData, Quit
from mailrider.smtp.sasl import ClientExchange
from mailrider.smtp.steps import SendChunk, SendCommands, SendContent, SendDot

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from mailrider.delivery.connection.conversation import Conversation
    from mailrider.delivery.connection.peer import Peer, SessionRules
    from mailrider.model.domain import NextHop
    from mailrider.model.envelope import Recipient
    from mailrider.model.tls_problem import TLSProblem
    from mailrider.smtp.capabilities import Capabilities
    from mailrider.smtp.client import AnsweredCommand
    from mailrider.smtp.commands import Bdat
    from mailrider.smtp.content import Content, Octets
    from mailrider.smtp.sasl import Credentials
    from mailrider.smtp.transaction import Transaction

QUIT_TIMEOUT = 5.0  # seconds: a farewell is not worth more
# RFC 4954 6: the mechanism is not known, or too weak; the password was not looked at.
_OTHER_MECHANISM = frozenset({504, 534})
ENVELOPE_TIMEOUTS = 2  # a server that answers MAIL, and then a RCPT, just in time has used it up
RECIPIENT_TIME = 10.0  # seconds: servers that delay each RCPT on purpose take no longer
MOST_DOMAINS = 1000  # that are remembered of one connection, whatever the server says that it takes
PIECE = 65536  # octets of content that must be taken within one command time-out


class Session:
    """An open connection past EHLO. `evidence` is what the peer proved; `transactions` it carried so far.

    `starttls_refusal`: the server offered STARTTLS, and then answered it with this.
    """

    def __init__(
        self,
        talk: Conversation,
        peer: Peer,
        rules: SessionRules,
        clear_because: TLSProblem | None,
        starttls_refusal: Reply | None = None,
    ) -> None:
        self.peer = peer
        self.transactions = 0
        self.starttls_refusal = starttls_refusal
        tls = talk.channel.tls
        refused = starttls_refusal is not None
        clear_for_now = starttls_refusal is not None and starttls_refusal.is_transient
        self.evidence = PeerEvidence(
            peer.host, peer.address, peer.port, tls, clear_because, clear_for_now, refused, peer.lenient
        )
        self._talk = talk
        self._rules = rules
        self._opening = shortened(talk.said or ())
        self.capabilities: Capabilities = talk.machine.capabilities
        """What the server offers, under TLS if there is any."""
        self.max_transactions = self.capabilities.max_transactions
        """How many transactions the server takes on one connection, if it says so (RFC 9422 4.1)."""
        self._domains: set[NextHop | None] = set()  # of recipients, where the server says how many it takes

    @property
    def takes_no_more_domains(self) -> bool:
        """True if it takes no recipient of another domain than those that it was told (RFC 9422 4.3)."""
        most = self.capabilities.max_domains
        return most is not None and len(self._domains) >= min(most, MOST_DOMAINS)

    def has_room_for(self, recipients: Iterable[Recipient]) -> bool:
        """True if it takes the domains of all these, beside those that it was told."""
        most = self.capabilities.max_domains
        domains = {each.mailbox.domain for each in recipients}
        return most is None or domains <= self._domains or len(self._domains | domains) <= min(most, MOST_DOMAINS)

    def leave_out_chunking(self) -> None:
        """Use no BDAT here, whatever is offered."""
        self.capabilities = replace(self.capabilities, chunking=False)

    @property
    def local_address(self) -> str:
        """Our own IP address."""
        return self._talk.channel.local_address

    @property
    def helo(self) -> str:
        """How the server named itself in its reply to EHLO."""
        return self._talk.server_name

    @property
    def is_encrypted(self) -> bool:
        """True if it has TLS."""
        return self.evidence.tls is not None

    @property
    def is_alive(self) -> bool:
        """True if a transaction may begin: the connection has not ended, nor did the server announce it."""
        return self._talk.is_at_rest

    def on_change(self, callback: Callable[[], object]) -> None:
        """Have it called when something arrives, or the connection ends, while nobody waits for it."""
        self._talk.unexpected = callback

    async def transact(self, transaction: Transaction, content: Content) -> Exception | None:
        """Carry a transaction to its end. Returns what ended the connection, if something did."""
        self.transactions += 1
        if self.capabilities.max_domains is not None:
            self._domains |= {transaction.recipients[index].mailbox.domain for index in transaction.unnamed}
        talk, rules = self._talk, self._rules
        talk.said = None
        transaction.opening = self._opening
        said = transaction.said
        if self.transactions > 1:
            said.append("-- (other messages)")
        chunks: _Chunks | None = None
        seconds = _envelope_time(rules, len(transaction.recipients))
        heard, began = talk.bytes_received, talk.monotonic()
        try:
            if talk.error is not None or talk.has_answers:
                self._hear_farewell(transaction)
            while (step := transaction.next()) is not None:
                said.append(step)
                if isinstance(step, SendCommands):
                    talk.send(*step.commands)
                    answers = await talk.answers(rules.command_timeout, began + seconds)
                    if transaction.unnamed and talk.monotonic() > began + seconds / 2:
                        transaction.cut_short()
                elif isinstance(step, SendContent):
                    answers = await self._send_content(step.command, transaction, content)
                elif isinstance(step, SendChunk):
                    chunks = chunks or _Chunks(content)
                    answers = await self._send_chunk(step.command, transaction, chunks)
                elif isinstance(step, SendDot):
                    answers = self._send_dot()
                else:
                    answers = await self._ask_for_proof()
                said.append(answers)
                for answer in answers:
                    transaction.take(answer)
        except (NetworkError, PeerError) as error:
            talk.channel.abort()
            said.append(f"-- {error}")
            return self._end(transaction, error, heard) or error
        except asyncio.CancelledError as error:
            talk.channel.abort()
            self._end(transaction, error, heard)  # what the server has said counts
            raise
        except BaseException:
            # A bug: half a transaction must not be mistaken for a kept connection.
            talk.channel.abort()
            raise
        return None

    def _hear_farewell(self, transaction: Transaction) -> None:
        """The server has taken its leave just before the transaction: that is no bug of ours, and no answer."""
        _hand_over(transaction, self._talk.take_answers())
        if self._talk.error is not None:
            raise self._talk.error

    def _end(self, transaction: Transaction, error: BaseException, heard: int) -> OutOfStep | None:
        """The connection ended in the middle, by `error`: complete replies that were read before count.

        Returns what they add to it: that they were out of step.
        """
        found = error if isinstance(error, OutOfStep) else None
        try:
            _hand_over(transaction, self._talk.take_answers())
        except OutOfStep as violation:
            found = violation
        heard_some = self._talk.bytes_received > heard
        if found is not None:
            transaction.out_of_step(heard=heard_some)
        else:
            transaction.lost(heard=heard_some)
        return found

    async def _ask_for_proof(self) -> list[AnsweredCommand]:
        """The answer to QUIT; an end instead of it changes nothing."""
        self._talk.send(Quit())
        try:
            return await self._talk.answers(QUIT_TIMEOUT)
        except OutOfStep:
            raise
        except (NetworkError, PeerError):
            self._talk.channel.abort()
            return []

    async def _send_content(
        self, command: EndOfData, transaction: Transaction, content: Content
    ) -> list[AnsweredCommand]:
        pieces = content.stuffed_pieces(PIECE) if content.is_awaited else content.stuffed(PIECE)
        if await self._write(pieces, transaction, end=command):
            return await self._talk.answers(self._rules.submission_timeout)
        return self._talk.take_answers()

    async def _send_chunk(self, command: Bdat, transaction: Transaction, chunks: _Chunks) -> list[AnsweredCommand]:
        talk, rules = self._talk, self._rules
        chunk = chunks.next(command.size, talk.prepare(command))
        await self._write(chunk, transaction, is_last=command.last)
        return await talk.answers(rules.submission_timeout if command.last else rules.command_timeout)

    def _send_dot(self) -> list[AnsweredCommand]:
        """Nobody heeds the reply to a lone dot, so nobody waits for it; the connection is not used again."""
        self._talk.channel.write_end(b".\r\n")
        self._talk.send(EndOfData())
        return []

    async def _write(
        self,
        pieces: Iterator[Octets] | AsyncIterator[Octets],
        transaction: Transaction,
        *,
        is_last: bool = True,
        end: EndOfData | None = None,
    ) -> bool:
        """Write content, piece by piece as the server takes it; False if it refused before the end.

        The doubt begins when the kernel has all of the last piece: from then on the server may have the message.
        """
        talk = self._talk
        channel, seconds = talk.channel, self._rules.command_timeout
        ready = pieces if isinstance(pieces, Iterator) else None
        piece = next(ready, None) if ready is not None else await _following(pieces)
        while piece is not None:
            following = next(ready, None) if ready is not None else await _following(pieces)
            if channel.needs_drain:
                await talk.drain(seconds)
            if end is not None and talk.has_answers:
                return self._refused_midway()
            if is_last and following is None:
                channel.write_end(piece)
            else:
                channel.write(piece)
            piece = following
        if channel.needs_drain or channel.is_closed:
            await talk.drain(seconds)
            if end is not None and talk.has_answers:
                return self._refused_midway()
        if end is not None:
            talk.send(end)
        if is_last:
            transaction.sent_final()
        return True

    def _refused_midway(self) -> Literal[False]:
        """The server did not wait for the end of DATA; a chunk has a reply of its own."""
        self._talk.channel.abort()
        return False

    async def authenticate(self, credentials: Credentials) -> None:
        """Log in (RFC 4954). Raises `Unusable`: without that the server takes nothing from us."""
        talk = self._talk
        try:
            exchange = ClientExchange(credentials, self.capabilities.auth)
            answer = await self._log_in(exchange)
            while answer.reply.code in _OTHER_MECHANISM and exchange.has_another:
                exchange = exchange.another()
                answer = await self._log_in(exchange)
        except (NetworkError, PeerError, LocalError, ValueError) as error:
            talk.channel.abort()
            failed = Unusable(TryResult.EHLO, Reply.make(451, "4.7.0", f"{self.peer.name}: AUTH failed: {error}"))
            failed.said = talk.said or ()
            raise failed from error
        if not answer.reply.is_positive:
            talk.channel.abort()
            quoted = quote_reply(self.peer.name, answer.reply)
            text = f"AUTH failed: {self.peer.name} said: {answer.reply}"[:MAX_QUOTE]
            # It judges us, not a recipient; somebody will mend the password.
            failed = Unusable(TryResult.EHLO, Reply(451, NOT_TRUSTED, (text,)), refusal=quoted)
            failed.said = talk.said or ()
            raise failed
        self._opening = shortened(talk.said or ())

    async def _log_in(self, exchange: ClientExchange) -> AnsweredCommand:
        talk, seconds = self._talk, self._rules.command_timeout
        talk.send(exchange.begin())
        (answer,) = await talk.answers(seconds)
        while talk.machine.state is ClientState.CHALLENGE:
            talk.send(exchange.answer())
            (answer,) = await talk.answers(seconds)
        return answer

    async def quit(self) -> None:
        """Say goodbye and close; whatever goes wrong here changes nothing."""
        talk = self._talk
        try:
            if self.is_alive:
                talk.send(Quit())
                await talk.answers(QUIT_TIMEOUT)
        except (NetworkError, PeerError, LocalError):
            pass
        finally:
            await talk.channel.close()

    def abort(self) -> None:
        """Close without a word."""
        self._talk.channel.abort()


def _envelope_time(rules: SessionRules, recipients: int) -> float:
    """Seconds in which all replies before the content have to be there.

    Each has a time of its own, too; but a server that answers each of a thousand recipients just in time would hold the
    message for days.
    """
    return ENVELOPE_TIMEOUTS * rules.command_timeout + RECIPIENT_TIME * recipients


async def _following(pieces: Iterator[Octets] | AsyncIterator[Octets]) -> Octets | None:
    return await anext(cast("AsyncIterator[Octets]", pieces), None)


def _hand_over(transaction: Transaction, answers: list[AnsweredCommand]) -> None:
    transaction.said.append(answers)
    for answer in answers:
        transaction.take(answer)


class _Chunks:
    """The content of one transaction in chunks; each continues where the last one ended."""

    def __init__(self, content: Content) -> None:
        self._content = content
        self._rest: Iterator[Octets] | None = None
        self._awaited: AsyncIterator[Octets] | None = content.pieces(PIECE) if content.is_awaited else None

    def next(self, size: int, command: bytes) -> Iterator[Octets] | AsyncIterator[Octets]:
        """The next `size` octets, behind their command; a small message leaves in one piece with it."""
        return self._next(size, command) if self._awaited is None else self._await(self._awaited, size, command)

    async def _await(self, rest: AsyncIterator[Octets], size: int, command: bytes) -> AsyncIterator[Octets]:
        if not size:
            yield command
        while size > 0:
            piece = await anext(rest)
            size -= len(piece)
            yield b"".join((command, piece)) if command else piece
            command = b""

    def _next(self, size: int, command: bytes) -> Iterator[Octets]:
        if self._rest is None:
            self._rest = self._content.chunks(PIECE)
        if not size:
            yield command
        while size > 0:
            piece = next(self._rest)
            size -= len(piece)
            yield b"".join((command, piece)) if command else piece
            command = b""
