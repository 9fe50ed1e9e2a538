"""mailrider in a program: configurations by name, listeners, and what happens to those who err."""

from __future__ import annotations

import asyncio
import socket
from email.message import EmailMessage
from typing import TYPE_CHECKING, Any

import pytest

import mailrider
from mailrider.delivery.remote import RemoteDelivery
from mailrider.lab.dns import LabDNS
from mailrider.lab.mx import LabMX
from mailrider.lab.mx_script import MXScript
from mailrider.model.event import Bug, LimitReached, RecipientSettled
from tests.flow.delivery.internet import internet, outcome
from tests.support.loopback import new_address

if TYPE_CHECKING:
    from pathlib import Path

    from mailrider.lab.zones import ZoneTable
    from mailrider.model.event import Event

GOOD = MXScript()
CONFIGURATION = """
hostname client.test
dns {{ server {dns} }}
target.remote outbound {{
    port {port}
    prohibited_addresses none
}}
target.remote other {{
    hostname other.test
    port {port}
    prohibited_addresses none
}}
"""

FIXED = """
hostname client.test
dns {{ server {dns} }}
target.{kind} smart {{
    host tcp://smart.test:{port}
    starttls no
}}
"""


async def test_a_report_has_a_result_per_recipient_in_order_with_what_the_specification_names() -> None:
    async with internet({"a.test": [GOOD]}) as net:
        report = await net.remote.send(
            b"Subject: x\r\n\r\n", sender="s@client.test", recipients=["x@a.test", "x@missing.test", "no"]
        )
    delivered, failed, refused = report
    assert (delivered.recipient, delivered.status, delivered.mx) == ("x@a.test", "delivered", "mx0.a.test")
    assert (delivered.reply.code, str(delivered.reply.enhanced), delivered.in_doubt) == (250, "2.0.0", False)
    assert delivered.security.mx_level is mailrider.MXLevel.NONE
    assert delivered.security.tls_level is mailrider.TLSLevel.NONE
    assert (failed.status, failed.reply.text) == ("failed", "The recipient's domain does not exist")
    assert refused.status is mailrider.Status.FAILED


async def test_an_email_message_is_sent() -> None:
    message = EmailMessage()
    message["Subject"] = "Grüße"
    message.set_content("hello\n.\n")
    async with internet({"a.test": [GOOD]}) as net:
        (result,) = await net.remote.send(message, "s@client.test", ["x@a.test"])
        content = net.mx("a.test").messages[0].content
    assert result.status == "delivered"
    assert b"Subject: =?utf-8?" in content
    assert content.endswith(b"\r\n\r\nhello\r\n.\r\n")


async def test_a_target_of_a_configuration_is_used_by_its_name(tmp_path: Path) -> None:
    async with internet({"a.test": [GOOD]}) as net:
        file = tmp_path / "mailrider.conf"
        file.write_text(CONFIGURATION.format(dns=net.dns.server, port=net.port))
        configuration = mailrider.load(file)
        for name, hostname in {"outbound": "client.test", "other": "other.test"}.items():
            async with configuration.target(name, mailrider.Remote) as remote:
                (result,) = await remote.send(b"Subject: x\r\n\r\n", "s@client.test", ["x@a.test"])
            assert result.status == "delivered"
            assert f"EHLO {hostname}\r\n".encode() in net.mx("a.test").connections[-1].said()
        with pytest.raises(mailrider.ConfigError, match="outbond"):
            configuration.target("outbond")
        with pytest.raises(mailrider.ConfigError, match=r"target\.remote outbound is a Remote, not a Queue"):
            configuration.target("outbound", mailrider.Queue)


@pytest.mark.parametrize(("kind", "greeting"), [("smtp", "EHLO"), ("lmtp", "LHLO")])
async def test_fixed_servers_of_a_configuration_are_used_by_their_target_s_name(
    kind: str, greeting: str, tmp_path: Path
) -> None:
    file = tmp_path / "mailrider.conf"
    async with LabMX(MXScript(lmtp=kind == "lmtp"), new_address()) as server:
        async with LabDNS({"smart.test": {"A": server.address}}, new_address()) as dns:
            file.write_text(FIXED.format(dns=dns.server, kind=kind, port=server.port))
            async with mailrider.load(file).target("smart") as target:
                assert isinstance(target, mailrider.Smarthost)
                (result,) = await target.send(b"Subject: x\r\n\r\n", sender="s@client.test", recipients=["x@a.test"])
        assert (result.recipient, result.status, result.mx) == ("x@a.test", "delivered", "smart.test")
        assert f"{greeting} client.test\r\n".encode() in server.connections[-1].said()


