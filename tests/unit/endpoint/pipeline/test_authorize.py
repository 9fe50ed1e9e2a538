"""`authorize_sender`: who logged in may send under which addresses."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mailrider.endpoint.pipeline.authorize import LOGIN_FIRST, AuthorizeSender, AuthorizeSettings, Rights
from mailrider.endpoint.pipeline.check import Arrival, CheckAction
from mailrider.model.address import ReversePath
from mailrider.settings.directive import InvalidSetting
from mailrider.smtp.content import Content
from tests.support.queueing import envelope

USERS = ("alice alice@example.org Sales@Example.org", "alice example.net", "carol@Example.org example.org", "root *")


HEADER = "From: alice@example.org\r\n"


async def verdict(user: str | None, sender: str, header: str = HEADER, *, check_header: bool = True) -> str:
    """`pass`, or the code of the refusal."""
    check = AuthorizeSender(AuthorizeSettings(user=USERS, check_header=check_header))
    content = Content.inspect(
        f"{header}Subject: x\r\n\r\nFrom: mallory@evil.test\r\n".encode("utf-8", "surrogateescape")
    )
    given = replace(envelope("b@example.com"), sender=ReversePath.parse(sender))
    found = await check.examine(given, content, Arrival(user=user))
    return "pass" if found.action is CheckAction.PASS else str(found.refusal and found.refusal.code)


@pytest.mark.parametrize(
    ("user", "sender", "expected"),
    [
        ("alice", "alice@example.org", "pass"),
        ("alice", "ALICE@EXAMPLE.ORG", "pass"),
        ("alice", "sales@example.org", "pass"),
        ("alice", "anything@example.net", "pass"),
        ("alice", "bob@example.org", "550"),
        ("alice", "alice@sub.example.net", "550"),
        ("alice", "", "pass"),  # nobody is named
        ("root", "anybody@anywhere.test", "pass"),
        ("bob", "bob@example.org", "550"),  # whose domain would it be?
        ("bob@example.org", "bob@example.org", "pass"),
        ("bob@example.org", "Bob@Example.org", "pass"),
        ("bob@example.org", "alice@example.org", "550"),
        ("jörg@example.org", "JÖRG@example.org", "pass"),
        ("\N{KELVIN SIGN}im@example.org", "kim@example.org", "550"),  # CVE-2019-19844: in lower case they are the same
        ("kim@example.org", "\N{KELVIN SIGN}im@example.org", "550"),
        ("bob@", "bob@example.org", "550"),
        ("carol@EXAMPLE.org", "sales@example.org", "pass"),
        (None, "alice@example.org", "530"),
        (None, "", "530"),
    ],
)
async def test_the_sender_of_the_envelope_is_the_users_own(user: str | None, sender: str, expected: str) -> None:
    assert await verdict(user, sender, check_header=False) == expected


OWN = [
    "From: Alice <alice@example.org>",
    'From: "boss@example.org" <alice@example.org>',
    "From: alice@example.org, anything@example.net",
    "From: alice@example.org,",
    "From: ,, alice@example.org ,,",
    "From: alice@example.org (Alice, of sales)",
    "From: alice@example.org (boss@example.org, <boss@example.org>)",
    "From: alice@example.org <alice@example.org>",
    "From: ALICE@example.org <alice@example.org>",
    "From: Team: alice@example.org, sales@example.org;",
    "From:\r\n\tAlice\r\n <alice@example.org>",
    "from : alice@example.org",
    "From: alice@example.org\r\nSender: sales@example.org",
    "From: alice@example.org\r\nReply-To: boss@example.org",
    "From: =?utf-8?q?boss?= <alice@example.org>",
]
FOREIGN = [
    "From: Boss <boss@example.org>",
    "From: alice@example.org, boss@example.org",
    "From: alice@example.org\r\nFrom: boss@example.org",
    "From: alice@example.org\r\nFrom: alice@example.org",  # RFC 5322 3.6: readers differ in which one they show
    "From: alice@example.org\r\nfrom : alice@example.org",
    "From: alice@example.org\r\nSender: alice@example.org\r\nSender: alice@example.org",
    "From: boss@example.org\r\nSender: alice@example.org",
    "From: alice@example.org\r\nSender: boss@example.org",
    "From: alice@example.org\r\nSender:",
    "From: alice@example.org\r\n sales@example.org",
    "From: alice@example.org sales@example.org",
    "From: alice@example.org)boss@example.org",
    "From: alice@example.org, boss@example.org,",
    "From: (alice@example.org) boss@example.org",
    "From: (alice@example.org boss@example.org",
    "From: boss@example.org <alice@example.org>",
    "From: alice@example.org <boss@example.org>",
    "From: alice@example.org boss@example.org <alice@example.org>",
    "From: <boss@example.org> <alice@example.org>",
    "From: <alice@example.org> boss@example.org",
    "From: <<alice@example.org>>",
    "From: <alice@example.org",
    "From: alice@example.org>",
    'From: "alice@example.org" boss@example.org',
    'From: "alice@example.org',
    'From: alice@example.org" <boss@example.org>',
    'From: "alice"@example.org"@evil.test',
    "From: alice@example.org@evil.test",
    "From: <@evil.test:alice@example.org>",
    "From: alice @example.org",
    "From: alice@(evil.test)example.org",
    "From: Team: alice@example.org, boss@example.org;",
    "From: Team: alice@example.org; boss@example.org",
    "From: boss@example.org: alice@example.org;",
    'From: "boss@example.org x"@example.net',
    "From: =?utf-8?q?boss=40example.org=3E=00?=@example.net",
    "From: alice@example.org; boss@example.org",
    "From: undisclosed:;",
    "From: <>",
    "From: Alice",
    "From: ,",
    "From:",
    "From: \udcff@example.net",
    "From: alice@example.org\x00",
    "Reply-To: alice@example.org",  # no From at all
    "X-From: alice@example.org",
    "From: alice@example.org\r\nno field",
    f"From: Alice{' ' * 8192}<alice@example.org>",
    f"From: {'alice@example.org, ' * 101}",
]


@pytest.mark.parametrize(
    ("header", "expected"), [*((each, "pass") for each in OWN), *((each, "550") for each in FOREIGN)]
)
async def test_so_is_everybody_whom_from_and_sender_name(header: str, expected: str) -> None:
    header += "\r\n"
    assert await verdict("alice", "alice@example.org", header) == expected
    assert await verdict("alice", "", header) == expected
    assert await verdict("alice", "alice@example.org", header, check_header=False) == "pass"


async def test_the_client_is_told_why() -> None:
    check = AuthorizeSender(AuthorizeSettings(user=USERS))
    content = Content.inspect(b"From: boss@example.org\r\n\r\n")
    found = await check.examine(envelope("b@example.com"), content, Arrival(user="alice"))
    assert str(found.refusal) == "550 5.7.1 alice may not send as a@example.org"
    nobody = await check.examine(envelope("b@example.com"), content, Arrival())
    assert nobody.refusal == LOGIN_FIRST


@pytest.mark.parametrize("text", ["", "alice", "alice a@@b", "alice exa..mple"])
def test_a_user_needs_addresses(text: str) -> None:
    with pytest.raises(InvalidSetting):
        AuthorizeSettings(user=[text])


def test_rights_may_be_given_as_values() -> None:
    rights = Rights("alice", anybody=True)
    assert AuthorizeSettings(user=[rights]).user == (rights,)
