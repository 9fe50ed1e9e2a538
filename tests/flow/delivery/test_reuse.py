"""Kept connections, limits and the connection budget, on real sockets, as a library user meets them."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

import mailrider
from mailrider.delivery.settings import MAX_CONNECTIONS_PER_HOST
from mailrider.lab.ca import CA
from mailrider.lab.mx_script import MXTLS, Close, DelayedReply, MXScript, Stage, stage_of
from mailrider.model.event import ConnectionClosed, LimitReached
from mailrider.smtp.capabilities import FULL_OFFER
from mailrider.smtp.commands import Mail, Quit
from tests.flow.delivery.internet import FewDomains, internet, outcome, stages

if TYPE_CHECKING:
    from mailrider.lab.mx import LabMX
    from mailrider.lab.mx_connection import LabConnection
    from mailrider.model.event import Event
    from mailrider.smtp.commands import Command

GOOD = MXScript()


def transactions(mx: LabMX) -> list[int]:
    """How many MAIL each connection heard."""
    return [sum(isinstance(command, Mail) for command in each.commands) for each in mx.connections]


def said_quit(mx: LabMX) -> list[bool]:
    """Which connections ended with QUIT."""
    return [any(isinstance(command, Quit) for command in each.commands) for each in mx.connections]


def is_idle(connection: LabConnection) -> bool:
    """Whether the server has read nothing since it answered the end of a message."""
    ended = connection.commands and stage_of(connection.commands[-1]) is Stage.END
    return bool(ended and connection.transcript[-1].who == "S")


def closed_because(events: list[Event]) -> list[str]:
    return [event.reason for event in events if isinstance(event, ConnectionClosed)]


# Reuse ----------------------------------------------------------------------------------------------------------------


async def test_ten_messages_to_a_domain_take_one_connection_and_the_eleventh_another() -> None:
    async with internet({"a.test": [GOOD]}) as net:
        for number in range(11):
            assert outcome(await net.send_one(f"x{number}@a.test"))[0] == "delivered"
        assert transactions(net.mx("a.test")) == [10, 1]
    assert said_quit(net.mx("a.test")) == [True, True]


async def test_conn_reuse_limit() -> None:
    async with internet({"a.test": [GOOD]}, directives={"conn_reuse_limit": 2}) as net:
        for _ in range(5):
            await net.send_one("x@a.test")
        assert transactions(net.mx("a.test")) == [2, 2, 1]


async def test_mailmax_lowers_the_reuse_limit() -> None:
    script = MXScript(offer=replace(FULL_OFFER, max_transactions=3))
    async with internet({"a.test": [script]}) as net:
        for _ in range(4):
            assert outcome(await net.send_one("x@a.test"))[0] == "delivered"
        assert transactions(net.mx("a.test")) == [3, 1]


async def test_an_idle_connection_is_closed_with_quit_after_its_time() -> None:
    async with internet({"a.test": [GOOD]}, directives={"conn_max_idle_time": "100ms"}) as net:
        await net.send_one("x@a.test")
        await net.mx("a.test").wait_closed()
        assert said_quit(net.mx("a.test")) == [True]
        assert closed_because(net.events) == ["it was idle long enough"]


@pytest.mark.parametrize("directives", [{"conn_max_idle_time": 0}, {"conn_max_idle_count": 0}], ids=["time", "count"])
async def test_without_idle_time_or_count_nothing_is_kept(directives: dict[str, Any]) -> None:
    async with internet({"a.test": [GOOD]}, directives=directives) as net:
        for _ in range(2):
            await net.send_one("x@a.test")
            await net.mx("a.test").wait_closed()
        assert transactions(net.mx("a.test")) == [1, 1]


FAILED = {
    "DATA is refused": MXScript(offer=replace(FULL_OFFER, chunking=False), replies={Stage.DATA: ["451 4.3.0 no"]}),
    "the message is refused": MXScript(replies={Stage.END: ["554 5.6.0 no"]}),
}


@pytest.mark.parametrize("script", FAILED.values(), ids=FAILED)
async def test_a_connection_whose_data_failed_is_never_used_again(script: MXScript) -> None:
    async with internet({"a.test": [script]}) as net:
        assert outcome(await net.send_one("x@a.test"))[0] != "delivered"
        assert outcome(await net.send_one("x@a.test"))[0] == "delivered"
        assert transactions(net.mx("a.test")) == [1, 1]
        assert said_quit(net.mx("a.test"))[0]


async def test_a_connection_on_which_all_recipients_were_refused_is_as_good_as_before() -> None:
    script = MXScript(recipients={"nobody@a.test": "550 5.1.1 Nobody"})
    async with internet({"a.test": [script]}) as net:
        assert outcome(await net.send_one("nobody@a.test"))[0] == "failed"
        assert outcome(await net.send_one("x@a.test"))[0] == "delivered"
        assert transactions(net.mx("a.test")) == [2]


async def test_a_server_that_closes_with_its_reply_costs_the_next_message_nothing() -> None:
    script = MXScript(replies={Stage.END: [Close("250 2.0.0 Ok and bye")]})
    async with internet({"a.test": [script]}) as net:
        for _ in range(2):
            result = await net.send_one("x@a.test")
            assert stages(result) == ["delivered"]
        assert transactions(net.mx("a.test")) == [1, 1]


async def test_at_the_end_all_connections_are_closed_with_quit() -> None:
    async with internet({"a.test": [GOOD], "b.test": [GOOD]}) as net:
        await net.send("x@a.test", "x@b.test")
        await net.remote.__aexit__()
        for domain in ("a.test", "b.test"):
            await net.mx(domain).wait_closed()
            assert said_quit(net.mx(domain)) == [True]


@pytest.mark.parametrize("tls", [False, True], ids=["in clear", "with TLS"])
async def test_a_server_that_keeps_closing_idle_connections_loses_and_doubles_nothing(tls: bool) -> None:
    """It closes whatever is idle every few turns of the event loop, while messages come one after the other."""
    script = MXScript(tls=MXTLS(CA().issue(["mx0.a.test"])) if tls else None)
    async with internet({"a.test": [script]}, directives={"conn_reuse_limit": 1000}) as net:
        mx = net.mx("a.test")

        async def close_what_is_idle() -> None:
            rng = random.Random(1)
            while True:
                for _ in range(rng.randrange(1, 30)):
                    await asyncio.sleep(0)
                for connection in mx.connections:
                    if connection.is_open and is_idle(connection):
                        await connection.close()

        closing = asyncio.ensure_future(close_what_is_idle())
        results = [await net.send_one(f"x{number}@a.test") for number in range(150)]
        closing.cancel()
        assert {tuple(stages(result)) for result in results} == {("delivered",)}
        arrived = [message.addresses[0] for message in mx.messages]
        assert sorted(arrived) == sorted(f"x{number}@a.test" for number in range(150))
        assert mx.opened > 1, "it did close some"


# Many messages, many destinations -------------------------------------------------------------------------------------


async def test_many_recipients_of_a_domain_share_a_transaction_and_domains_do_not_wait_for_each_other() -> None:
    slow = MXScript(replies={Stage.END: DelayedReply(30.0)})
    async with internet({"slow.test": [slow], "quick.test": [GOOD]}) as net:
        recipients = [f"x{number}@{domain}.test" for number in range(5) for domain in ("slow", "quick")]
        sending = asyncio.ensure_future(net.send(*recipients))
        message = await net.mx("quick.test").wait_message()
        assert message.addresses == [f"x{number}@quick.test" for number in range(5)]
        assert not sending.done()
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


async def test_hundreds_of_messages_at_once_stay_within_the_connection_budget_of_a_host() -> None:
    open_connections = []

    def count(_: Command) -> None:
        open_connections.append(net.mx("a.test").open_connections)

    script = MXScript(replies={Stage.MAIL: count, Stage.END: DelayedReply(0.01)})
    async with internet({"a.test": [script]}) as net:
        results = await asyncio.gather(*(net.send_one(f"x{number}@a.test") for number in range(300)))
        assert {result.status.value for result in results} == {"delivered"}
        assert max(open_connections) == MAX_CONNECTIONS_PER_HOST
        assert net.mx("a.test").accepted == 300
        assert net.mx("a.test").opened <= 300 // 10 + MAX_CONNECTIONS_PER_HOST


async def test_more_connections_than_the_configuration_allows_are_never_opened_to_a_host() -> None:
    open_connections = []

    def count(_: Command) -> None:
        open_connections.append(net.mx("a.test").open_connections)

    script = MXScript(replies={Stage.MAIL: count, Stage.END: DelayedReply(0.01)})
    async with internet({"a.test": [script]}, directives={"max_connections_per_host": 3}) as net:
        results = await asyncio.gather(*(net.send_one(f"x{number}@a.test") for number in range(30)))
        assert {result.status.value for result in results} == {"delivered"}
        assert max(open_connections) == 3


async def test_a_slow_host_does_not_hold_up_another() -> None:
    slow, quick = MXScript(replies={Stage.END: DelayedReply(30.0)}), MXScript()
    async with internet({"slow.test": [slow], "quick.test": [quick]}) as net:
        stuck = [asyncio.ensure_future(net.send_one(f"x{number}@slow.test")) for number in range(50)]
        await net.mx("slow.test").wait_connection(MAX_CONNECTIONS_PER_HOST)
        assert outcome(await net.send_one("x@quick.test"))[0] == "delivered"
        for task in stuck:
            task.cancel()
        await asyncio.gather(*stuck, return_exceptions=True)
        await net.mx("slow.test").wait_closed()


# Limits ---------------------------------------------------------------------------------------------------------------


async def test_a_direct_send_that_is_held_back_is_deferred_445_and_nothing_was_tried() -> None:
    limits = mailrider.Limits(destination=["rate 2 1h"])
    async with internet({"a.test": [GOOD], "b.test": [GOOD]}, directives={"limits": limits}) as net:
        results = [await net.send_one("x@a.test") for _ in range(3)]
        assert [outcome(result) for result in results] == [("delivered", 250, "2.0.0")] * 2 + [
            ("deferred", 451, "4.4.5")
        ]
        assert results[2].attempts == ()
        assert net.mx("a.test").accepted == 2
        assert outcome(await net.send_one("x@b.test"))[0] == "delivered"
        assert [event for event in net.events if isinstance(event, LimitReached)]


async def test_one_domain_of_a_message_may_be_held_back_and_another_not() -> None:
    limits = mailrider.Limits(destination=["rate 1 1h"])
    async with internet({"a.test": [GOOD], "b.test": [GOOD]}, directives={"limits": limits}) as net:
        await net.send_one("x@a.test")
        report = await net.send("x@a.test", "x@b.test", "y@a.test")
        assert [result.status.value for result in report] == ["deferred", "delivered", "deferred"]


async def test_a_direct_send_waits_a_little_for_its_turn() -> None:
    limits = mailrider.Limits(all=["rate 1 200ms"])
    async with internet({"a.test": [GOOD]}, directives={"limits": limits}) as net:
        results = await asyncio.gather(*(net.send_one("x@a.test") for _ in range(4)))
        assert {outcome(result)[0] for result in results} == {"delivered"}


async def test_concurrency_holds_on_the_wire() -> None:
    inside = []

    def count(_: Command) -> None:
        inside.append(net.mx("a.test").open_connections)

    script = MXScript(replies={Stage.MAIL: count, Stage.END: DelayedReply(0.01)})
    limits = mailrider.Limits(source=["concurrency 3"])
    async with internet({"a.test": [script]}, directives={"limits": limits}) as net:
        results = await asyncio.gather(*(net.send_one("x@a.test") for _ in range(30)))
        assert {outcome(result)[0] for result in results} == {"delivered"}
        assert max(inside) == 3


async def test_a_quarantined_message_uses_up_no_limit() -> None:
    limits = mailrider.Limits(all=["rate 1 1h"])
    async with internet({"a.test": [GOOD]}, directives={"limits": limits}) as net:
        assert outcome(await net.send_one("x@a.test", quarantine=True)) == ("failed", 550, "5.7.0")
        assert outcome(await net.send_one("x@a.test"))[0] == "delivered"


async def test_a_connection_on_which_a_server_takes_one_domain_is_for_that_domain_alone() -> None:
    async with internet({"a.test": [FewDomains(1).script]}, {"b.test": {"MX": "0 mx0.a.test"}}) as net:
        for recipient in ("x@a.test", "y@a.test", "x@b.test"):
            assert outcome(await net.send_one(recipient))[0] == "delivered"
        assert transactions(net.mx("a.test")) == [2, 1]


async def test_a_connection_on_which_a_server_takes_two_domains_is_used_for_two() -> None:
    others = {"b.test": {"MX": "0 mx0.a.test"}, "c.test": {"MX": "0 mx0.a.test"}}
    async with internet({"a.test": [FewDomains(2).script]}, {**others}) as net:
        for recipient in ("x@a.test", "x@b.test", "y@a.test", "y@b.test", "x@c.test", "z@a.test"):
            assert outcome(await net.send_one(recipient))[0] == "delivered"
        assert transactions(net.mx("a.test")) == [4, 2]


async def test_of_a_message_for_several_domains_a_connection_has_room_for_the_one_that_it_carries() -> None:
    async with internet({"a.test": [FewDomains(1).script], "b.test": [MXScript()]}) as net:
        assert outcome(await net.send_one("x@a.test"))[0] == "delivered"
        for each in await net.send("y@a.test", "x@b.test"):
            assert outcome(each)[0] == "delivered"
        assert transactions(net.mx("a.test")) == [2]
