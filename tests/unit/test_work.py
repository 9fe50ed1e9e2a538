"""What a stranger sends costs work in proportion to its size, and where the event loop does it, not much of it.

Measured are calls, of Python functions and of those of C, not seconds: that is the same on every machine, however busy
it is. For each parser and each composer there are inputs that grow, most of them such as once cost more than they
should. Twice the input may cost twice the calls. And the largest input that is worked on where others wait takes at
most `MAX_CALLS`, which is less than 50 ms.
"""

from __future__ import annotations

import base64
import sys
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from mailrider.cli.queue_show import visible_content
from mailrider.cli.sendmail_message import read_message, recipients_in
from mailrider.dane.tlsa import select_usable
from mailrider.dkim.sign import INLINE_HEADER, DKIMSigning, Signer, body_hash
from mailrider.dns.answer import RecordType
from mailrider.dns.wire import Question, decode_reply
from mailrider.dsn.compose import compose
from mailrider.dsn.notification import Notification, NotificationAuthor, NotifiedAction, NotifiedRecipient
from mailrider.dsn.parts import redact
from mailrider.endpoint.message import MAX_MENDED
from mailrider.endpoint.pipeline.authorize import AuthorizeSender, AuthorizeSettings
from mailrider.endpoint.pipeline.check import INLINE, Arrival, CheckAction, HeaderCheck
from mailrider.endpoint.pipeline.glob import Glob
from mailrider.endpoint.pipeline.rspamd import _NoAnswer, _understood
from mailrider.errors import MailriderError
from mailrider.header.addresses import parse_addresses, parse_authors
from mailrider.header.complete import MAX_OCTETS as COMPLETED
from mailrider.header.complete import complete_addresses
from mailrider.header.fields import (
    MAX_LINES,
    ReceivedInfo,
    count_received,
    header_fault,
    header_fields,
    received_field,
    submitted_header,
)
from mailrider.header.words import decode_words, encode_words
from mailrider.model.address import Mailbox
from mailrider.model.domain import Domain
from mailrider.model.envelope import OriginalRecipient, Recipient, Ret
from mailrider.model.event import discard
from mailrider.model.outcome import Failed
from mailrider.model.reply import Reply
from mailrider.model.security import TLSARecord
from mailrider.mtasts.policy import parse_policy
from mailrider.mtasts.record import find_record
from mailrider.queue.bounces import INLINE as INLINE_TOLD
from mailrider.smtp.capabilities import FULL_OFFER, parse_capabilities
from mailrider.smtp.commands import decode_original_recipient
from mailrider.smtp.content import Content, DotStuffer, Mender
from mailrider.smtp.data import ChunkInspector, DataDecoder
from mailrider.smtp.mend_header import mend_header
from mailrider.smtp.parse import parse_command
from mailrider.smtp.replies import ReplyParser, usual_reply
from mailrider.smtp.sasl import LoginServer, PlainServer
from mailrider.smtp.server import MAX_BACKLOG, ServerMachine
from mailrider.smtp.server_states import ContentChunk, Limits, Rejected
from mailrider.testing.clock import FakeClock
from mailrider.x509.certificate import parse_certificate, read_chain
from mailrider.x509.key_kind import KeyKind
from mailrider.x509.signing import SigningKey
from tests.support.queueing import envelope

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_CALLS = 150_000
HERE = Domain("mx.example.org")
AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
MIB = 1 << 20


