"""Silence and slowness, each ended by its own timer."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from mailrider.lab.mx_script import MXTLS, DelayedReply, MXScript, Silence, SlowReply, Stage, Stall, TLSFault
from mailrider.lab.zones import Fault, Records
from mailrider.smtp.capabilities import Capabilities
from tests.flow.delivery.internet import UNANSWERING, internet, outcome, stages

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mailrider.app.submission import Result
    from mailrider.lab.mx_script import Action
    from mailrider.lab.zones import ZoneTable
    from tests.flow.delivery.internet import Shut

# Longer than a test may take: what waits for one of these does not end.
LONG = {"connect_timeout": 600, "command_timeout": 600, "submission_timeout": 600}
PIPELINING = Capabilities(pipelining=True)
BIG = b"Subject: x\r\n\r\n" + b"y" * 20_000_000 + b"\r\n"  # more than the kernel holds for a server that does not read


async def send(
    script: MXScript | Shut, timer: str, seconds: float = 0.25, message: bytes = b"Subject: x\r\n\r\n"
) -> Result:
    """A delivery in which that timer alone is short; it must end because of it, and not before."""
    async with internet({"a.test": [script]}, directives=LONG | {timer: seconds}) as net:
        began = time.monotonic()
        result = await net.send_one("x@a.test", message)
        assert time.monotonic() - began >= seconds
    return result


def at(stage: Stage, action: Action, **more: Capabilities) -> MXScript:
    return MXScript(replies={stage: action}, **more)  # type: ignore[arg-type]


async def test_connecting_has_connect_timeout() -> None:
    assert outcome(await send(UNANSWERING, "connect_timeout")) == ("deferred", 451, "4.4.1")


async def test_the_address_lookup_has_connect_timeout_too() -> None:
    zones: ZoneTable = {"a.test": {"MX": "10 mx.test"}, "mx.test": {"A": Records(["127.0.0.1"], delay=30)}}
    async with internet({}, zones, LONG | {"connect_timeout": 0.25}) as net:
        result = await net.send_one("x@a.test")
    assert (outcome(result), stages(result)) == (("deferred", 451, "4.4.3"), ["lookup"])


COMMANDS: Mapping[str, MXScript] = {
    "EHLO": at(Stage.EHLO, Silence()),
    "STARTTLS": MXScript(tls=MXTLS(fault=TLSFault.SILENCE), replies={Stage.STARTTLS: Silence()}),
    "the TLS handshake": MXScript(tls=MXTLS(fault=TLSFault.SILENCE)),
    "MAIL": at(Stage.MAIL, Silence()),
    "RCPT": at(Stage.RCPT, Silence(), offer=Capabilities()),
    "DATA": at(Stage.DATA, Silence(), offer=PIPELINING),
}


@pytest.mark.parametrize("script", COMMANDS.values(), ids=COMMANDS)
async def test_every_command_has_command_timeout(script: MXScript) -> None:
    result = await send(script, "command_timeout")
    assert (result.status, result.reply.code, result.in_doubt) == ("deferred", 451, False)


@pytest.mark.parametrize("offer", [PIPELINING, Capabilities(chunking=True)], ids=["DATA", "BDAT"])
async def test_the_final_dot_has_submission_timeout(offer: Capabilities) -> None:
    result = await send(at(Stage.END, Silence(), offer=offer), "submission_timeout")
    assert (outcome(result), result.in_doubt) == (("deferred", 451, "4.4.2"), True)


@pytest.mark.parametrize("offer", [PIPELINING, Capabilities(chunking=True)], ids=["DATA", "BDAT"])
async def test_each_64_kib_of_content_has_command_timeout(offer: Capabilities) -> None:
    script = MXScript(offer=offer, content=Stall(), content_after=100_000)
    result = await send(script, "command_timeout", message=BIG)
    assert (outcome(result), result.in_doubt) == (("deferred", 451, "4.4.2"), False)


@pytest.mark.parametrize("stage", [Stage.EHLO, Stage.MAIL, Stage.DATA], ids=lambda stage: stage.name)
async def test_a_reply_an_octet_at_a_time_is_as_slow_as_none(stage: Stage) -> None:
    script = at(stage, SlowReply(f"250 {'x' * 400}", seconds=0.05), offer=PIPELINING)
    result = await send(script, "command_timeout", 0.5)
    assert (result.status, result.reply.code) == ("deferred", 451)


async def test_a_reply_that_comes_late_but_in_time_is_a_reply() -> None:
    script = MXScript(replies=dict.fromkeys((Stage.CONNECT, Stage.EHLO, Stage.MAIL, Stage.END), DelayedReply(0.1)))
    async with internet({"a.test": [script]}, directives=LONG) as net:
        assert (await net.send_one("x@a.test")).status == "delivered"


async def test_dns_has_its_own_time() -> None:
    async with internet({}, {"a.test": {"MX": Fault.SILENT}}, LONG, dns_timeout=1) as net:
        assert outcome(await net.send_one("x@a.test")) == ("deferred", 451, "4.4.3")


async def test_a_delivery_that_is_cancelled_leaves_no_connection() -> None:
    async with internet({"a.test": [at(Stage.MAIL, Silence())]}, directives=LONG) as net:
        sending = asyncio.create_task(net.send_one("x@a.test"))
        await net.mx("a.test").wait_connection()
        sending.cancel()
        await asyncio.wait([sending])
        await net.mx("a.test").wait_closed()
    assert sending.cancelled()
