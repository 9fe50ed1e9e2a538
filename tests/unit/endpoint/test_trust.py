"""Clients that need no login because of their address: which ones, and what they may send as."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

import pytest

from mailrider.config import loads
from mailrider.endpoint import faults
from mailrider.endpoint.faults import weak_spots
from mailrider.endpoint.pipeline.authorize import AuthorizeSender, AuthorizeSettings
from mailrider.endpoint.pipeline.check import Arrival, CheckAction
from mailrider.endpoint.settings import SubmissionSettings
from mailrider.endpoint.trust import Trust, is_private
from mailrider.errors import ConfigError
from mailrider.model.address import ReversePath
from mailrider.model.domain import Domain
from mailrider.smtp.content import Content
from tests.support.queueing import envelope

if TYPE_CHECKING:
    from collections.abc import Collection

    from mailrider.settings.types import IPAddress

GATEWAY = ip_address("10.20.0.1")
OWN = ip_address("10.20.0.2")


def trusting(*networks: str, gateways: Collection[IPAddress] | None = (GATEWAY,)) -> Trust:
    return Trust(
        [ip_network(each) for each in networks], [Domain("example.org")], lambda each: each == OWN, lambda: gateways
    )


NETWORKS = ("10.20.0.0/16", "fd00:20::/32", "127.0.0.0/8", "fe80::/10")


@pytest.mark.parametrize(
    ("client", "covered"),
    [
        ("10.20.3.4", True),
        ("fd00:20::5", True),
        ("fe80::5%eth0", True),
        ("10.21.0.1", False),
        ("192.0.2.1", False),
        ("2001:db8::1", False),
        (str(GATEWAY), False),  # whoever comes through a container's proxy
        (str(OWN), False),
        ("127.0.0.1", False),
        ("", False),  # a unix socket knows who is there
    ],
)
def test_clients_of_the_networks_count_but_the_gateway_and_ourselves(client: str, covered: bool) -> None:
    assert trusting(*NETWORKS).covers(client, announced=None) is covered


@pytest.mark.parametrize("client", [str(GATEWAY), str(OWN), "127.0.0.1"])
def test_what_is_named_by_itself_counts_whatever_it_is(client: str) -> None:
    assert trusting(f"{client}/32").covers(client, announced=None)


def test_where_the_gateway_is_not_known_only_what_is_named_by_itself_counts() -> None:
    trust = trusting("10.20.0.0/16", "10.20.0.9/32", gateways=None)
    assert not trust.covers("10.20.3.4", announced=None)
    assert trust.covers("10.20.0.9", announced=None)


def test_behind_a_proxy_the_announced_address_counts_and_the_proxys_own_never() -> None:
    trust = trusting("10.20.0.0/16", "10.20.0.9/32")
    assert trust.covers("10.20.3.4", announced="10.20.3.4")
    assert not trust.covers("192.0.2.1", announced="192.0.2.1")
    assert not trust.covers("10.20.0.9", announced="")  # it speaks for itself


# What they may send as ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sender", "code"),
    [
        ("printer@example.org", None),
        ("printer@EXAMPLE.org", None),
        ("a@sub.example.org", 550),
        ("a@x.net", 550),
        ("", 550),
    ],
)
def test_the_sender_is_of_the_domains_and_never_null(sender: str, code: int | None) -> None:
    refusal = trusting(*NETWORKS).sender_refusal(ReversePath.parse(sender))
    assert (refusal and refusal.code) == code


@pytest.mark.parametrize(
    ("header", "action"),
    [
        ("From: a@example.org", CheckAction.PASS),
        ("From: a@example.org\r\nSender: b@example.org", CheckAction.PASS),
        ("From: boss@example.net", CheckAction.REJECT),
        ("From: a@example.org, boss@example.net", CheckAction.REJECT),
        ("From: a@example.org\r\nSender: boss@example.net", CheckAction.REJECT),
        ("From: a@example.org\r\nFrom: boss@example.net", CheckAction.REJECT),
        ("From: boss@example.net <a@example.org>", CheckAction.REJECT),
        ("Subject: no author", CheckAction.REJECT),
    ],
)
async def test_from_and_sender_are_of_the_domains(header: str, action: CheckAction) -> None:
    content = Content.inspect(f"{header}\r\n\r\nhello\r\n".encode())
    trust = trusting(*NETWORKS)
    arrival = Arrival("10.20.3.4", trusted=True)
    assert (await trust.examine(envelope(), content, arrival)).action is action
    assert (await trust.examine(envelope(), content, Arrival("10.20.3.4"))).action is CheckAction.PASS  # who logged in


async def test_who_is_trusted_needs_no_login_where_users_are_tied_to_their_addresses() -> None:
    content = Content.inspect(b"From: a@example.org\r\n\r\nhello\r\n")
    check = AuthorizeSender(AuthorizeSettings())
    assert (await check.examine(envelope(), content, Arrival("10.20.3.4", trusted=True))).action is CheckAction.PASS
    assert (await check.examine(envelope(), content, Arrival("10.20.3.4"))).action is CheckAction.REJECT


# The configuration ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("network", "private"),
    [
        ("10.0.0.0/8", True),
        ("172.16.0.0/12", True),
        ("192.168.1.0/24", True),
        ("fd00::/8", True),
        ("fe80::/10", True),
        ("169.254.0.0/16", True),
        ("172.0.0.0/8", False),
        ("100.64.0.0/10", False),
        ("192.0.2.0/24", False),
        ("0.0.0.0/0", False),
        ("::/0", False),
        ("2001:db8::/32", False),
        ("203.0.113.7/32", False),
    ],
)
def test_private_networks(network: str, private: bool) -> None:
    assert is_private(ip_network(network)) is private


WHOLE = "hostname mx.here.test\ntarget.remote out { }\nsubmission tcp://10.20.0.1:25 {{\n{}\ndeliver_to &out\n}}"


def fault(lines: str) -> str:
    with pytest.raises(ConfigError) as caught:
        loads(WHOLE.replace("{ }", "{{ }}").format(lines))
    return str(caught.value)


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("", "would be an open relay"),
        ("trust 10.20.0.0/16", "sender_domains D... is needed"),
        ("sender_domains example.org", "it is for clients of trust"),
        ("trust 203.0.113.0/24\nsender_domains example.org", "trust: 203.0.113.0/24 is not a private network"),
        ("trust 0.0.0.0/0\nsender_domains example.org", "0.0.0.0/0 is not a private network"),
        ("trust 10.20.0.0/16\nsender_domains example.org\nauth users", "tls CERT KEY is needed"),
    ],
)
def test_what_would_let_in_too_many_is_refused(lines: str, told: str) -> None:
    assert told in fault(lines)


def test_a_private_network_may_be_trusted_beyond_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    text = WHOLE.replace("{ }", "{{ }}").format("trust 10.20.0.0/16 fd00::/8\nsender_domains example.org example.net")
    (endpoint,) = loads(text).endpoints
    assert isinstance(endpoint.settings, SubmissionSettings)
    assert endpoint.settings.trust == (ip_network("10.20.0.0/16"), ip_network("fd00::/8"))
    assert not endpoint.settings.needs_login
    for inside in (False, True):
        monkeypatch.setattr(faults, "container", lambda inside=inside: inside)
        assert any("in a container" in text for text, *_ in weak_spots(endpoint.settings, lambda _: None)) is inside
