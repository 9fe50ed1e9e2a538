"""One SMTP connection: opened up to the EHLO after TLS, then carrying transactions.

`open_session` gets a connection to one address as far as EHLO; it raises `Unusable`, which says at what stage it ended
and with what reply. Nothing past EHLO is sent there: first the judge speaks. `Session.transact` drives a `Transaction`
and never raises for a mail reason. `Session.quit` is polite and changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, cast

from mailrider.delivery.connection.conversation import Conversation
from mailrider.delivery.connection.said import shortened
from mailrider.delivery.connection.tls_problems import starttls_refused, tls_problem
from mailrider.errors import DeadlineExceeded, LocalError, MailriderError, NetworkError, PeerError
from mailrider.model.domain import Domain
from mailrider.model.outcome import TryResult
from mailrider.model.reply import MAX_QUOTE, EnhancedCode, Reply, quote_reply
from mailrider.model.security import PeerEvidence
from mailrider.model.tls_problem import TLSProblem, TLSProblemKind
from mailrider.net.errors import TLSFailed
from mailrider.smtp.client import ClientState, OutOfStep
from mailrider.smtp.commands import Ehlo, EndOfData, Helo, Lhlo, Quit, StartTLS
from mailrider.smtp.replies import ReplyViolation
from mailrider.smtp.sasl import ClientExchange
from mailrider.smtp.transaction import SendChunk, SendCommands, SendContent, SendDot

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from mailrider.clock import Clock
    from mailrider.delivery.connection.said import Said
    from mailrider.model.domain import NextHop
    from mailrider.model.event import Emit
    from mailrider.model.security import TLSEvidence
    from mailrider.net.channel import Channel
    from mailrider.net.tls import ClientContext
    from mailrider.smtp.capabilities import Capabilities
    from mailrider.smtp.client import AnsweredCommand
    from mailrider.smtp.commands import Bdat
    from mailrider.smtp.content import Content, Octets
    from mailrider.smtp.sasl import Credentials
    from mailrider.smtp.transaction import Transaction

GREETING_TIMEOUT = 300.0  # seconds: RFC 5321 4.5.3.2.1; fixed, since the server may well be busy
QUIT_TIMEOUT = 5.0  # seconds: a farewell is not worth more
_NOT_ACCEPTING = EnhancedCode(4, 3, 2)
_NOT_TRUSTED = EnhancedCode(4, 7, 0)
# RFC 4954 6: the mechanism is not known, or too weak; the password was not looked at.
_OTHER_MECHANISM = frozenset({504, 534})
ENVELOPE_TIMEOUTS = 2  # a server that answers MAIL, and then a RCPT, just in time has used it up
RECIPIENT_TIME = 10.0  # seconds: servers that delay each RCPT on purpose take no longer
_NOT_OFFERED = TLSProblem(TLSProblemKind.STARTTLS_NOT_OFFERED, "the server does not offer STARTTLS")
_NOT_USED = TLSProblem(TLSProblemKind.STARTTLS_NOT_USED, "STARTTLS is not used here")
PIECE = 65536  # octets of content that must be taken within one command time-out


@dataclass(frozen=True, slots=True)
class Dialect:
    """How we speak to servers; the same for all connections of a target.

    `name`: what EHLO says. Times in seconds. `implicit_tls`: TLS at once (RFC 8314 3.3); `starttls` False: it is not
    used though it may be offered.
    """

    name: NextHop
    command_timeout: float
    submission_timeout: float
    lmtp: bool = False
    debug: bool = False
    implicit_tls: bool = False
    starttls: bool = True


class ComeAgain(MailriderError):
    """No connection may be opened now: nothing was tried, and may be after `seconds`."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"No connection may be opened now; it may be in {seconds:g} s")
        self.seconds = seconds


