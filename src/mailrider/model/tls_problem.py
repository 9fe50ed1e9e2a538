"""What keeps a connection from the TLS that it should have: a kind and a code for programs, a text for people.

Whoever finds a problem makes a `TLSProblem`; verdicts on certificates, refusals of policies and connections in clear
carry it, so that nobody has to read prose. TLS reports (RFC 8460 4.3) are made from these.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class TLSProblemKind(enum.StrEnum):
    """What went wrong. What stands in `TLSProblem.code` is said here; where nothing is said, the code is empty."""

    # How TLS begins.
    STARTTLS_NOT_OFFERED = "starttls-not-offered"
    STARTTLS_REFUSED = "starttls-refused"
    """Code: that of the server's reply, `454`."""
    STARTTLS_NOT_USED = "starttls-not-used"
    """Our own settings say so."""
    STARTTLS_INJECTION = "starttls-injection"
    """Something stood behind the reply to STARTTLS, in clear."""

    # The handshake. TLS 1.3: up to the reply to the second EHLO.
    REMOTE_ALERT = "remote-alert"
    """Code: the alert's name in RFC 8446 6, `handshake_failure`."""
    LOCAL_ALERT = "local-alert"
    """Code: the name of the alert that we sent."""
    PROTOCOL = "protocol-error"
    """The peer did what TLS or SMTP does not allow, and which alert we sent is not known."""
    CLOSED = "closed"
    """The peer closed the connection, or the network broke it."""
    TIMED_OUT = "timed-out"
    LOCAL = "local"
    """Our own settings leave no TLS."""

    # The certificate.
    NO_CERTIFICATE = "no-certificate"
    UNREADABLE = "unreadable-certificate"
    WRONG_NAME = "wrong-name"
    """Code of this one and the next three: the nearest of OpenSSL's names for errors, `X509_V_ERR_...`."""
    EXPIRED = "expired"
    NOT_YET_VALID = "not-yet-valid"
    NOT_TRUSTED = "not-trusted"
    NO_NAME = "no-name"
    """The server was named by its address, which no certificate can prove."""
    DANE_NO_MATCH = "dane-no-match"

    # DNS and policies.
    TLSA_LOOKUP_FAILED = "tlsa-lookup-failed"
    """The lookup of the TLSA records, or of what says whether there can be any. Code: a `LookupFailure`, if known."""
    NO_USABLE_TLSA = "no-usable-tlsa-record"
    STS_LOOKUP_FAILED = "sts-lookup-failed"
    """The lookup of the record that announces an MTA-STS policy. Code: a `LookupFailure`."""
    STS_FETCH_FAILED = "sts-fetch-failed"
    """Code: a `FetchFailure`, or `status-404` where the policy host answered with another status than 200."""
    STS_HOST_CERTIFICATE = "sts-host-certificate"
    """The certificate of the policy host. Code: `X509_V_ERR_...`."""
    STS_POLICY_INVALID = "sts-policy-invalid"
    """`TLSProblem.lines`: what was served as the policy."""
    MX_NOT_IN_POLICY = "mx-not-in-policy"
    MX_LEVEL = "mx-level"
    """Nothing awarded the MX level that somebody demands."""
    NO_REQUIRETLS = "no-requiretls"
    """The server does not offer REQUIRETLS (RFC 8689)."""


@dataclass(frozen=True, slots=True)
class TLSProblem:
    """One thing that went wrong. `text` is for people; it may hold what a stranger wrote, and is not for comparing.

    `lines`: the lines of a text that is no policy, as a stranger wrote them.
    """

    kind: TLSProblemKind
    text: str
    code: str = ""
    lines: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.text
