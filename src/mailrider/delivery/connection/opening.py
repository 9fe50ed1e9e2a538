"""The opening of a connection, from the greeting to the last EHLO.

`open_session` gets a connection to one address as far as the EHLO after TLS; it raises `Unusable`, which says at what
stage it ended and with what reply. Nothing past EHLO is sent: first the judge speaks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mailrider.delivery.connection.conversation import Conversation
from mailrider.delivery.connection.session import Session
from mailrider.delivery.connection.unusable import Unusable, broken_reply, starttls_refused, tls_problem
from mailrider.errors import DeadlineExceeded, LocalError, NetworkError, PeerError
from mailrider.model.outcome import TryResult
from mailrider.model.reply import MAX_QUOTE, EnhancedCode, Reply, quote_reply
from mailrider.model.tls_problem import TLSProblem, TLSProblemKind
from mailrider.net.errors import TLSFailed
from mailrider.smtp.client import ClientState
from mailrider.smtp.commands import Ehlo, Helo, Lhlo, Quit, StartTLS
from mailrider.smtp.replies import ReplyViolation

if TYPE_CHECKING:
    from mailrider.clock import Clock
    from mailrider.delivery.connection.peer import Peer, SessionRules
    from mailrider.model.event import Emit
    from mailrider.model.security import TLSEvidence
    from mailrider.net.channel import Channel
    from mailrider.net.tls import ClientContext

GREETING_TIMEOUT = 300.0  # seconds: RFC 5321 4.5.3.2.1; fixed, since the server may well be busy
_NOT_ACCEPTING = EnhancedCode(4, 3, 2)
_NOT_OFFERED = TLSProblem(TLSProblemKind.STARTTLS_NOT_OFFERED, "the server does not offer STARTTLS")
_NOT_USED = TLSProblem(TLSProblemKind.STARTTLS_NOT_USED, "STARTTLS is not used here")


async def open_session(
    channel: Channel, peer: Peer, rules: SessionRules, clock: Clock, context: ClientContext, emit: Emit
) -> Session:
    """Greeting, EHLO, STARTTLS where offered, EHLO. Raises `Unusable`; then the channel is closed."""
    talk = Conversation(channel, clock, peer.name, emit if rules.debug else None)
    try:
        return await _Opening(talk, peer, rules, context).run()
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

    def __init__(self, talk: Conversation, peer: Peer, rules: SessionRules, context: ClientContext) -> None:
        self._talk = talk
        self._peer = peer
        self._rules = rules
        self._context = context
        self._starttls_refusal: Reply | None = None

    async def run(self) -> Session:
        if self._rules.implicit_tls:
            await self._handshake()
        await self._greeting()
        await self._ehlo()
        clear_because = self._peer.in_clear or await self._secure()
        return Session(self._talk, self._peer, self._rules, clear_because, self._starttls_refusal)

    async def _greeting(self) -> None:
        reply = await self._answer(TryResult.GREETING, GREETING_TIMEOUT)
        if not reply.is_positive:
            raise self._refused(TryResult.GREETING, reply)

    async def _ehlo(self) -> None:
        if self._rules.lmtp:
            reply = await self._ask(TryResult.EHLO, Lhlo(self._rules.name))
        else:
            reply = await self._ask(TryResult.EHLO, Ehlo(self._rules.name))
            if reply.is_permanent and self._talk.machine.state is ClientState.READY:
                reply = await self._helo(reply)
        if not reply.is_positive:
            raise self._refused(TryResult.EHLO, reply)

    async def _helo(self, refused: Reply) -> Reply:
        """RFC 5321 3.2: HELO only where EHLO is refused for good; who then goes without a word has said no to both."""
        try:
            return await self._ask(TryResult.EHLO, Helo(self._rules.name))
        except Unusable as error:
            if isinstance(error.__cause__, NetworkError):
                raise self._refused(TryResult.EHLO, refused) from error.__cause__
            raise

    async def _secure(self) -> TLSProblem | None:
        """TLS if it can be had; otherwise why not."""
        if self._rules.implicit_tls:
            return None
        if not self._rules.starttls:
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
        try:
            return await self._talk.start_tls(self._context, self._peer.server_name, self._rules.command_timeout)
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
        return await self._answer(stage, self._rules.command_timeout)

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
        quoted = quote_reply(self._peer.name, reply)
        problem = starttls_refused(reply) if stage is TryResult.TLS else None
        if reply.is_transient:
            return Unusable(stage, quoted, refusal=quoted, problem=problem)
        text = f"{self._peer.name} said: {reply}"[:MAX_QUOTE]
        return Unusable(stage, Reply(451, _NOT_ACCEPTING, (text,)), refusal=quoted, problem=problem)
