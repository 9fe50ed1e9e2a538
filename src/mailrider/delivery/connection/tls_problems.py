"""What went wrong with TLS on a connection, as a `TLSProblem`. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mailrider.errors import DeadlineExceeded, PeerError
from mailrider.model.tls_problem import TLSProblem, TLSProblemKind
from mailrider.net.errors import TLSFailed, TLSFailureKind
from mailrider.smtp.client import InjectedPlaintext

if TYPE_CHECKING:
    from mailrider.model.reply import Reply

MAX_REASON = 256  # characters of why there is no TLS: a part of other sentences, which are no longer than a quote

_KINDS = {
    TLSFailureKind.ALERT: TLSProblemKind.REMOTE_ALERT,
    TLSFailureKind.PROTOCOL: TLSProblemKind.PROTOCOL,
    TLSFailureKind.CLOSED: TLSProblemKind.CLOSED,
    TLSFailureKind.TIMED_OUT: TLSProblemKind.TIMED_OUT,
    TLSFailureKind.NETWORK: TLSProblemKind.CLOSED,
    TLSFailureKind.LOCAL: TLSProblemKind.LOCAL,
}


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
