"""A report as a mail message (RFC 8460 5.3): readable by programs that are not ours, and signed."""

from __future__ import annotations

import email
import email.policy
import gzip
import json
import re
import sys
from datetime import date
from importlib.util import find_spec
from subprocess import run
from typing import Any

import pytest

from mailrider.dkim.sign import Signer
from mailrider.model.domain import Domain
from mailrider.reporting.mail import SIGNED_FIELDS, compose, signed
from mailrider.signing.keys import dns_record
from mailrider.tlsrpt.findings import session_findings
from mailrider.tlsrpt.report import DayCounts, Reporter, TLSReport, build_report
from mailrider.x509.key_kind import KeyKind
from mailrider.x509.signing import SigningKey
from tests.unit.reporting.world import NOON, session

REPORTER = Reporter("Example Inc.", "tls@sender.test", "sender.test")
VERIFY = """
import sys, dkim
record = sys.argv[1].encode()
octets = sys.stdin.buffer.read()
verified = [dkim.verify(octets, dnsfunc=lambda name, timeout=5: record, tlsrpt=each) for each in (True, False)]
print(*verified)
"""


def made() -> TLSReport:
    counts = DayCounts()
    counts.add(session_findings(session(fails=True)))
    return build_report("a.test", date(2026, 11, 30), counts, REPORTER, b"s" * 32)


def parsed(octets: bytes) -> Any:
    return email.message_from_bytes(octets, policy=email.policy.default)


def test_a_stock_parser_finds_the_report_and_its_fields() -> None:
    report = made()
    message = parsed(compose(report, REPORTER, ["x@a.test", "y@b.test"], NOON))
    assert not message.defects
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "tlsrpt"
    assert (message["TLS-Report-Domain"], message["TLS-Report-Submitter"]) == ("a.test", "sender.test")
    assert message["Subject"] == f"Report Domain: a.test Submitter: sender.test Report-ID: <{report.report_id}>"
    assert (message["From"], message["To"]) == ("tls@sender.test", "x@a.test, y@b.test")
    assert (message["TLS-Required"], message["Auto-Submitted"]) == ("No", "auto-generated")
    text, attached = message.iter_parts()
    assert (text.get_content_type(), attached.get_content_type()) == ("text/plain", "application/tlsrpt+gzip")
    assert attached.get_filename() == report.file_name
    content = json.loads(gzip.decompress(attached.get_content()))
    assert (content["organization-name"], content["report-id"]) == ("Example Inc.", report.report_id)


def test_all_of_it_is_seven_bit_in_short_lines() -> None:
    octets = compose(made(), REPORTER, ["x@a.test"], NOON)
    assert octets.isascii()
    assert max(map(len, octets.split(b"\r\n"))) <= 998


@pytest.mark.skipif(find_spec("dkim") is None, reason="no dkimpy here: it comes with parsedmarc")
def test_its_signature_verifies_with_a_program_that_is_not_ours() -> None:
    key = SigningKey.make(KeyKind.RSA2048)
    message = compose(made(), REPORTER, ["x@a.test"], NOON)
    content = signed(message, [Signer(Domain("sender.test"), "s1", key, SIGNED_FIELDS, ())], NOON)
    octets = b"".join(bytes(piece) for piece in content.chunks())
    _, _, record = dns_record(Domain("sender.test"), "s1", key).partition(" IN TXT ")
    published = "".join(re.findall(r'"([^"]*)"', record))  # as `mailrider setup` writes it
    result = run([sys.executable, "-c", VERIFY, published], input=octets, capture_output=True, check=True)
    assert result.stdout.split() == [b"True", b"True"]  # as a report, and as any mail
    covered = "".join(parsed(octets)["DKIM-Signature"].split()).partition("h=")[2].partition(";")[0].split(":")
    assert {each.lower() for each in covered} == {each.lower() for each in SIGNED_FIELDS}
    assert ";l=" not in "".join(parsed(octets)["DKIM-Signature"].split())
