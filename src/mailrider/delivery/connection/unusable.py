"""Why a connection cannot carry a message: what was wrong with TLS, and what the recipients get for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mailrider.errors import DeadlineExceeded, MailriderError, PeerError
from mailrider.model.reply import MAX_QUOTE, EnhancedCode, Reply, quote_reply
from mailrider.model.tls_problem import TLSProblem, TLSProblemKind
from mailrider.net.errors import TLSFailed, TLSFailureKind
from mailrider.smtp.client import InjectedPlaintext

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mailrider.delivery.connection.transcript import DialoguePart
    from mailrider.model.outcome import TryResult

NOT_TRUSTED = EnhancedCode(4, 7, 0)
MAX_REASON = 256  # characters of why there is no TLS: a part of other sentences, which are no longer than a quote

_KINDS = {
    TLSFailureKind.ALERT: TLSProblemKind.REMOTE_ALERT,
    TLSFailureKind.PROTOCOL: TLSProblemKind.PROTOCOL,
    TLSFailureKind.CLOSED: TLSProblemKind.CLOSED,
    TLSFailureKind.TIMED_OUT: TLSProblemKind.TIMED_OUT,
    TLSFailureKind.NETWORK: TLSProblemKind.CLOSED,
    TLSFailureKind.LOCAL: TLSProblemKind.LOCAL,
}


class ConnectLater(MailriderError):
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
        self.said: Sequence[DialoguePart] = ()
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
        return quote_reply(host, reply)
    return Reply(451, NOT_TRUSTED, (f"{host} said: {reply}"[:MAX_QUOTE],))


def starttls_refused(reply: Reply) -> TLSProblem:
    """The server offered STARTTLS, and answered it with this."""
    text = f"the server refused STARTTLS: {reply}"[:MAX_REASON]
    return TLSProblem(TLSProblemKind.STARTTLS_REFUSED, text, str(reply.code))


def tls_problem(error: Exception, text: str) -> TLSProblem:
    """What it means that an error ended a connection between STARTTLS and the reply to the EHLO behind it."""
    match error:
        case TLSFailed(kind=TLSFailureKind.PROTOCOL, alert=str(alert)) if alert:
            return TLSProblem(TLSProblemKind.LOCAL_ALERT, text, alert)
        case TLSFailed():
            return TLSProblem(_KINDS[error.kind], text, error.alert)
        case InjectedPlaintext():
            return TLSProblem(TLSProblemKind.STARTTLS_INJECTION, text)
        case PeerError():
            return TLSProblem(TLSProblemKind.PROTOCOL, text)
        case DeadlineExceeded():
            return TLSProblem(TLSProblemKind.TIMED_OUT, text)
        case _:
            return TLSProblem(TLSProblemKind.CLOSED, text)
