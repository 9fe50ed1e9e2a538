"""`authorize_sender`: who logged in may send under which addresses."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mailrider.endpoint.authorize import LOGIN_FIRST, AuthorizeSender, AuthorizeSettings, Rights
from mailrider.endpoint.check import Action, Arrival
from mailrider.model.address import ReversePath
from mailrider.model.directive import InvalidSetting
from mailrider.smtp.content import Content
from tests.support.queueing import envelope

USERS = ("alice alice@example.org Sales@Example.org", "alice example.net", "root *")


async def verdict(user: str | None, sender: str, header: str = "", *, check_header: bool = True) -> str:
    """`pass`, or the code of the refusal."""
    check = AuthorizeSender(AuthorizeSettings(user=USERS, check_header=check_header))
    content = Content.inspect(f"{header}Subject: x\r\n\r\nFrom: mallory@evil.test\r\n".encode())
    given = replace(envelope("b@example.com"), sender=ReversePath.parse(sender))
    found = await check.examine(given, content, Arrival(user=user))
    return "pass" if found.action is Action.PASS else str(found.refusal and found.refusal.code)


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
        ("bob@", "bob@example.org", "550"),
        (None, "alice@example.org", "530"),
        (None, "", "530"),
    ],
)
async def test_the_sender_of_the_envelope_is_the_users_own(user: str | None, sender: str, expected: str) -> None:
    assert await verdict(user, sender) == expected


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("From: Alice <alice@example.org>\r\n", "pass"),
        ('From: "boss@example.org" <alice@example.org>\r\n', "pass"),
        ("From: Boss <boss@example.org>\r\n", "550"),
        ("From: alice@example.org, boss@example.org\r\n", "550"),
        ("From: alice@example.org\r\nFrom: boss@example.org\r\n", "550"),
        ("From: boss@example.org\r\nSender: alice@example.org\r\n", "550"),
        ("From: alice@example.org\r\nSender: boss@example.org\r\n", "550"),
        ("From: alice@example.org\r\n sales@example.org\r\n", "550"),
        ("From: alice@example.org)boss@example.org\r\n", "550"),
        ("From: undisclosed:;\r\n", "550"),
        ("From: Alice\r\n", "550"),
        ("From:\r\n", "pass"),
        ("Reply-To: boss@example.org\r\n", "pass"),
    ],
)
async def test_so_is_everybody_whom_from_and_sender_name(header: str, expected: str) -> None:
    assert await verdict("alice", "alice@example.org", header) == expected
    assert await verdict("alice", "", header) == expected
    assert await verdict("alice", "alice@example.org", header, check_header=False) == "pass"


async def test_a_field_that_is_no_text_names_somebody_else() -> None:
    check = AuthorizeSender(AuthorizeSettings(user=USERS))
    content = Content.inspect(b"From: \xff@example.net\r\n\r\n")
    found = await check.examine(envelope("b@example.com"), content, Arrival(user="alice"))
    assert found.action is Action.REJECT


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