class Unusable(MailriderError):
    """This connection cannot carry the message; `reply` is what the recipients would get.

    `refusal`: the server's own words, where it refused the greeting or EHLO; that is about us, not about a recipient.
    `handshake`: the TLS handshake failed; `may_fall_back` if that was the peer's doing (RFC 7435). `problem`: what was
    wrong, if it was about TLS.
    """

    def __init__(
        self,
        stage: TryResult,
        reply: Reply,
        *,
        refusal: Reply | None = None,
        handshake: bool = False,
        may_fall_back: bool = False,
        problem: TLSProblem | None = None,
    ) -> None:
        super().__init__(reply.text, code=reply.code, enhanced=str(reply.status))
        self.stage = stage
        self.reply = reply
        self.refusal = refusal
        self.handshake = handshake
        self.may_fall_back = may_fall_back
        self.problem = problem
        self.local_address = ""
        self.said: Sequence[Said] = ()
        self.helo = ""
        """How the server named itself in its reply to EHLO; empty if it did not come so far."""

    @property
    def by_server(self) -> bool:
        """True if the server said something that explains it."""
        return self.refusal is not None


def broken_reply(host: str, error: Exception) -> Reply:
    """What a network error or violation on a connection to `host` means for the recipients."""
    text = str(error)
    if isinstance(error, PeerError):
        return Reply.make(451, error.enhanced, f"{host} broke the protocol: {text}")
    if not text.startswith(host):
        text = f"{host}: {text}"
    return Reply.make(451, "4.7.5" if isinstance(error, TLSFailed) else "4.4.2", text)


def judgement_of_us(host: str, reply: Reply) -> Reply:
    """What the recipients get where a server refuses our login and not the message: never more than a deferral."""
    if reply.is_transient:
        return quote_reply(host, Reply(reply.code, reply.status, reply.lines))
    return Reply(451, _NOT_TRUSTED, (f"{host} said: {reply}"[:MAX_QUOTE],))


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is called: the MX host, its address and port, and whether TLS is kept out (after it failed).

    `lenient`: see `PeerEvidence`. `name` is the host as reports show it.
    """

    host: NextHop
    address: str
    port: int
    sni: Domain | None
    in_clear: TLSProblem | None = None
    lenient: bool = False
    name: str = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", str(self.host))


def server_name(host: NextHop, sni: Domain | None) -> str | None:
    """The SNI that a server is sent: the TLSA base domain under DANE (RFC 7672 8.1), else the MX host's name."""
    if sni is not None:
        return sni.ascii
    return host.ascii if isinstance(host, Domain) else None


