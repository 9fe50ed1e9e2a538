"""What a message itself demands: REQUIRETLS and TLS-Required (RFC 8689). Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mailrider.model.security import NO_REQUIREMENT, MXLevel, Requirement, TLSLevel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mailrider.model.envelope import Envelope

REQUIRETLS = Requirement(
    min_mx=MXLevel.MTASTS, min_tls=TLSLevel.AUTHENTICATED, mx_reason="requiretls", tls_reason="requiretls"
)


@dataclass(frozen=True, slots=True)
class MessageSecurity:
    """What a message itself demands of security, and waives.

    `requirement`: its own minimum. `policies_bind`: False if it waives them (TLS-Required: No). `gathers_evidence`:
    DNSSEC, DANE and MTA-STS are asked for it even where `mx_auth` does not list them. `needs_extension`: the server
    must offer REQUIRETLS.
    """

    requirement: Requirement = NO_REQUIREMENT
    policies_bind: bool = True
    gathers_evidence: bool = False
    needs_extension: bool = False


ORDINARY = MessageSecurity()
WAIVED = MessageSecurity(policies_bind=False)


def message_security(
    envelope: Envelope, tls_required: Sequence[bytes], *, override: bool, relaxed: bool
) -> MessageSecurity:
    """What the envelope and the values of the `TLS-Required` header fields demand or waive.

    `override` and `relaxed` are `requiretls_override` and `relaxed_requiretls` of the target.
    """
    if envelope.requiretls:
        # RFC 8689 4.1: REQUIRETLS outranks the header field. A notification is never failed for want of the
        # extension (RFC 8689 5): its sender could not be told.
        needs_extension = not relaxed and not envelope.sender.is_null
        return MessageSecurity(REQUIRETLS, gathers_evidence=True, needs_extension=needs_extension)
    # RFC 8689 3: exactly one field, and its value is exactly "No"; anything else is ignored.
    if override and len(tls_required) == 1 and tls_required[0].strip().lower() == b"no":
        return WAIVED
    return ORDINARY
