"""Each client that is refused has a line in the log, with the client, what it said, and the reason."""

from __future__ import annotations

import base64
import ssl
import warnings
from typing import TYPE_CHECKING

import pytest

from mailrider.lab.ca import CA
from mailrider.model.endpoint_event import ClientCutOff, ClientRefused, LoginFailed, MailRefused
from mailrider.net.tls import make_server_context
from mailrider.settings.socket_address import Scheme
from tests.flow.endpoint.running_endpoint import HOST, MESSAGE, RunningEndpoint, run_endpoint, server_context
from tests.support.loops import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from mailrider.smtp.sasl import Credentials


class NoLogin:
    async def verify(self, _: Credentials) -> bool:
        return False


def old_context() -> ssl.SSLContext:
    """A printer of 2009: TLS 1.0 and nothing else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1
    return context


async def refused(running: RunningEndpoint) -> tuple[str, str, str]:
    await eventually(lambda: bool(running.noted(ClientRefused)))
    (event,) = running.noted(ClientRefused)
    return event.client, event.command, event.reason


async def test_tls_that_is_too_old_is_named_behind_starttls(tmp_path: Path) -> None:
    async with run_endpoint(tls=server_context(CA(), tmp_path)) as running:
        client = await running.client()
        await client.hello()
        assert (await client.ask("STARTTLS"))[:3] == "220"
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await client.writer.start_tls(old_context())
        who, command, reason = await refused(running)
    assert (who, command) == (HOST, "STARTTLS")
    assert "the peer offers only TLS versions that we do not accept" in reason


async def test_a_printer_of_yesteryear_is_served_where_its_version_is_asked_for(tmp_path: Path) -> None:
    cert, key = CA().issue(["mx.here.test"]).write(tmp_path, "here")
    context = make_server_context(cert, key, protocols=("tls1.0", "tls1.3"))
    async with run_endpoint(tls=context) as running:
        client = await running.client()
        await client.hello()
        assert (await client.ask("STARTTLS"))[:3] == "220"
        await client.writer.start_tls(old_context())
        await client.ask("EHLO printer.example")
        assert (await client.send(MESSAGE))[:3] == "250"
        assert b"(using TLSv1 with" in running.sink.taken[0][1]


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"EHLO client.example\r\n", "the peer does not speak TLS"),
        (b"GET / HTTP/1.1\r\n\r\n", "the peer speaks HTTP"),
    ],
)
async def test_clear_text_on_a_tls_port_is_named(tmp_path: Path, said: bytes, reason: str) -> None:
    async with run_endpoint(scheme=Scheme.TLS, tls=server_context(CA(), tmp_path)) as running:
        client = await running.client()
        await client.say(said)
        who, command, why = await refused(running)
    assert (who, command) == (HOST, "TLS")
    assert reason in why


async def test_an_ehlo_that_is_none_is_named_and_what_follows_it_is_not() -> None:
    async with run_endpoint() as running:
        client = await running.client()
        await client.hear()
        assert (await client.ask("EHLO"))[:3] == "501"
        assert (await client.ask("EHLO"))[:3] == "501"
        assert await refused(running) == (HOST, "EHLO", "501 5.5.4 Syntax: EHLO host.name")


async def test_what_ends_the_session_is_named() -> None:
    async with run_endpoint() as running:
        client = await running.client()
        await client.hear()
        await client.say(b"POST / HTTP/1.1\r\n")
        await client.rest()
        (event,) = running.noted(ClientCutOff)
    assert (event.client, event.reason) == (HOST, "POST: This is no HTTP server; good bye")


async def test_a_refused_mail_is_named_whether_it_can_be_read_or_not() -> None:
    async with run_endpoint(max_size=100_000) as running:
        client = await running.client()
        await client.hello()
        assert (await client.ask("MAIL FROM:<a@example.org> SIZE=100001"))[:3] == "552"
        assert (await client.ask("MAIL FROM:<a@b@c>"))[:3] == "501"
        (event,) = running.noted(MailRefused)
        assert (event.client, event.sender, event.reply.code) == (HOST, "a@example.org", 552)
        assert await refused(running) == (HOST, "MAIL FROM:<a@b@c>", "501 5.1.7 Bad sender address syntax")


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"From: a@example.org\r\n\r\nx\n.\n\r\n.\r\n", 554),
        (b"From: a@example.org\r\n\r\n" + b"x" * 1001 + b"\r\n.\r\n", 552),
        (b"BDAT 4\r\nx\n.\n", 554),
        (b"BDAT 1001 LAST\r\n" + b"x" * 1001, 552),
    ],
)
@pytest.mark.parametrize(
    ("recipients", "named"), [(["b@example.net"], "b@example.net"), (["b@example.net", "c@example.net"], "")]
)
async def test_a_message_that_is_refused_while_it_arrives_is_named_by_its_sender_and_one_recipient(
    content: bytes, code: int, recipients: list[str], named: str
) -> None:
    async with run_endpoint(max_size=1000) as running:
        client = await running.client()
        await client.hello()
        assert (await client.ask("MAIL FROM:<a@example.org>"))[:3] == "250"
        for each in recipients:
            assert (await client.ask(f"RCPT TO:<{each}>"))[:3] == "250"
        if not content.startswith(b"BDAT"):
            assert (await client.ask("DATA"))[:3] == "354"
        await client.say(content)
        assert (await client.hear())[:3] == str(code)
        (event,) = running.noted(MailRefused)
        assert (event.sender, event.recipient, event.reply.code) == ("a@example.org", named, code)


async def test_a_login_that_cannot_be_read_is_named_without_its_secrets() -> None:
    secret = base64.b64encode(b"anna-open-sesame").decode()
    async with run_endpoint(authenticator=NoLogin()) as running:
        client = await running.client()
        await client.hello()
        assert (await client.ask(f"AUTH PLAIN {secret}"))[:1] == "5"
        assert running.noted(ClientRefused) or running.noted(LoginFailed)
        assert secret not in repr(running.events)
        assert "open-sesame" not in repr(running.events)
