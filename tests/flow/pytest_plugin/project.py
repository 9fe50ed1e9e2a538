"""Tests of somebody's project that uses the fixture; test_plugin.py runs them in a pytest of their own."""

from __future__ import annotations

import asyncio
import smtplib
import sys
from email.message import EmailMessage
from typing import TYPE_CHECKING, Any

import pytest

import mailrider

if TYPE_CHECKING:
    from pathlib import Path

Lab = Any  # mailrider.lab is not imported before the fixture is used


def hello(to: str = "b@dane.test") -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "a@sender.test", to, "Hello"
    message.set_content("It travels.")
    return message


def send(lab: Lab, to: str = "b@dane.test") -> mailrider.Result:
    import mailrider.sync

    with mailrider.sync.Remote(lab.settings) as remote:
        (result,) = remote.send(hello(to), "a@sender.test", [to])
    return result


def test_nothing_was_imported() -> None:
    assert {name for name in sys.modules if name.startswith("mailrider")} <= {"mailrider", "mailrider.pytest_plugin"}


def test_what_was_sent(mailrider_lab: Lab) -> None:
    result = send(mailrider_lab)
    assert (str(result.security.mx_level), str(result.security.tls_level)) == ("dnssec", "authenticated")
    (sent,) = mailrider_lab.sent_to("B@dane.test")
    assert (sent.sender, sent.recipients, sent.host, sent.tls) == (
        "a@sender.test",
        ("b@dane.test",),
        "mx.dane.test",
        True,
    )
    assert sent.message["Subject"] == "Hello"
    assert mailrider_lab.sent_to("c@dane.test") == []
    assert send(mailrider_lab, "b@plain.test").status == "delivered"
    assert [each.tls for each in mailrider_lab.sent()] == [False, True]


def test_each_test_has_its_own(mailrider_lab: Lab) -> None:
    assert mailrider_lab.sent() == []


async def _send(lab: Lab) -> mailrider.Report:
    async with mailrider.Remote(lab.settings) as remote:
        return await remote.send(hello(), "a@sender.test", ["b@dane.test"])


def test_a_program_with_asyncio(mailrider_lab: Lab) -> None:
    assert asyncio.run(_send(mailrider_lab))[0].status == "delivered"
    assert len(mailrider_lab.sent_to("b@dane.test")) == 1


def test_a_queue(mailrider_lab: Lab, tmp_path: Path) -> None:
    import mailrider.sync

    with mailrider.sync.Queue(target=mailrider_lab.settings, location=tmp_path / "q") as queue:
        queue.submit(hello(), "a@sender.test", ["b@dane.test"])
        assert mailrider_lab.wait_for("b@dane.test")
    with pytest.raises(TimeoutError, match=r"b@dane\.test got 1 of 2"):
        mailrider_lab.wait_for("b@dane.test", count=2, seconds=0)


def test_a_configuration(mailrider_lab: Lab) -> None:
    import mailrider.sync

    with mailrider.sync.load(mailrider_lab.configuration_file).target("lab", mailrider.sync.Remote) as target:
        assert target.send(hello(), "a@sender.test", ["b@sts.test"])[0].status == "delivered"


def test_an_address_is_refused(mailrider_lab: Lab) -> None:
    mailrider_lab.refuse("b@dane.test")
    assert send(mailrider_lab).reply.code == 550
    assert send(mailrider_lab, "c@dane.test").status == "delivered"


def test_a_domain_is_refused_once(mailrider_lab: Lab) -> None:
    mailrider_lab.refuse("dane.test", "451 4.7.1 Later", times=1)
    assert [str(send(mailrider_lab).status) for _ in range(2)] == ["deferred", "delivered"]


def test_a_server_is_out_of_reach(mailrider_lab: Lab) -> None:
    mailrider_lab.unreachable("dane.test")
    assert send(mailrider_lab).status == "deferred"
    mailrider_lab.reachable("dane.test")
    assert send(mailrider_lab).status == "delivered"


def test_any_script(mailrider_lab: Lab) -> None:
    from mailrider.lab.mx_script import MXScript, Stage

    mailrider_lab.play("plain.test", MXScript(replies={Stage.MAIL: "554 5.7.1 Not from you"}))
    assert send(mailrider_lab, "b@plain.test").reply.code == 554


def test_mistakes_are_named(mailrider_lab: Lab) -> None:
    with pytest.raises(ValueError, match="example"):
        mailrider_lab.refuse("example.org")
    with pytest.raises(ValueError, match="not with 250"):
        mailrider_lab.refuse("dane.test", "250 2.0.0 Ok")


def test_it_is_plain_smtp(mailrider_lab: Lab) -> None:
    assert "dane.test" in mailrider_lab.domains
    # Users need no addresses: to the servers they deliver by name.
    address = mailrider_lab._internet.servers["mx.plain.test"].address
    with smtplib.SMTP(address, mailrider_lab.port) as client:
        client.send_message(hello("b@plain.test"))
    assert len(mailrider_lab.sent_to("b@plain.test")) == 1
