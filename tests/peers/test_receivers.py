"""The receiver fixtures keep their promises: what is sent to them is stored, byte for byte."""

from __future__ import annotations

import smtplib
import ssl
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.peers.opensmtpd import OpenSMTPDSettings, start_opensmtpd
from tests.peers.postfix import PostfixSettings, start_postfix
from tests.peers.submission import send

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from tests.peers.certificate import Authority
    from tests.peers.opensmtpd import OpenSMTPD
    from tests.peers.postfix import Postfix
    from tests.peers.receiver import Receiver

HEADER = b"From: a@example.org\r\nDate: Sat, 21 Nov 2026 10:00:00 +0000\r\nMessage-ID: <1@x>\r\n"
MESSAGES = {
    "ascii": HEADER + b"Subject: hello\r\n\r\nIt travels.\r\n",
    "8-bit body": HEADER + b"\r\n\xc3\xbc\xff\xfe\x80\r\n",
    "dots": HEADER + b"\r\n.\r\n..\r\n.hidden\r\nend.\r\n",
    "folded header": HEADER + b"Subject: one\r\n two\r\n\tthree\r\n\r\nbody\r\n",
    "long line": HEADER + b"\r\n" + b"x" * 5000 + b"\r\n",
    "empty body": HEADER + b"\r\n",
    "trailing empty lines": HEADER + b"\r\nbody\r\n\r\n\r\n",
    "no Date, no Message-ID": b"From: a@example.org\r\n\r\nbare\r\n",
    "another Received": b"Received: from elsewhere\r\n" + HEADER + b"\r\nbody\r\n",
}


@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES)
def test_a_message_is_stored_byte_for_byte(receiver: Receiver, message: bytes, recipient: str) -> None:
    send(receiver.address, receiver.port, message, recipient)
    (stored,) = receiver.mailbox.wait_for(recipient)
    assert stored.content.endswith(message)


def test_a_large_message_is_stored_byte_for_byte(receiver: Receiver, recipient: str) -> None:
    message = HEADER + b"\r\n" + b"all work and no play\r\n" * 1_500_000
    send(receiver.address, receiver.port, message, recipient)
    (stored,) = receiver.mailbox.wait_for(recipient)
    assert stored.content.endswith(message)


def test_each_of_120_recipients_gets_it(receiver: Receiver, recipient: str) -> None:
    everybody = [f"{n}.{recipient}" for n in range(120)]
    send(receiver.address, receiver.port, MESSAGES["ascii"], *everybody)
    for one in everybody:
        (stored,) = receiver.mailbox.wait_for(one)
        assert stored.content.endswith(MESSAGES["ascii"])


def test_an_internationalized_recipient_at_postfix(postfix: Postfix) -> None:
    send(postfix.address, postfix.port, MESSAGES["ascii"], "grüße@example.net")
    assert postfix.mailbox.wait_for("grüße@example.net")


def test_postfix_offers_every_extension_that_we_use(postfix: Postfix) -> None:
    assert extensions_of(postfix) >= {
        *("pipelining", "size", "starttls", "enhancedstatuscodes"),
        *("8bitmime", "dsn", "smtputf8", "chunking"),
    }


def test_opensmtpd_offers_little(opensmtpd: OpenSMTPD) -> None:
    offered = extensions_of(opensmtpd)
    assert offered >= {"size", "enhancedstatuscodes", "8bitmime", "dsn"}
    assert not offered & {"starttls", "pipelining", "smtputf8", "chunking"}


def extensions_of(receiver: Receiver) -> set[str]:
    with smtplib.SMTP(receiver.address, receiver.port, "client.example.org", timeout=200) as client:
        client.ehlo()
        return set(client.esmtp_features)


def test_tls_at_postfix_verifies_against_the_authority(postfix: Postfix, authority: Authority) -> None:
    with smtplib.SMTP(postfix.address, postfix.port, "client.example.org", timeout=200) as client:
        client._host = "mx.example.net"  # type: ignore[attr-defined] # the name to be verified
        context = ssl.create_default_context(cafile=authority.root)
        assert client.starttls(context=context)[0] == 220


def test_broken_tls_answers_the_handshake_with_an_alert(broken_tls: OpenSMTPD) -> None:
    assert "starttls" in extensions_of(broken_tls)
    with smtplib.SMTP(broken_tls.address, broken_tls.port, "client.example.org") as client:
        with pytest.raises(ssl.SSLError, match="ALERT_INTERNAL_ERROR"):
            client.starttls()


def test_swaks_delivers_over_tls(postfix: Postfix, recipient: str) -> None:
    where = ("--server", f"{postfix.address}:{postfix.port}", "--tls")
    envelope = ("--from", "sender@example.org", "--to", recipient)
    subprocess.run(["swaks", *where, *envelope, "--body", "from swaks"], check=True, timeout=200)
    (stored,) = postfix.mailbox.wait_for(recipient)
    assert b"with ESMTPS" in stored.trace
    assert b"from swaks" in stored.content


def small(kind: str) -> AbstractContextManager[Receiver]:
    if kind == "postfix":
        return start_postfix(PostfixSettings(recipient_limit=3, message_size_limit=10_000))
    return start_opensmtpd(OpenSMTPDSettings(recipient_limit=3, message_size_limit=10_000))


@pytest.mark.parametrize("kind", ["postfix", "opensmtpd"])
def test_limits_can_be_set(kind: str, recipient: str) -> None:
    with small(kind) as server:
        with smtplib.SMTP(server.address, server.port, "client.example.org", timeout=200) as client:
            client.ehlo()
            assert client.esmtp_features["size"] == "10000"
            assert "starttls" not in client.esmtp_features
            client.mail("sender@example.org")
            codes = [client.rcpt(f"{n}.{recipient}")[0] for n in range(4)]
            assert codes[:3] == [250] * 3
            assert codes[3] in (451, 452)