def calls(work: Callable[[], object]) -> int:
    """How many functions are called in it."""
    count = 0

    def note(_: object, event: str, __: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        work()
    except (MailriderError, _NoAnswer, ValueError):
        pass  # refusing is an answer, too
    finally:
        sys.setprofile(before)
    return count


# --- Parsers ------------------------------------------------------------------------------------


def content(header: bytes) -> Content:
    return Content.inspect(header + b"\r\n\r\nbody\r\n")


def examined(check: Any, header: bytes) -> None:
    """A check that has nothing to wait for."""
    coroutine = check.examine(envelope("b@example.net"), content(header), Arrival(user="a@example.org"))
    with pytest.raises(StopIteration):
        coroutine.send(None)


def in_pieces(feed: Callable[[bytes], object], octets: bytes, size: int = 65536) -> None:
    for piece in _pieces(octets, size):
        feed(piece)


def _pieces(octets: bytes, size: int) -> list[bytes]:
    return [octets[start : start + size] for start in range(0, len(octets), size)]


ENDLESS = Limits(max_commands=10**9, max_errors=10**9, strict_groups=False)


def listened(octets: bytes, limits: Limits = ENDLESS) -> None:
    """A server that hears all of it."""
    machine = ServerMachine(replace(FULL_OFFER, max_recipients=1000), limits)
    for piece in (b"", b"EHLO client.example\r\n", *_pieces(octets, MAX_BACKLOG)):
        machine.receive(piece)
        while (event := machine.next_event()) is not None:
            if not isinstance(event, ContentChunk | Rejected):
                machine.answer(usual_reply(machine, event, "mx.example.org"))
        machine.take_output()


SIGNERS = [Signer(Domain("example.org"), each, SigningKey.make(KeyKind.ED25519)) for each in ("s1", "s2")]
SIGNING = DKIMSigning(SIGNERS, FakeClock(), discard)
AUTHORS = AuthorizeSender(AuthorizeSettings())
PASSAGE = ReceivedInfo("client.example", "[192.0.2.1]", HERE, "ESMTP", "id1", AT)
FROM = b"From: a@example.org\r\n"
WORDS = "=?utf-8?q?x?=y"


def signed(header: bytes) -> None:
    # Without the thread that a large header is read in: only the steps of this one are counted.
    SIGNING._fields(content(header))


QUESTION = Question(HERE, RecordType.A, 1)


def answers(count: int) -> bytes:
    """A DNS message with so many addresses."""
    header = b"\0\1\x84\0\0\1%b\0\0\0\0" % count.to_bytes(2, "big")
    return header + QUESTION.section() + b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4abcd" * count


ORIGIN = NotificationAuthor(HERE, Domain("example.org"))


def notification(
    *,
    header: bytes = b"Subject: x",
    count: int = 1,
    reply: str = "no",
    local: str = "b",
    original: str = "c",
    body: bytes = b".",
) -> Notification:
    """About so many recipients, each with as much of what strangers choose as there can be."""
    told: list[NotifiedRecipient] = []
    for number in range(count):
        who = Recipient(
            Mailbox(f"{local}{number}", Domain("known.test")), None, OriginalRecipient("utf-8", original[:500])
        )
        told.append(
            NotifiedRecipient(
                who,
                NotifiedAction.FAILED,
                Failed(who, Reply.from_lines(550, (f"{reply}{number}"[:500],)), "mx.known.test"),
            )
        )
    given = replace(envelope(*(each.recipient for each in told)), ret=Ret.FULL)
    return Notification(given, tuple(told), AT, AT, "0abc", Content.inspect(header + b"\r\n\r\n" + body))


def composed(given: Notification) -> None:
    compose(given, ORIGIN)


# Columns: what is done, and an input of about n octets.
PARSERS: dict[str, tuple[Callable[[Any], object], Callable[[int], Any]]] = {
    "mender, lines": (lambda octets: in_pieces(Mender().feed, octets), lambda n: b"\n" * n),
    "mender, endless header": (lambda octets: in_pieces(Mender().feed, octets), lambda n: b"a:\r" * (n // 3)),
    "mender, header in small pieces": (lambda o: in_pieces(Mender().feed, o, 16), lambda n: b"a" * n),
    "inspect": (Content.inspect, lambda n: b"a:\n" * (n // 3)),
    "stuffer": (lambda octets: in_pieces(DotStuffer().feed, octets), lambda n: b".\r\n" * (n // 3)),
    "data, dots": (lambda octets: in_pieces(DataDecoder().feed, octets), lambda n: b".a\r\n" * (n // 4)),
    "data, bare dots": (lambda octets: in_pieces(DataDecoder().feed, octets), lambda n: b"\n." * (n // 2)),
    "chunks, dots": (lambda octets: in_pieces(ChunkInspector().feed, octets), lambda n: b".\r\n" * (n // 3)),
    "header fields, many": (lambda header: header_fields(header, "To"), lambda n: b"To:\r\n" * (n // 5)),
    "header fields, folded": (lambda header: header_fields(header, "To"), lambda n: b"To: a" + b"\r\n b" * (n // 4)),
    "header fields, nearly": (lambda header: header_fields(header, "To"), lambda n: b"To \r\n" * (n // 5)),
    "header fault": (header_fault, lambda n: b"a:\r\n" * (n // 4)),
    "received": (count_received, lambda n: b"Received:\r\n" * (n // 11)),
    "submitted, Bcc": (lambda header: submitted_header(header, PASSAGE), lambda n: b"Bcc: a\r\n" * (n // 8)),
    "submitted, completed": (lambda h: complete_addresses(h, HERE), lambda n: b"To: a\r\n" * (n // 7)),
    "submitted, completed lists": (
        lambda h: complete_addresses(h, HERE),
        lambda n: b"To: " + b"a," * (n // 2) + b"\r\n",
    ),
    "submitted, mended": (mend_header, lambda n: b"a: b\r\nc\r\n" * (n // 9)),
    "words": (decode_words, lambda n: WORDS * (n // 14)),
    "words, adjacent": (decode_words, lambda n: "=?utf-8?q?x?= " * (n // 14)),
    "words, never closed": (decode_words, lambda n: "=?utf-8?q?" * (n // 10)),
    "words, closed late": (decode_words, lambda n: "=?x?q?" * (n // 6) + "?="),
    "words, bad": (decode_words, lambda n: "=?utf-8?b?A?=" * (n // 13)),
    "words, written": (encode_words, lambda n: "é" * n),
    "addresses": (parse_addresses, lambda n: "a@x," * (n // 4)),
    "addresses, commas": (parse_addresses, lambda n: "," * n),
    "addresses, comments": (parse_addresses, lambda n: "(" * n),
    "addresses, words": (parse_addresses, lambda n: "a " * (n // 2) + "<a@x>"),
    "addresses, groups": (parse_addresses, lambda n: "a:;," * (n // 4)),
    "addresses, quoted": (parse_addresses, lambda n: '"a",' * (n // 4)),
    "authors": (parse_authors, lambda n: b"a@example.org," * (n // 14)),
    "sendmail, recipients": (lambda h: recipients_in(h), lambda n: b"To: a@x\r\n" * (n // 9)),
    "sendmail, message": (lambda octets: read_message(octets, dot_ends=True), lambda n: b"a:\n" * (n // 3)),
    "authorize_sender, one field": (lambda h: examined(AUTHORS, h), lambda n: b"From: " + b"a@x," * (n // 4)),
    "authorize_sender, many": (lambda h: examined(AUTHORS, h), lambda n: b"From: a@x\r\n" * (n // 11)),
    "dkim, many fields": (signed, lambda n: FROM + b"a:\r\n" * (n // 4)),
    "dkim, many of a kind": (signed, lambda n: FROM + b"To:\r\n" * (n // 5)),
    "dkim, authors": (signed, lambda n: b"From: " + b"a@example.org," * (n // 14)),
    "dkim, body": (lambda octets: body_hash(content(octets)), lambda n: b"a\r\n\r\n" + b" \t\r\n" * (n // 4) + b"a"),
    "a pattern": (Glob.of("*a*[bc]*d*").fits, lambda n: "abx" * (n // 3)),
    "redact": (redact, lambda n: compose(notification(header=b"a:\r\n" * (n // 4)), ORIGIN)),
    # What is read of an answer, without the HTTP around it.
    "rspamd": (lambda body: _understood(200, body), lambda n: b"[" * n),
    "visible content": (visible_content, lambda n: b"\x1b" * n),
    "server, commands": (listened, lambda n: b"NOOP\r\n" * (n // 6)),
    "server, nonsense": (listened, lambda n: b"\0\r\n" * (n // 3)),
    "server, an endless line": (listened, lambda n: b"a" * n),
    "server, recipients": (
        listened,
        lambda n: b"MAIL FROM:<>\r\n" + b"RCPT TO:<a@x.test>\r\n" * (n // 20),
    ),
    "server, chunks": (
        listened,
        lambda n: b"MAIL FROM:<>\r\nRCPT TO:<a@x.test>\r\n" + b"BDAT 2\r\n.\n" * (n // 10),
    ),
    "a command": (parse_command, lambda n: b'MAIL FROM:<"' + b"\\a" * (n // 2) + b'"@x.test>'),
    "parameters": (parse_command, lambda n: b"MAIL FROM:<>" + b" a=b" * (n // 4)),
    "replies": (lambda octets: list(ReplyParser().receive(octets)), lambda n: b"250 ok\r\n" * (n // 8)),
    "a reply that never ends": (lambda octets: list(ReplyParser().receive(octets)), lambda n: b"250-a\r\n" * (n // 7)),
    "extensions": (parse_capabilities, lambda n: Reply(250, None, ("AUTH A",) * (n // 6))),
    "a policy, many lines": (
        lambda body: parse_policy(body, max_size=10**9),
        lambda n: b"version: STSv1\nmode: enforce\nmax_age: 1\n" + b"mx: a.b\n" * (n // 8),
    ),
    "a policy, one line": (lambda body: parse_policy(body, max_size=10**9), lambda n: b"version: " + b" " * n),
    "policy records": (find_record, lambda n: [b"v=STSv1;"] * (n // 8)),
    "a policy record": (find_record, lambda n: [b"v=STSv1;" + b"a=b;" * (n // 4)]),
    "a mailbox": (Mailbox.parse, lambda n: "a" * n + "@x"),
    "a domain": (Domain.parse, lambda n: "a." * (n // 2)),
    "a domain in Unicode": (Domain.parse, lambda n: "ü" * n),
    "dns": (
        lambda octets: decode_reply(octets, QUESTION),
        lambda n: answers(n // 16),
    ),
    "a password": (PlainServer().take, lambda n: base64.b64encode(b"\0" * n).decode()),
    "a user name": (LoginServer().take, lambda n: base64.b64encode(b"a" * n).decode()),
    "an original recipient": (decode_original_recipient, lambda n: "utf-8;" + r"\x{FC}" * (n // 6)),
    "an original recipient in xtext": (decode_original_recipient, lambda n: "rfc822;" + "+41" * (n // 3)),
    "a reply": (lambda line: Reply.from_lines(550, (line,)), lambda n: "\x1b" * n),
    "TLSA records": (select_usable, lambda n: [TLSARecord(3, 1, 1, b"a" * 32)] * (n // 35)),
    "a chain": (read_chain, lambda n: [b"0\0"] * (n // 2)),
    "a certificate": (parse_certificate, lambda n: b"0\x83" + n.to_bytes(3, "big") + b"0" * n),
}


# --- Composers ----------------------------------------------------------------------------------

COMPOSERS: dict[str, tuple[Callable[[Any], object], Callable[[int], Any]]] = {
    "notification, recipients": (composed, lambda n: notification(count=n // 64, reply="a " * 250, original="ü" * 500)),
    "notification, subject": (composed, lambda n: notification(header=b"Subject: " + WORDS.encode() * (n // 14))),
    "notification, fields": (composed, lambda n: notification(header=b"a:\r\n" * (n // 4) + b"b:")),
    "notification, message-ids": (composed, lambda n: notification(header=b"Message-ID:\r\n" * (n // 13) + b"b:")),
    "notification, lines": (composed, lambda n: notification(body=b"\xff\r\n" * (n // 3))),
    "notification, dots": (composed, lambda n: notification(body=b"." * n)),
    "received": (received_field, lambda n: replace(PASSAGE, recipient="a" * min(n, 900))),
}
WORK = PARSERS | COMPOSERS


@pytest.mark.parametrize("name", WORK)
def test_twice_the_input_is_twice_the_work(name: str) -> None:
    work, grown = WORK[name]
    inputs = [grown(size) for size in (2048, 4096, 8192)]
    calls(lambda: work(grown(1024)))  # what is imported, compiled or remembered once is not counted
    counts = [calls(lambda given=given: work(given)) for given in inputs]  # type: ignore[misc] # mypy and defaults
    first, second = counts[1] - counts[0], counts[2] - counts[1]
    assert second <= 2.2 * max(first, 0) + 200, counts


# --- What the event loop does -------------------------------------------------------------------

LINES = b"a:\r\n" * (MAX_LINES - 2)
LONG = FROM + b"Subject: " + b"=?utf-8?q?x?=\t(" * (MIB // 16) + b"\r\n"
CHECK = HeaderCheck("Subject", "*a*b*", CheckAction.REJECT)
SESSION = Limits(max_commands=1000)

# Columns: what is done at once, and the largest input.
LARGEST: dict[str, tuple[Callable[[Any], object], Any]] = {
    "a read that is content": (lambda octets: in_pieces(Mender().feed, octets), b"\r\na" * (MAX_BACKLOG // 3)),
    "a read that is data": (lambda octets: DataDecoder().feed(octets), b".a\r\n" * (MAX_BACKLOG // 4)),
    "a read of commands": (lambda octets: listened(octets, SESSION), b"NOOP\r\n" * (MAX_BACKLOG // 6)),
    "a read of recipients": (
        lambda octets: listened(octets, SESSION),
        b"MAIL FROM:<>\r\n" + b"RCPT TO:<a@x.test>\r\n" * (MAX_BACKLOG // 20),
    ),
    "a header of many lines": (
        lambda header: (header_fault(header), count_received(header), submitted_header(header, PASSAGE)),
        LINES,
    ),
    "a header of many fields of a kind": (lambda header: header_fields(header, "To"), b"To:\r\n" * MAX_LINES),
    "a header of one long field": (lambda header: (header_fault(header), header_fields(header, "Subject")), LONG),
    "submitted, completed": (
        lambda header: complete_addresses(header, HERE),
        b"To: " + b"a," * (COMPLETED // 2 - 50) + b"\r\n" + b"To: a\r\n" * (MAX_LINES - 2),
    ),
    "submitted, mended": (mend_header, b"a: b\r\nc\r\n" * (MAX_MENDED // 2)),
    "authorize_sender": (lambda header: examined(AUTHORS, header), b"From: " + b"a@x, " * (MIB // 6)),
    "authorize_sender, comments": (lambda header: examined(AUTHORS, header), b"From: " + b"(" * 8000),
    "authorize_sender, addresses": (lambda header: examined(AUTHORS, header), b"From: " + b"a@x," * 2000),
    "authorize_sender, many lines": (lambda header: examined(AUTHORS, header), LINES),
    "a header check": (
        lambda header: examined(CHECK, header),
        b"Subject: " + b"=?x?q?" * ((INLINE - 20) // 6),
    ),
    "a header check, words": (
        lambda header: examined(CHECK, header),
        b"Subject: " + WORDS.encode() * ((INLINE - 20) // 14),
    ),
    "dkim": (signed, FROM + b"To:\r\n" * ((INLINE_HEADER - 30) // 5)),
    "dkim, fields of many names": (signed, FROM + b"a:\r\n" * ((INLINE_HEADER - 30) // 4)),
    "dkim, authors": (signed, b"From: " + b"a@example.org," * 500),
    "a notification": (
        composed,
        notification(header=LONG, count=INLINE_TOLD, reply="a " * 250, local="=?utf-8?q?" * 20, original="ü" * 500),
    ),
    "a notification that returns a message": (composed, notification(body=b"\xff\r\n" * 40_000)),
    "an answer from DNS": (lambda octets: decode_reply(octets, QUESTION), answers(65_000 // 16)),
    "a policy": (
        parse_policy,
        b"version: STSv1\nmode: enforce\nmax_age: 1\n" + b"mx: a.b\n" * 4096,
    ),
}


@pytest.mark.parametrize("name", LARGEST)
def test_the_largest_input_does_not_hold_up_the_loop(name: str) -> None:
    work, largest = LARGEST[name]
    calls(lambda: work(largest))  # what is imported, compiled or remembered once is not counted
    assert calls(lambda: work(largest)) <= MAX_CALLS
