"""Stock clients hand in mail: swaks, curl, msmtp, Python's smtplib, and Postfix that relays.

What they hand in goes through the daemon, its queue, and into a real Postfix; what that stored is compared byte for
byte, behind the Received fields of those that it came through.
"""

from __future__ import annotations

import re
import smtplib
import ssl
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.peers.house import NAME, PASSWORD, USER, start_house
from tests.peers.postfix import relay_to, start_postfix
from tests.peers.process import wait_until
from tests.peers.submission import send
from tests.peers.test_dkim import verdicts
from tests.peers.test_receivers import MESSAGES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.peers.certificate import Authority
    from tests.peers.house import House
    from tests.peers.postfix import Postfix

SENDER = "anna@example.org"
MESSAGE = b"".join(
    (
        b"From: Anna <anna@example.org>\r\nTo: b@example.net\r\nDate: Sat, 21 Nov 2026 10:00:00 +0000\r\n",
        b"Message-ID: <1@client>\r\nSubject: dots,\r\n folded, and 8 bits\r\n\r\n",
        b".\r\n..\r\n.hidden\r\n\xc3\xbc\xff\r\n\r\n" + b"x" * 900 + b"\r\n\r\n",
    )
)
RECEIVED = re.compile(rb"Received:[^\r]*\r\n(?:[ \t][^\r]*\r\n)*")


@pytest.fixture(scope="module")
def house(postfix: Postfix, authority: Authority) -> Iterator[House]:
    with start_house(postfix, authority.issue(NAME)) as started:
        yield started


def arrived(postfix: Postfix, recipient: str, servers: int = 1) -> tuple[list[bytes], bytes]:
    """The Received fields of so many servers, from the last one, and the message behind them."""
    (stored,) = postfix.mailbox.wait_for(recipient)
    content, trace = stored.content, []
    for _ in range(servers):
        field = RECEIVED.match(content)
        assert field, content[:500]
        trace.append(field[0])
        content = content[field.end() :]
    return trace, content


def swaks(house: House, recipient: str, file: Path, root: Path, *, tls: bool) -> list[str]:
    file.write_bytes(MESSAGE.removesuffix(b"\r\n"))  # it adds one in front of the dot
    return [
        *("swaks", "--server", house.address, "--port", str(house.submissions if tls else house.submission)),
        *("--tls-on-connect" if tls else "--tls", "--tls-verify", "--tls-ca-path", str(root), "--tls-sni", NAME),
        *("--auth", "PLAIN", "--auth-user", USER, "--auth-password", PASSWORD),
        *("--from", SENDER, "--to", recipient, "--ehlo", "client.example.org", "--data", f"@{file}"),
    ]


def curl(house: House, recipient: str, file: Path, root: Path, *, tls: bool) -> list[str]:
    port = house.submissions if tls else house.submission
    return [
        *("curl", "--silent", "--show-error", "--url", f"{'smtps' if tls else 'smtp'}://{NAME}:{port}/client.example"),
        *("--resolve", f"{NAME}:{port}:{house.address}", "--ssl-reqd", "--cacert", str(root)),
        *("--user", f"{USER}:{PASSWORD}", "--mail-from", SENDER, "--mail-rcpt", recipient, "--upload-file", str(file)),
    ]


def msmtp(house: House, recipient: str, file: Path, root: Path, *, tls: bool) -> list[str]:
    return [
        *("msmtp", "--file=/dev/null", f"--host={house.address}", f"--tls-host-override={NAME}", "--tls=on"),
        *(f"--port={house.submissions if tls else house.submission}", f"--tls-starttls={'off' if tls else 'on'}"),
        *(f"--tls-trust-file={root}", "--auth=plain", f"--user={USER}", f"--passwordeval=echo '{PASSWORD}'"),
        *(f"--from={SENDER}", "--", recipient),
    ]


@pytest.mark.parametrize("tls", [False, True], ids=["STARTTLS", "TLS"])
@pytest.mark.parametrize("client", [swaks, curl, msmtp])
def test_a_program_hands_in_a_message(
    client: Callable[..., list[str]],
    tls: bool,
    house: House,
    postfix: Postfix,
    authority: Authority,
    recipient: str,
    tmp_path: Path,
) -> None:
    file = tmp_path / "message"
    file.write_bytes(MESSAGE)
    with file.open("rb") as standard_input:
        done = subprocess.run(
            client(house, recipient, file, authority.root, tls=tls),
            stdin=standard_input,
            capture_output=True,
            timeout=200,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    trace, content = arrived(postfix, recipient)
    assert content == MESSAGE
    assert b" with ESMTPSA id " in trace[0]


@pytest.mark.parametrize("tls", [False, True], ids=["STARTTLS", "TLS"])
@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES)
def test_pythons_smtplib_hands_in_a_message(
    message: bytes, tls: bool, house: House, postfix: Postfix, authority: Authority, recipient: str
) -> None:
    context = ssl.create_default_context(cafile=authority.root)
    with smtplib.SMTP_SSL(context=context) if tls else smtplib.SMTP() as client:
        client._host = NAME  # type: ignore[attr-defined] # the name to be verified
        client.connect(house.address, house.submissions if tls else house.submission)
        if not tls:
            client.starttls(context=context)
        client.login(USER, PASSWORD)
        assert client.sendmail(SENDER, recipient, message, ["BODY=8BITMIME"]) == {}
    _, content = arrived(postfix, recipient)
    added = re.compile(rb"Message-ID: <[^>]+>\r\nDate: [^\r]+\r\n") if b"Message-ID" not in message else re.compile(b"")
    assert added.sub(b"", content, count=1) == message


