"""What a message demands or waives by itself (RFC 8689)."""

from __future__ import annotations

import pytest

from mailrider.model.address import Mailbox, ReversePath
from mailrider.model.envelope import Envelope, Recipient
from mailrider.model.security import MXLevel, TLSLevel
from mailrider.policy.requiretls import ORDINARY, REQUIRETLS, WAIVED, message_security
from mailrider.smtp.content import Content

SENDER, NULL = ReversePath.parse("a@example.org"), ReversePath.parse("")


def envelope(*, requiretls: bool, sender: ReversePath = SENDER) -> Envelope:
    return Envelope(sender, (Recipient(Mailbox.parse("b@example.net")),), requiretls=requiretls)


HEADERS = {
    "none": (b"Subject: x\r\n", False),
    "No": (b"TLS-Required: No\r\n", True),
    "in any case": (b"tls-REQUIRED: nO\r\n", True),
    "with white space": (b"TLS-Required: \t No \r\n", True),
    "folded": (b"TLS-Required:\r\n No\r\n", True),
    "with bare line feeds": (b"TLS-Required: No\nSubject: x\n", True),
    "Yes": (b"TLS-Required: Yes\r\n", False),
    "empty": (b"TLS-Required:\r\n", False),
    "with more behind it": (b"TLS-Required: No, really\r\n", False),
    "a word that begins so": (b"TLS-Required: Nope\r\n", False),
    "twice": (b"TLS-Required: No\r\nTLS-Required: No\r\n", False),
    "twice, spelled differently": (b"TLS-Required: No\r\nSubject: x\r\ntls-required : No\r\n", False),
    "No and then Yes": (b"TLS-Required: No\r\nTLS-Required: Yes\r\n", False),
    "another field": (b"X-TLS-Required: No\r\n", False),
    "within another field": (b"Subject: TLS-Required: No\r\n", False),
    "in a continuation": (b"Subject: x\r\n TLS-Required: No\r\n", False),
    "smuggled behind a bare CR": (b"Subject: x\rTLS-Required: No\r\n", False),
    "a name with a NUL": (b"TLS-Required\0: No\r\n", False),
    "in the body": (b"Subject: x\r\n\r\nTLS-Required: No\r\n", False),
    "in an attached message": (b"Content-Type: message/rfc822\r\n\r\nTLS-Required: No\r\n\r\n", False),
}


@pytest.mark.parametrize(("header", "waives"), HEADERS.values(), ids=HEADERS)
def test_exactly_one_field_with_exactly_that_value_waives_the_policies(header: bytes, waives: bool) -> None:
    # The field is looked for in what will be sent, so after mending.
    fields = Content.inspect(header + b"\r\nhello\r\n").header_fields("TLS-Required")
    found = message_security(envelope(requiretls=False), fields, override=True, relaxed=True)
    assert found is (WAIVED if waives else ORDINARY)


def test_without_the_override_the_field_says_nothing() -> None:
    assert message_security(envelope(requiretls=False), [b"No"], override=False, relaxed=True) is ORDINARY


@pytest.mark.parametrize("override", [True, False])
@pytest.mark.parametrize("fields", [[], [b"No"], [b"No", b"No"]])
def test_requiretls_outranks_the_field(override: bool, fields: list[bytes]) -> None:
    found = message_security(envelope(requiretls=True), fields, override=override, relaxed=True)
    assert found.requirement is REQUIRETLS
    assert found.policies_bind
    assert found.gathers_evidence


def test_requiretls_demands_an_authenticated_host_and_channel() -> None:
    assert (REQUIRETLS.min_mx, REQUIRETLS.min_tls) == (MXLevel.MTASTS, TLSLevel.AUTHENTICATED)


@pytest.mark.parametrize(
    ("sender", "relaxed", "needs"),
    [(SENDER, True, False), (SENDER, False, True), (NULL, True, False), (NULL, False, False)],
    ids=["relaxed", "strict", "a bounce", "a bounce, strict"],
)
def test_strict_mode_needs_the_extension_except_for_a_bounce(sender: ReversePath, relaxed: bool, needs: bool) -> None:
    found = message_security(envelope(requiretls=True, sender=sender), [], override=True, relaxed=relaxed)
    assert found.needs_extension is needs
    assert found.requirement is REQUIRETLS
