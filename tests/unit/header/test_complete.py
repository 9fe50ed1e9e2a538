"""Addresses without a domain in a submitted header get one, and nothing else changes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrider.header.complete import MAX_OCTETS, complete_addresses
from mailrider.model.domain import Domain

ORIGIN = Domain("example.org")

COMPLETED = {
    # Debian's cron
    "From: root (Cron Daemon)": "From: root@example.org (Cron Daemon)",
    "To: root": "To: root@example.org",
    "To: <root>": "To: <root@example.org>",
    'From: "(Cron Daemon)" <root>': 'From: "(Cron Daemon)" <root@example.org>',
    "To: root, a@x.test,\r\n bob": "To: root@example.org, a@x.test,\r\n bob@example.org",
    "to :root": "to :root@example.org",
    "Resent-To: root": "Resent-To: root@example.org",
    "Reply-To: root": "Reply-To: root@example.org",
    "Sender: =?utf-8?q?x?= <root>": "Sender: =?utf-8?q?x?= <root@example.org>",
    "Cc: friends: ann, bob;, c": "Cc: friends: ann@example.org, bob@example.org;, c@example.org",
    'To: "a b"': 'To: "a b"@example.org',
    "To: a..b": "To: a..b@example.org",
    "To: (the (big) one) root": "To: (the (big) one) root@example.org",
    # An `@` that is not the address's.
    'From: "root@host" <root>': 'From: "root@host" <root@example.org>',
    "From: root (job@host)": "From: root@example.org (job@host)",
    "From: job@host <root>": "From: job@host <root@example.org>",
    "To: friends: ann@x.test; bob": "To: friends: ann@x.test; bob@example.org",
}
LEFT = [
    "To: a@x.test",
    "To: Bob <b@x.test>, Ann <a@x.test>",
    "To: undisclosed-recipients:;",
    "To: =?utf-8?q?nobody?=",
    "To: two words",
    'To: "a b"@x.test, c@y.test',
    "To: a@[192.0.2.1], b@x.test",
    "To: ,",
    "To:",
    "To: root (open",
    "To: root)",
    "To: <root",
    "To: root>",
    "To: <<root>>",
    "To: <a> <b>",
    "To: <a, b>",
    "To: <a:b>",
    "To: <a> : b",
    'To: root, "open',
    "To: root, a\\b]",
    "To: root [",
    "To: \\",
    "Subject: root",
    "X-To: root",
    "Subject: x\r\n To: root",
]


@pytest.mark.parametrize("field", COMPLETED)
def test_an_address_without_a_domain_is_of_the_origin(field: str) -> None:
    before, after = b"Subject: root\r\n", b"X-From: root\r\n"
    expected = before + COMPLETED[field].encode() + b"\r\n" + after
    assert complete_addresses(before + field.encode() + b"\r\n" + after, ORIGIN) == expected
    assert complete_addresses(expected, ORIGIN) is expected


@pytest.mark.parametrize("field", LEFT)
def test_what_has_a_domain_or_makes_no_sense_stays_as_it_is(field: str) -> None:
    header = field.encode() + b"\r\n"
    assert complete_addresses(header, ORIGIN) is header


def test_no_more_is_looked_at_than_a_bound() -> None:
    header = b"To: root\r\n" * (MAX_OCTETS // 32)
    done = complete_addresses(header, ORIGIN)
    assert 0 < done.count(b"@example.org") < MAX_OCTETS // 64


@given(st.text('ab "()<>,:;@\\[]=?.', max_size=30))
def test_octets_are_only_ever_added(text: str) -> None:
    header = b"To: " + text.encode() + b"\r\n"
    assert complete_addresses(header, ORIGIN).replace(b"@example.org", b"") == header