@pytest.fixture(scope="module")
def relay(house: House) -> Iterator[Postfix]:
    """Hands on to the endpoint for everybody, as a server of another domain does."""
    with start_postfix(relay_to(house.address, house.smtp)) as server:
        yield server


@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES)
def test_postfix_relays_to_a_domain_that_we_take(
    message: bytes, relay: Postfix, postfix: Postfix, recipient: str
) -> None:
    send(relay.address, relay.port, message, recipient)
    trace, content = arrived(postfix, recipient, 2)
    assert content == message
    assert b"from relay.example.org (" in trace[0]
    assert b"from client.example.org (" in trace[1]


def test_many_messages_at_once_through_postfix_arrive_whole(relay: Postfix, postfix: Postfix, recipient: str) -> None:
    large = MESSAGE + b"all work and no play\r\n" * 100_000
    everybody = [f"{number}.{recipient}" for number in range(40)]
    for one in everybody:
        send(relay.address, relay.port, large, one)
    for one in everybody:
        assert arrived(postfix, one, 2)[1] == large


def test_what_we_do_not_take_postfix_sends_back(relay: Postfix, postfix: Postfix, recipient: str) -> None:
    send(relay.address, relay.port, MESSAGE, "somebody@elsewhere.test")
    send(relay.address, relay.port, MESSAGE, recipient)
    arrived(postfix, recipient, 2)
    log = relay.mailbox.log
    wait_until(lambda: b"550 5.7.1 Not for us" in log.read_bytes(), "the refusal in Postfix's log")
    assert b"status=bounced" in log.read_bytes()


@pytest.mark.parametrize("tls", [False, True], ids=["STARTTLS", "TLS"])
def test_postfix_uses_us_as_its_smarthost(
    tls: bool, house: House, postfix: Postfix, authority: Authority, recipient: str
) -> None:
    """With a login, over TLS that it has verified."""
    settings = relay_to(
        house.address,
        house.submissions if tls else house.submission,
        smtp_sasl_auth_enable="yes",
        smtp_sasl_password_maps=f"static:{{{USER}:{PASSWORD}}}",
        smtp_sasl_security_options="noanonymous",
        smtp_tls_wrappermode="yes" if tls else "no",
        smtp_tls_security_level="secure",
        smtp_tls_secure_cert_match=NAME,
        smtp_tls_CAfile=str(authority.root),
        smtp_tls_loglevel="1",
    )
    with start_postfix(settings) as relay:
        send(relay.address, relay.port, MESSAGE, recipient)
        wait_until(lambda: b"status=" in relay.mailbox.log.read_bytes(), "an end in Postfix's log")
        assert b"status=sent (250 " in relay.mailbox.log.read_bytes(), relay.mailbox.log.read_text()
        trace, content = arrived(postfix, recipient, 2)
    assert content == MESSAGE
    assert b" with ESMTPSA id " in trace[0]


def test_what_we_sign_on_the_way_is_right_where_it_arrives(
    house: House, postfix: Postfix, recipient: str, tmp_path: Path
) -> None:
    """With the records that were made for DNS, by a verifier that is not ours."""
    message = MESSAGE.replace(b"anna@example.org", b"anna@signed.example.org")
    with smtplib.SMTP(house.address, house.smtp, "client.example.org") as client:
        client.sendmail("anna@signed.example.org", recipient, message)
    (stored,) = postfix.mailbox.wait_for(recipient)
    assert stored.content.endswith(message)
    assert len(house.dkim_records) == 2
    assert verdicts(stored.content, tmp_path, house.dkim_records) == ["True", "True"]
    assert verdicts(stored.content.replace(b".hidden", b".Hidden"), tmp_path, house.dkim_records) == ["False", "False"]


def test_without_a_login_a_smarthost_takes_nothing(house: House) -> None:
    with start_postfix(relay_to(house.address, house.submission, smtp_tls_security_level="encrypt")) as relay:
        send(relay.address, relay.port, MESSAGE, "b@example.net")
        log = relay.mailbox.log
        wait_until(lambda: b"530 5.7.0 Authentication required" in log.read_bytes(), "the refusal in Postfix's log")