async def test_a_queue_of_a_configuration_is_used_by_its_name(tmp_path: Path) -> None:
    async with internet({"a.test": [GOOD]}) as net:
        file = tmp_path / "mailrider.conf"
        text = CONFIGURATION.format(dns=net.dns.server, port=net.port)
        file.write_text(f"state_dir {tmp_path}\n{text}target.queue outqueue {{ target &outbound }}\n")
        async with mailrider.load(file).target("outqueue", mailrider.Queue) as queue:
            assert await queue.submit(b"Subject: x\r\n\r\n", sender="s@client.test", recipients=["x@a.test"])
            await queue.idle()
            with pytest.raises(RuntimeError, match="entered already"):
                await queue.__aenter__()
        assert net.mx("a.test").accepted == 1


def test_all_errors_of_a_configuration_are_raised_at_once(tmp_path: Path) -> None:
    file = tmp_path / "mailrider.conf"
    file.write_text("hostnam a.test\ntarget.remote x { port zero }\n")
    with pytest.raises(mailrider.ConfigError) as caught:
        mailrider.load(file)
    assert [problem.line for problem in caught.value.problems[:2]] == [1, 2]
    with pytest.raises(mailrider.ConfigError, match="nowhere"):
        mailrider.load(tmp_path / "nowhere")


async def test_wrong_arguments_raise_and_nothing_is_sent() -> None:
    wrong: list[dict[str, Any]] = [{"recipients": "x@a.test"}, {"recipients": []}, {"message": "x"}, {"sender": None}]
    async with internet({"a.test": [GOOD]}) as net:
        for arguments in wrong:
            usual: dict[str, Any] = {"message": b"Subject: x\r\n\r\n", "sender": "s@b.test", "recipients": ["x@a.test"]}
            with pytest.raises((TypeError, ValueError)):
                await net.remote.send(**usual | arguments)
        assert not net.dns.queries


async def test_a_listener_hears_every_event() -> None:
    async with internet({"a.test": [GOOD]}) as net:
        await net.send("x@a.test", "x@missing.test")
    settled = [event.outcome.status for event in net.events if isinstance(event, RecipientSettled)]
    assert sorted(settled) == ["delivered", "failed"]


async def test_a_listener_that_raises_stops_no_mail() -> None:
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))

    def listener(_: Event) -> None:
        raise ZeroDivisionError

    async with internet({"a.test": [GOOD]}) as net:
        remote = mailrider.Remote(net.remote.settings, on_event=listener)
        async with remote:
            (result,) = await remote.send(b"Subject: x\r\n\r\n", "s@client.test", ["x@a.test"])
    assert result.status == "delivered"
    assert {type(context["exception"]) for context in told} == {ZeroDivisionError}
    assert "on_event raised for RecipientSettled" in [context["message"] for context in told]


async def test_a_remote_may_be_entered_again_but_not_twice_at_once() -> None:
    async with internet({"a.test": [GOOD]}) as net:
        with pytest.raises(RuntimeError, match="entered already"):
            await net.remote.__aenter__()
        remote = mailrider.Remote(net.remote.settings)
        for _ in range(2):
            async with remote:
                (result,) = await remote.send(b"Subject: x\r\n\r\n", "s@client.test", ["x@a.test"])
            assert result.status == "delivered"
        with pytest.raises(RuntimeError, match="async with"):
            await remote.send(b"Subject: x\r\n\r\n", "s@client.test", ["x@a.test"])


async def test_many_messages_may_be_sent_at_once() -> None:
    async with internet({f"{n}.test": [GOOD] for n in range(5)}) as net:
        reports = await asyncio.gather(*(net.send(f"{n}@{n % 5}.test") for n in range(50)))
        assert sum(server.accepted for server in net.servers) == 50
    assert {result.status.value for report in reports for result in report} == {"delivered"}


