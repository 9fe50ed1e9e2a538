"""Mail for names of this machine at a submission endpoint: who gets it, and what is said when nobody can."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from mailrider.endpoint.aliases import Aliases
from mailrider.model.domain import Domain
from mailrider.model.endpoint_event import AliasUnusable, MailRefused
from mailrider.model.envelope import Notify, OriginalRecipient
from mailrider.model.reply import Reply
from tests.flow.endpoint.running_endpoint import MESSAGE, run_endpoint

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from mailrider.model.address import Mailbox, ReversePath
    from tests.flow.endpoint.running_endpoint import Client, RunningEndpoint

ALIASES = """
postmaster: root
root: admin@example.net
staff: ann@example.net, bob@example.net
list: ann@example.net, cat@example.net
owner-list: owner@example.net
broken: |/bin/sh
half: ann@example.net, x@closed.test
circle: round
round: circle
"""
CLOSED = Reply.make(550, "5.7.1", "closed")
ELSEWHERE = Reply.make(452, "4.5.3", "in a transaction of its own")


@asynccontextmanager
async def machine(
    folder: Path, text: str = ALIASES, **changes: object
) -> AsyncIterator[tuple[RunningEndpoint, Client]]:
    (folder / "aliases").write_text(text)
    (folder / "aliases").chmod(0o644)
    here = Domain("here.test")
    aliases = Aliases(folder / "aliases", here)

    async with run_endpoint(is_submission=True, origin=here, aliases=aliases, **changes) as running:  # type: ignore[arg-type]
        client = await running.client()
        await client.hello()
        yield running, client


async def dsn(client: Client, *lines: str, sender: str = "a@example.org") -> str:
    """A transaction with those recipients; the last reply."""
    assert (await client.ask(f"MAIL FROM:<{sender}> RET=HDRS ENVID=QQ1")).startswith("250")
    for line in lines:
        assert (await client.ask(f"RCPT TO:{line}")).startswith("250")
    await client.ask("DATA")
    await client.say(MESSAGE + b".\r\n")
    return await client.hear()


def to(running: RunningEndpoint) -> list[str]:
    return [str(each) for each in running.sink.taken[-1][0].recipients]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["root"], ["admin@example.net"]),
        (["ROOT@here.test"], ["admin@example.net"]),
        (["postmaster"], ["admin@example.net"]),
        (["nobody-knows"], ["nobody-knows@here.test"]),
        (["staff"], ["ann@example.net", "bob@example.net"]),
        (["staff", "bob@example.net", "list"], ["ann@example.net", "bob@example.net", "cat@example.net"]),
        (["root@example.org"], ["root@example.org"]),
    ],
)
async def test_names_of_this_machine_are_whom_the_aliases_say(
    tmp_path: Path, names: list[str], expected: list[str]
) -> None:
    async with machine(tmp_path) as (running, client):
        assert (await client.send(MESSAGE, *names)).startswith("250")
        assert to(running) == expected


async def test_the_received_field_tells_nobody_who_is_behind_an_alias(tmp_path: Path) -> None:
    async with machine(tmp_path) as (running, client):
        await client.send(MESSAGE, "root")
        await client.send(MESSAGE, "staff")
        (_, one), (_, several) = running.sink.taken
        assert b"for <root@here.test>" in one
        assert b"for <staff@here.test>" in several
        assert b"example.net" not in one + several


# https://github.com/foxcpp/maddy/issues/711: our own words made a message need SMTPUTF8, which its way did not have
async def test_an_alias_that_is_not_ascii_makes_no_header_that_its_targets_cannot_take(tmp_path: Path) -> None:
    async with machine(tmp_path, "bücher: ann@example.net\n") as (running, client):
        await client.ask("MAIL FROM:<a@example.org> SMTPUTF8")
        await client.ask("RCPT TO:<bücher>")
        await client.ask("DATA")
        await client.say(MESSAGE + b".\r\n")
        assert (await client.hear()).startswith("250")
        ((_, octets),) = running.sink.taken
        assert to(running) == ["ann@example.net"]
        assert octets.isascii()


async def test_the_next_message_does_not_get_the_aliases_of_the_last_one(tmp_path: Path) -> None:
    async with machine(tmp_path) as (running, client):
        await client.send(MESSAGE, "staff")
        (tmp_path / "aliases").write_text("other: dave@example.net\n")
        await client.send(MESSAGE, "staff")
        assert to(running) == ["staff@here.test"]


async def test_what_an_alias_was_at_its_rcpt_it_is_at_the_end_of_data(tmp_path: Path) -> None:
    async with machine(tmp_path) as (running, client):
        await client.ask("MAIL FROM:<a@example.org>")
        await client.ask("RCPT TO:<staff>")
        (tmp_path / "aliases").unlink()
        await client.ask("DATA")
        await client.say(MESSAGE + b".\r\n")
        assert (await client.hear()).startswith("250")
        assert to(running) == ["ann@example.net", "bob@example.net"]


@pytest.mark.parametrize(
    ("name", "reply"),
    [
        ("broken", "451 4.3.5 The alias cannot be used now: the postmaster has to correct it"),
        ("circle", "554 5.4.6 The aliases of this address lead in a circle"),
        ("half", "550 5.7.1 closed"),  # what cannot reach all is refused, so that its sender hears of it
    ],
)
async def test_an_alias_that_leads_nowhere_is_refused_and_told_of(tmp_path: Path, name: str, reply: str) -> None:
    def judge(_: ReversePath, mailbox: Mailbox, __: Mailbox | None) -> Reply | None:
        return CLOSED if str(mailbox.domain) == "closed.test" else None

    async with machine(tmp_path, judge=judge) as (running, client):
        await client.ask("MAIL FROM:<a@example.org>")
        assert (await client.ask(f"RCPT TO:<{name}>")).strip() == reply
        assert (await client.ask("RCPT TO:<root>")).startswith("250")
        (refused,) = running.noted(MailRefused)
        assert refused.recipient == f"{name}@here.test"
        reasons = [each.reason for each in running.noted(AliasUnusable)]
        assert all(str(tmp_path) in each or "circle" in each for each in reasons)
        assert len(reasons) == (name != "half")


async def test_an_alias_with_several_addresses_needs_a_queue(tmp_path: Path) -> None:
    def judge(_: ReversePath, __: Mailbox, first: Mailbox | None) -> Reply | None:
        return None if first is None else ELSEWHERE

    async with machine(tmp_path, judge=judge) as (_, client):
        await client.ask("MAIL FROM:<a@example.org>")
        assert (await client.ask("RCPT TO:<staff>")).startswith(
            "451 4.3.5 An alias with several addresses needs a queue"
        )
        assert (await client.ask("RCPT TO:<root>")).startswith("250")
        assert (await client.ask("RCPT TO:<staff>")).startswith("452 4.5.3")
        assert (await client.ask("RCPT TO:<b@example.net>")).startswith("452 4.5.3")


async def test_a_transaction_takes_no_more_than_a_thousand_addresses_by_aliases(tmp_path: Path) -> None:
    lines = [f"a{each}: {','.join(f'{each}-{number}@example.net' for number in range(600))}\n" for each in range(2)]
    async with machine(tmp_path, "".join(lines)) as (running, client):
        await client.ask("MAIL FROM:<a@example.org>")
        assert (await client.ask("RCPT TO:<a0>")).startswith("250")
        assert (await client.ask("RCPT TO:<a1>")).startswith("452 4.5.3")
        await client.ask("RSET")
        assert (await client.send(MESSAGE, "a1")).startswith("250")
        assert len(to(running)) == 600


# RFC 3461 5.2.7 ------------------------------------------------------------------------------------------------------

ORIGINAL = OriginalRecipient("rfc822", "root@here.test")
WISHES = "NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;root@here.test"


async def test_one_address_gets_all_wishes_of_the_sender(tmp_path: Path) -> None:
    async with machine(tmp_path) as (running, client):
        await dsn(client, f"<root> {WISHES}")
        envelope = running.sink.taken[-1][0]
        (recipient,) = envelope.recipients
        assert (recipient.notify, recipient.original) == (Notify.SUCCESS | Notify.FAILURE, ORIGINAL)
        assert (envelope.envid, str(envelope.sender)) == ("QQ1", "a@example.org")
        forwarding = running.sink.arrivals[-1].forwarding
        assert forwarding is not None
        assert (forwarding.owners, forwarding.expanded, forwarding.lists) == ({}, (), ())


async def test_several_addresses_get_all_but_success_and_the_sender_hears_of_that_now(tmp_path: Path) -> None:
    async with machine(tmp_path) as (running, client):
        await dsn(client, f"<staff> {WISHES}", "<root> NOTIFY=NEVER")
        ann, bob, admin = running.sink.taken[-1][0].recipients
        assert (ann.notify, ann.original) == (bob.notify, bob.original) == (Notify.FAILURE, ORIGINAL)
        assert admin.notify == Notify.NEVER
        forwarding = running.sink.arrivals[-1].forwarding
        assert forwarding is not None
        assert [str(each) for each in forwarding.expanded] == ["staff@here.test"]
        assert (forwarding.owners, forwarding.lists) == ({}, ())


@pytest.mark.parametrize("sender", ["a@example.org", ""])
async def test_members_of_a_list_with_an_owner_have_the_owner_as_sender(tmp_path: Path, sender: str) -> None:
    async with machine(tmp_path) as (running, client):
        await dsn(client, f"<list> {WISHES}", sender=sender)
        ann, cat = running.sink.taken[-1][0].recipients
        forwarding = running.sink.arrivals[-1].forwarding
        assert forwarding is not None
        if sender:
            assert (ann.notify, ann.original, cat.notify, cat.original) == (None, None, None, None)
            assert {str(each): str(owner) for each, owner in forwarding.owners.items()} == {
                "ann@example.net": "owner@example.net",
                "cat@example.net": "owner@example.net",
            }
            assert [str(each) for each in forwarding.lists] == ["list@here.test"]
        else:  # a notification keeps its null sender, so that none follows
            assert forwarding.owners == {}


async def test_who_is_named_himself_stays_the_senders_business(tmp_path: Path) -> None:
    async with machine(tmp_path) as (running, client):
        await dsn(client, "<ann@example.net> NOTIFY=FAILURE", "<list>")
        ann, _ = running.sink.taken[-1][0].recipients
        assert ann.notify == Notify.FAILURE
        forwarding = running.sink.arrivals[-1].forwarding
        assert forwarding is not None
        assert [str(each) for each in forwarding.owners] == ["cat@example.net"]
