"""Why a connection cannot carry a message, and what the recipients get for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mailrider.errors import MailriderError, PeerError
from mailrider.model.reply import MAX_QUOTE, EnhancedCode, Reply, quote_reply
from mailrider.net.errors import TLSFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mailrider.delivery.connection.said import Said
    from mailrider.model.outcome import TryResult
    from mailrider.model.tls_problem import TLSProblem

NOT_TRUSTED = EnhancedCode(4, 7, 0)


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
        return quote_reply(host, reply)
    return Reply(451, NOT_TRUSTED, (f"{host} said: {reply}"[:MAX_QUOTE],))