async def test_a_bug_around_an_attempt_defers_its_domain_only(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = RemoteDelivery.destination

    async def destination(delivery: RemoteDelivery, next_hop: Any, *about: Any) -> Any:
        if str(next_hop) == "b.test":
            raise ZeroDivisionError
        return await usual(delivery, next_hop, *about)

    monkeypatch.setattr(RemoteDelivery, "destination", destination)
    async with internet({"a.test": [GOOD]}) as net:
        a, b = await net.send("x@a.test", "x@b.test")
    assert (a.status, b.status, b.reply.code, str(b.reply.enhanced)) == ("delivered", "deferred", 451, "4.3.0")


async def test_the_targets_of_a_configuration_share_its_named_limits(tmp_path: Path) -> None:
    events: list[Event] = []
    async with internet({"a.test": [GOOD]}) as net:
        file = tmp_path / "mailrider.conf"
        file.write_text(
            f"""hostname client.test
            state_dir {tmp_path}
            dns {{
                server {net.dns.server}
            }}
            limits narrow {{
                all rate 2 1h
            }}
            target.remote one {{
                port {net.port}
                prohibited_addresses none
                limits &narrow
            }}
            target.remote two {{
                port {net.port}
                prohibited_addresses none
                limits &narrow
            }}
            target.queue mail {{
                target &two
            }}
            """
        )
        loaded = mailrider.load(file)
        statuses = []
        for name in ("one", "two", "one"):
            async with loaded.target(name, mailrider.Remote) as target:
                (result,) = await target.send(b"Subject: x\r\n\r\n", "s@client.test", ["x@a.test"])
                statuses.append((result.status.value, str(result.reply.enhanced)))
        assert statuses == [("delivered", "2.0.0"), ("delivered", "2.0.0"), ("deferred", "4.4.5")]
        async with loaded.queue("mail", on_event=events.append) as queue:
            await queue.submit(b"Subject: x\r\n\r\n", "s@client.test", ["x@a.test"])
            await queue.idle()
        assert [event.scope for event in events if isinstance(event, LimitReached)] == ["all"]
        async with mailrider.load(file).target("one", mailrider.Remote) as target:
            (result,) = await target.send(b"Subject: x\r\n\r\n", "s@client.test", ["x@a.test"])
        assert result.status == "delivered", "another configuration, another block"


async def test_a_listener_that_raises_cancelled_cancels_no_mail() -> None:
    def listener(_: Event) -> None:
        raise asyncio.CancelledError

    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    async with (
        internet({"a.test": [GOOD]}) as net,
        mailrider.Remote(net.remote.settings, on_event=listener) as remote,
    ):
        (result,) = await remote.send(b"Subject: x\r\n\r\n", "s@client.test", ["x@a.test"])
    assert result.status == "delivered"


async def test_a_remote_is_of_no_use_in_another_event_loop_and_says_so() -> None:
    async with internet({"a.test": [GOOD]}) as net:

        def elsewhere() -> None:
            with pytest.raises(RuntimeError, match="this Remote was entered in another event loop"):
                asyncio.run(net.remote.send(b"Subject: x\r\n\r\n", "s@client.test", ["x@a.test"]))

        await asyncio.to_thread(elsewhere)
        assert net.mx("a.test").opened == 0


async def test_a_queue_is_of_no_use_in_another_event_loop_and_says_so(tmp_path: Path) -> None:
    async with mailrider.Queue(location=tmp_path, hostname="client.test", deliver=False) as queue:

        def elsewhere() -> None:
            submitted = queue.submit(b"Subject: x\r\n\r\n", "s@client.test", ["x@a.test"])
            for use in (submitted, queue.idle(), queue.drain(), queue.cancel(queue.new_id()), queue.list()):
                with pytest.raises(RuntimeError, match="this Queue was entered in another event loop"):
                    asyncio.run(use)

        await asyncio.to_thread(elsewhere)


async def test_closing_while_a_policy_is_looked_up_is_a_shutdown_and_no_bug() -> None:
    address = new_address()
    with socket.create_server((address, 0)) as silent:
        silent.setblocking(False)
        zones: ZoneTable = {
            "_mta-sts.a.test": {"TXT": "v=STSv1; id=1"},
            "mta-sts.a.test": {"A": address},
        }
        policy = mailrider.MTASTS(cache="ram", https_port=silent.getsockname()[1])
        async with internet({"a.test": [GOOD]}, zones, {"mx_auth": [policy]}) as net:
            sending = asyncio.create_task(net.send_one("x@a.test"))
            connection, _ = await asyncio.get_running_loop().sock_accept(silent)
            with connection:
                await net.remote.__aexit__(None, None, None)
                result = await sending
    assert outcome(result) == ("deferred", 451, "4.3.2")
    assert not any(isinstance(event, Bug) for event in net.events)