class Session:
    """An open connection past EHLO. `evidence` is what the peer proved; `transactions` it carried so far.

    `starttls_refusal`: the server offered STARTTLS, and then answered it with this.
    """

    def __init__(
        self,
        talk: Conversation,
        peer: Peer,
        dialect: Dialect,
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
        self._dialect = dialect
        self._opening = shortened(talk.said or ())
        self._capabilities: Capabilities | None = None

    @property
    def capabilities(self) -> Capabilities:
        """What the server offers, under TLS if there is any."""
        return self._capabilities or self._talk.machine.capabilities

    def leave_out_chunking(self) -> None:
        """Use no BDAT here, whatever is offered."""
        self._capabilities = replace(self._talk.machine.capabilities, chunking=False)

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
    def max_transactions(self) -> int | None:
        """How many transactions the server takes on one connection, if it says so (RFC 9422 4.1)."""
        return self._talk.machine.capabilities.max_transactions

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
        talk, dialect = self._talk, self._dialect
        talk.said = None
        transaction.opening = self._opening
        said = transaction.said
        if self.transactions > 1:
            said.append("-- (other messages)")
        chunks: _Chunks | None = None
        heard = talk.bytes_received
        # Each reply has its time; all replies before the content have a time together, or a server that answers each of
        # a thousand recipients just in time would hold the message for days.
        seconds = ENVELOPE_TIMEOUTS * dialect.command_timeout + RECIPIENT_TIME * len(transaction.recipients)
        began = talk.monotonic()
        try:
            # The server may have taken its leave just before: that is no bug of ours, and no answer.
            if talk.error is not None or talk.has_answers:
                _hand_over(transaction, talk.take_answers())
                if talk.error is not None:
                    raise talk.error
            while (step := transaction.next()) is not None:
                said.append(step)
                if isinstance(step, SendCommands):
                    talk.send(*step.commands)
                    answers = await talk.answers(dialect.command_timeout, began + seconds)
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
            return await self._talk.answers(self._dialect.submission_timeout)
        return self._talk.take_answers()

    async def _send_chunk(self, command: Bdat, transaction: Transaction, chunks: _Chunks) -> list[AnsweredCommand]:
        talk, dialect = self._talk, self._dialect
        chunk = chunks.next(command.size, talk.prepare(command))
        await self._write(chunk, transaction, is_last=command.last)
        return await talk.answers(dialect.submission_timeout if command.last else dialect.command_timeout)

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
        channel, seconds = talk.channel, self._dialect.command_timeout
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
            failed = Unusable(TryResult.EHLO, Reply(451, _NOT_TRUSTED, (text,)), refusal=quoted)
            failed.said = talk.said or ()
            raise failed
        self._opening = shortened(talk.said or ())

    async def _log_in(self, exchange: ClientExchange) -> AnsweredCommand:
        talk, seconds = self._talk, self._dialect.command_timeout
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


async def open_session(
    channel: Channel, peer: Peer, dialect: Dialect, clock: Clock, context: ClientContext, emit: Emit
) -> Session:
    """Greeting, EHLO, STARTTLS where offered, EHLO. Raises `Unusable`; then the channel is closed."""
    talk = Conversation(channel, clock, peer.name, emit if dialect.debug else None)
    try:
        return await _Opening(talk, peer, dialect, context).run()
    except Unusable as error:
        error.local_address, error.helo, error.said = channel.local_address, talk.server_name, talk.said or ()
        if error.by_server and talk.is_at_rest:
            # RFC 5321 4.1.1.10: a refusal, too, is answered by QUIT; the reply to it would change nothing.
            talk.send(Quit())
            await channel.close()
        channel.abort()
        raise
    except BaseException:
        channel.abort()
        raise


class _Opening:
    """The steps from the greeting to the last EHLO."""

    def __init__(self, talk: Conversation, peer: Peer, dialect: Dialect, context: ClientContext) -> None:
        self._talk = talk
        self._peer = peer
        self._dialect = dialect
        self._context = context
        self._starttls_refusal: Reply | None = None

    async def run(self) -> Session:
        if self._dialect.implicit_tls:
            await self._handshake()
        await self._greeting()
        await self._ehlo()
        clear_because = self._peer.in_clear or await self._secure()
        return Session(self._talk, self._peer, self._dialect, clear_because, self._starttls_refusal)

    async def _greeting(self) -> None:
        reply = await self._answer(TryResult.GREETING, GREETING_TIMEOUT)
        if not reply.is_positive:
            raise self._refused(TryResult.GREETING, reply)

    async def _ehlo(self) -> None:
        if self._dialect.lmtp:
            reply = await self._ask(TryResult.EHLO, Lhlo(self._dialect.name))
        else:
            reply = await self._ask(TryResult.EHLO, Ehlo(self._dialect.name))
            if reply.is_permanent and self._talk.machine.state is ClientState.READY:
                reply = await self._helo(reply)
        if not reply.is_positive:
            raise self._refused(TryResult.EHLO, reply)

    async def _helo(self, refused: Reply) -> Reply:
        """RFC 5321 3.2: HELO only where EHLO is refused for good; who then goes without a word has said no to both."""
        try:
            return await self._ask(TryResult.EHLO, Helo(self._dialect.name))
        except Unusable as error:
            if isinstance(error.__cause__, NetworkError):
                raise self._refused(TryResult.EHLO, refused) from error.__cause__
            raise

    async def _secure(self) -> TLSProblem | None:
        """TLS if it can be had; otherwise why not."""
        if self._dialect.implicit_tls:
            return None
        if not self._dialect.starttls:
            return _NOT_USED
        if not self._talk.machine.capabilities.starttls:
            return _NOT_OFFERED
        reply = await self._ask(TryResult.TLS, StartTLS())
        if reply.code == 421:
            raise self._refused(TryResult.TLS, reply)
        if not reply.is_positive:
            self._starttls_refusal = reply
            return starttls_refused(reply)
        await self._handshake()
        await self._ehlo_in_tls()
        return None

    async def _handshake(self) -> TLSEvidence:
        name = server_name(self._peer.host, self._peer.sni)
        try:
            return await self._talk.start_tls(self._context, name, self._dialect.command_timeout)
        except TLSFailed as error:
            raise self._handshake_failed(error, may_fall_back=error.is_peers_doing) from error
        except (NetworkError, PeerError) as error:
            reply = broken_reply(self._peer.name, error)
            raise Unusable(TryResult.TLS, reply, problem=tls_problem(error, reply.text)) from error

    async def _ehlo_in_tls(self) -> None:
        """In TLS 1.3 the server's rejection arrives only now: an alert or close before any reply (RFC 8446 6.2)."""
        received = self._talk.bytes_received
        try:
            await self._ehlo()
        except Unusable as error:
            cause = error.__cause__
            tls = self._talk.channel.tls
            is_late = tls is not None and tls.version == "TLSv1.3"
            answered = self._talk.bytes_received > received
            if isinstance(cause, PeerError | DeadlineExceeded) or answered or not is_late:
                raise
            if not isinstance(cause, Exception):
                raise
            raise self._handshake_failed(cause, may_fall_back=True) from cause

    def _handshake_failed(self, error: Exception, *, may_fall_back: bool) -> Unusable:
        reply = Reply.make(451, "4.7.5", f"TLS handshake with {self._peer.name} failed: {error}")
        problem = tls_problem(error, reply.text)
        return Unusable(TryResult.TLS, reply, handshake=True, may_fall_back=may_fall_back, problem=problem)

    async def _ask(self, stage: TryResult, command: Ehlo | Helo | Lhlo | StartTLS) -> Reply:
        try:
            self._talk.send(command)
        except LocalError as error:
            # The server said farewell before we could ask.
            raise Unusable(stage, Reply.make(451, "4.4.2", f"{self._peer.name} closed the session: {error}")) from error
        return await self._answer(stage, self._dialect.command_timeout)

    async def _answer(self, stage: TryResult, seconds: float) -> Reply:
        try:
            answers = await self._talk.answers(seconds)
        except (NetworkError, PeerError) as error:
            # A complete reply that was read before the end counts.
            answers = self._talk.take_answers()
            if not answers or answers[0].reply.is_positive:
                cause = self._nonsense() or error
                broken = broken_reply(self._peer.name, cause)
                problem = tls_problem(cause, broken.text) if stage is TryResult.TLS else None
                raise Unusable(stage, broken, problem=problem) from cause
        if len(answers) > 1:
            # Only a 421 can come unasked: welcome and farewell in one breath.
            raise self._refused(stage, answers[-1].reply)
        return answers[0].reply

    def _nonsense(self) -> PeerError | None:
        """Who said something, and no reply, did not just go away or keep silent."""
        said = self._talk.machine.skipped_words
        return ReplyViolation(f"not a reply: {said}") if said and self._talk.machine.violation is None else None

    def _refused(self, stage: TryResult, reply: Reply) -> Unusable:
        """RFC 5321 3.1: a refused greeting or EHLO is about this connection, never about a recipient."""
        quoted = quote_reply(self._peer.name, Reply(reply.code, reply.status, reply.lines))
        problem = starttls_refused(reply) if stage is TryResult.TLS else None
        if reply.is_transient:
            return Unusable(stage, quoted, refusal=quoted, problem=problem)
        text = f"{self._peer.name} said: {reply}"[:MAX_QUOTE]
        return Unusable(stage, Reply(451, _NOT_ACCEPTING, (text,)), refusal=quoted, problem=problem)
