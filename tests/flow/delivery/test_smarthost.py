"""`target.smtp` and `target.lmtp`: fixed servers, TLS that must prove itself, a login, LMTP's replies."""

from __future__ import annotations

import base64
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from mailrider.app.assemble import open_engine, open_smarthost
from mailrider.app.submission import prepare
from mailrider.delivery.settings import LimitsSettings
from mailrider.delivery.smarthost_settings import LMTPSettings, SmarthostSettings
from mailrider.dns.settings import DNSSettings
from mailrider.lab.ca import CA, Kind
from mailrider.lab.dns import LabDNS
from mailrider.lab.mx import LabMX
from mailrider.lab.mx_script import MXTLS, Close, MXScript, Stage, TLSFault
from mailrider.model.event import ConnectionClosed, OwnLoginAccepted, OwnLoginRefused, discard
from mailrider.model.outcome import Deferred
from mailrider.net.settings import TLSClientSettings
from mailrider.smtp.capabilities import Capabilities
from tests.flow.delivery.internet import MESSAGE, FewDomains
from tests.support.loopback import new_address

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from mailrider.lab.zones import ZoneTable
    from mailrider.model.event import Emit, Event
    from mailrider.model.outcome import AttemptReport

AUTHORITY = CA()
TLS = MXTLS(AUTHORITY.issue(["smart.test"]))
LOGIN = Capabilities(pipelining=True, auth=frozenset({"PLAIN"}), keywords={"AUTH": "PLAIN"})


@asynccontextmanager
async def smarthost(
    script: MXScript,
    folder: Path,
    *,
    scheme: str = "tcp",
    kind: type[SmarthostSettings] = SmarthostSettings,
    emit: Emit = discard,
    **more: Any,
) -> AsyncIterator[tuple[LabMX, Any]]:
    """A server under the name smart.test, and what sends through it."""
    root = AUTHORITY.write_root(folder)
    async with LabMX(script, new_address()) as server:
        zones: ZoneTable = {"smart.test": {"A": server.address}}
        async with LabDNS(zones, new_address()) as dns:
            settings = kind(
                hostname="client.test",
                host=[f"{scheme}://smart.test:{server.port}"],
                tls_client=TLSClientSettings(root_ca=[root]),
                **more,
            )
            async with (
                open_engine(DNSSettings(server=[dns.server]), emit) as engine,
                open_smarthost(settings, engine) as delivery,
            ):

                async def send(*recipients: str, sender: str = "a@client.test", **arguments: Any) -> AttemptReport:
                    submission = prepare(MESSAGE, sender, recipients, **arguments)
                    assert submission.envelope is not None
                    report: AttemptReport = await delivery.deliver(submission.envelope, submission.content)
                    return report

                yield server, send


def statuses(report: AttemptReport) -> list[str]:
    return [outcome.status.value for outcome in report]


async def test_a_smarthost_that_takes_one_domain_a_connection_gets_each_domain_on_its_own(tmp_path: Path) -> None:
    tls = MXTLS(AUTHORITY.issue(["smart.test"]))
    script = FewDomains(1).script
    events: list[Event] = []
    async with smarthost(replace(script, tls=tls), tmp_path, emit=events.append) as (server, send):
        report = await send("a@a.test", "b@b.test", "c@a.test")
        assert statuses(report) == ["delivered"] * 3
        assert statuses(await send("d@c.test")) == ["delivered"]
        assert server.opened == 3
    reasons = {event.reason for event in events if isinstance(event, ConnectionClosed)}
    assert reasons == {"its server takes no recipients of other domains on it"}


async def test_a_smarthost_that_takes_many_domains_a_connection_gets_messages_on_one_until_they_are_too_many(
    tmp_path: Path,
) -> None:
    tls = MXTLS(AUTHORITY.issue(["smart.test"]))
    async with smarthost(replace(FewDomains(5).script, tls=tls), tmp_path) as (server, send):
        for domain in ("a.test", "b.test", "c.test", "a.test", "b.test"):
            assert statuses(await send(f"x@{domain}")) == ["delivered"]
        assert server.opened == 1
        assert statuses(await send("x@a.test", "x@d.test", "x@e.test")) == ["delivered"] * 3
        assert server.opened == 1
        assert statuses(await send("x@f.test")) == ["delivered"]
        assert server.opened == 2
        many = [f"x@{number}a.test" for number in range(7)]
        assert statuses(await send(*many)) == ["delivered"] * 7
        assert server.opened == 4


@pytest.mark.parametrize("scheme", ["tcp", "tls"])
async def test_everything_goes_to_the_smarthost_in_one_transaction(tmp_path: Path, scheme: str) -> None:
    tls = MXTLS(AUTHORITY.issue(["smart.test"]), implicit=scheme == "tls")
    async with smarthost(MXScript(tls=tls), tmp_path, scheme=scheme) as (server, send):
        report = await send("x@a.test", "y@b.test")
        assert server.messages[0].addresses == ["x@a.test", "y@b.test"]
    assert statuses(report) == ["delivered", "delivered"]
    assert {outcome.security.tls_level.word for outcome in report} == {"authenticated"}


@pytest.mark.parametrize("kind", [Kind.SELF_SIGNED, Kind.WRONG_NAME, Kind.EXPIRED])
async def test_a_server_that_cannot_prove_who_it_is_gets_nothing(tmp_path: Path, kind: Kind) -> None:
    script = MXScript(tls=MXTLS(AUTHORITY.issue(["smart.test"], kind)), offer=LOGIN)
    async with smarthost(script, tmp_path, auth="plain user secret") as (server, send):
        report = await send("x@a.test")
        said = b"".join(each.octets for each in server.connections[0].transcript if each.who == "C")
    assert statuses(report) == ["deferred"]
    assert b"AUTH" not in said
    assert b"MAIL" not in said


async def test_starttls_stripped_is_refused(tmp_path: Path) -> None:
    async with smarthost(MXScript(), tmp_path) as (server, send):
        assert statuses(await send("x@a.test")) == ["deferred"]
        assert server.accepted == 0


async def test_it_logs_in_once_a_connection(tmp_path: Path) -> None:
    script = MXScript(tls=TLS, offer=LOGIN, replies={Stage.AUTH: "235 2.7.0 Welcome"})
    async with smarthost(script, tmp_path, auth="plain user secret") as (server, send):
        assert statuses(await send("x@a.test")) == ["delivered"]
        assert statuses(await send("y@a.test")) == ["delivered"]
        said = b"".join(each.octets for each in server.connections[0].transcript if each.who == "C")
        assert server.opened == 1
    assert said.count(b"AUTH PLAIN " + base64.b64encode(b"\0user\0secret")) == 1


# https://github.com/pear/Net_SMTP/pull/70: servers refuse the command as too long
async def test_a_server_that_overlooks_the_answer_in_auth_plain_gets_it_again(tmp_path: Path) -> None:
    replies: dict[Stage, Any] = {Stage.AUTH: "334 ", Stage.AUTH_RESPONSE: "235 2.7.0 Welcome"}
    async with smarthost(MXScript(tls=TLS, offer=LOGIN, replies=replies), tmp_path, auth="plain user secret") as (
        server,
        send,
    ):
        assert statuses(await send("x@a.test")) == ["delivered"]
        said = b"".join(each.octets for each in server.connections[0].transcript if each.who == "C")
    token = base64.b64encode(b"\0user\0secret")
    assert b"AUTH PLAIN " + token + b"\r\n" + token + b"\r\n" in said


async def test_a_token_in_place_of_a_password_goes_in_a_line_of_its_own(tmp_path: Path) -> None:
    token = "t" * 900
    replies: dict[Stage, Any] = {Stage.AUTH: "334 ", Stage.AUTH_RESPONSE: "235 2.7.0 Welcome"}
    async with smarthost(MXScript(tls=TLS, offer=LOGIN, replies=replies), tmp_path, auth=f"plain user {token}") as (
        server,
        send,
    ):
        assert statuses(await send("x@a.test")) == ["delivered"]
        said = b"".join(each.octets for each in server.connections[0].transcript if each.who == "C")
    assert b"AUTH PLAIN\r\n" + base64.b64encode(f"\0user\0{token}".encode()) + b"\r\n" in said


async def test_a_refused_login_defers_since_it_is_our_mistake(tmp_path: Path) -> None:
    script = MXScript(tls=TLS, offer=LOGIN, replies={Stage.AUTH: "535 5.7.8 Wrong password"})
    async with smarthost(script, tmp_path, auth="plain user wrong") as (server, send):
        (outcome,) = await send("x@a.test")
        assert server.accepted == 0
    assert (outcome.reply.code, str(outcome.reply.enhanced)) == (451, "4.7.0")
    assert outcome.reply.text == "AUTH failed: smart.test said: 535 5.7.8 Wrong password"


async def test_a_refused_login_is_told_once_as_an_error_and_that_it_is_accepted_again(tmp_path: Path) -> None:
    script = MXScript(tls=TLS, offer=LOGIN, replies={Stage.AUTH: "535 5.7.8 Wrong password"})
    events: list[Event] = []
    async with smarthost(script, tmp_path, auth="plain user wrong", emit=events.append) as (server, send):
        await send("x@a.test")
        await send("x@a.test")
        server.script = replace(script, replies={Stage.AUTH: "235 2.7.0 Welcome"})
        assert statuses(await send("x@a.test")) == ["delivered"]
    told = [each for each in events if isinstance(each, OwnLoginRefused | OwnLoginAccepted)]
    reason = "AUTH failed: smart.test said: 535 5.7.8 Wrong password"
    assert told == [OwnLoginRefused("smart.test", "user", reason), OwnLoginAccepted("smart.test", "user")]
    assert told[0].level == "error"


@pytest.mark.parametrize(
    ("offer", "reply", "is_ours"),
    [
        pytest.param(LOGIN, "454 4.7.0 Temporary authentication failure", False, id="for now"),
        pytest.param(LOGIN, Close(), False, id="the connection is lost"),
        pytest.param(Capabilities(), "503 5.5.1 No", True, id="nothing offered that we have"),
    ],
)
async def test_what_is_no_mistake_of_ours_is_not_told_as_one(
    tmp_path: Path, offer: Capabilities, reply: Any, is_ours: bool
) -> None:
    events: list[Event] = []
    script = MXScript(tls=TLS, offer=offer, replies={Stage.AUTH: reply})
    async with smarthost(script, tmp_path, auth="plain user secret", emit=events.append) as (_, send):
        assert statuses(await send("x@a.test")) == ["deferred"]
    assert any(isinstance(each, OwnLoginRefused) for each in events) is is_ours


# https://github.com/cakephp/cakephp/pull/14639; RFC 4954 6
@pytest.mark.parametrize("refusal", ["504 5.5.4 Unrecognized authentication type", "534 5.7.9 Too weak"])
async def test_a_mechanism_that_is_offered_and_refused_is_followed_by_the_next(tmp_path: Path, refusal: str) -> None:
    offer = Capabilities(auth=frozenset({"PLAIN", "LOGIN"}), keywords={"AUTH": "PLAIN LOGIN"})
    replies: dict[Stage, Any] = {
        Stage.AUTH: [refusal, "334 VXNlcm5hbWU6"],
        Stage.AUTH_RESPONSE: ["334 UGFzc3dvcmQ6", "235 2.7.0 Welcome"],
    }
    script = MXScript(tls=TLS, offer=offer, replies=replies)
    async with smarthost(script, tmp_path, auth="plain user secret") as (server, send):
        assert statuses(await send("x@a.test")) == ["delivered"]
        assert server.opened == 1


async def test_a_wrong_password_is_not_tried_again_by_another_mechanism(tmp_path: Path) -> None:
    offer = Capabilities(auth=frozenset({"PLAIN", "LOGIN"}), keywords={"AUTH": "PLAIN LOGIN"})
    script = MXScript(tls=TLS, offer=offer, replies={Stage.AUTH: "535 5.7.8 Wrong password"})
    async with smarthost(script, tmp_path, auth="plain user wrong") as (server, send):
        assert statuses(await send("x@a.test")) == ["deferred"]
        assert server.connections[0].said().count(b"AUTH ") == 1


FORGOTTEN = {
    "530": "530 5.7.0 Authentication required",
    "535": "535 5.7.8 Who are you?",
    "454": "454 4.7.0 Temporary authentication failure",
    "503": "503 5.5.1 EHLO first",
}


@pytest.mark.parametrize("reply", FORGOTTEN.values(), ids=FORGOTTEN)
async def test_a_server_that_has_forgotten_our_login_is_logged_in_to_once_more(tmp_path: Path, reply: str) -> None:
    replies: dict[Stage, Any] = {Stage.AUTH: "235 2.7.0 Welcome", Stage.MAIL: [None, reply]}
    async with smarthost(MXScript(tls=TLS, offer=LOGIN, replies=replies), tmp_path, auth="plain user secret") as (
        server,
        send,
    ):
        assert [statuses(await send("x@a.test")) for _ in range(2)] == [["delivered"], ["delivered"]]
        assert (server.opened, server.accepted) == (2, 2)
        assert all(b"AUTH PLAIN" in connection.said() for connection in server.connections)


@pytest.mark.parametrize("reply", FORGOTTEN.values(), ids=FORGOTTEN)
async def test_a_server_that_never_wants_our_login_defers_with_its_reply(tmp_path: Path, reply: str) -> None:
    replies: dict[Stage, Any] = {Stage.AUTH: "235 2.7.0 Welcome", Stage.MAIL: reply}
    async with smarthost(MXScript(tls=TLS, offer=LOGIN, replies=replies), tmp_path, auth="plain user secret") as (
        server,
        send,
    ):
        (outcome,) = await send("x@a.test")
        assert (server.opened, server.accepted) == (1, 0)
    assert (outcome.status, outcome.reply.code in (451, 454)) == ("deferred", True)
    assert outcome.reply.text.startswith("smart.test said: ")
    assert reply.partition(" ")[2].partition(" ")[2] in outcome.reply.text


async def test_a_server_without_a_mechanism_that_we_have_defers(tmp_path: Path) -> None:
    async with smarthost(MXScript(tls=TLS), tmp_path, auth="plain user secret") as (_, send):
        (outcome,) = await send("x@a.test")
    assert "no mechanism that we have" in outcome.reply.text


async def test_requiretls_needs_the_extension_at_the_smarthost(tmp_path: Path) -> None:
    async with smarthost(MXScript(tls=TLS), tmp_path) as (_, send):
        (outcome,) = await send("x@a.test", requiretls=True)
    assert (outcome.status.value, outcome.reply.code, str(outcome.reply.enhanced)) == ("failed", 550, "5.7.30")


async def test_a_bounce_is_not_failed_there_for_want_of_the_extension(tmp_path: Path) -> None:
    async with smarthost(MXScript(tls=TLS), tmp_path) as (server, send):
        assert statuses(await send("x@a.test", requiretls=True, sender="")) == ["delivered"]
    async with smarthost(MXScript(), tmp_path) as (server, send):
        assert statuses(await send("x@a.test", requiretls=True, sender="")) == ["failed"]
        assert server.accepted == 0


async def test_lmtp_replies_for_each_recipient(tmp_path: Path) -> None:
    script = MXScript(lmtp=True, finals={"full@a.test": "452 4.2.2 Mailbox full"})
    async with smarthost(script, tmp_path, kind=LMTPSettings) as (server, send):
        report = await send("x@a.test", "full@a.test", "postmaster")
        assert server.accepted
    assert statuses(report) == ["delivered", "deferred", "delivered"]


@pytest.mark.parametrize(("first", "accepted"), [(MXScript(tls=TLS), [1, 0]), (MXScript(), [0, 1])])
async def test_servers_of_one_host_are_told_apart_by_their_ports(
    tmp_path: Path, first: MXScript, accepted: list[int]
) -> None:
    """What the first must prove is asked of the first, and only the second is tried next."""
    root, address = AUTHORITY.write_root(tmp_path), new_address()
    async with LabMX(first, address) as one, LabMX(MXScript(tls=TLS), address) as two:
        async with LabDNS({"smart.test": {"A": address}}, new_address()) as dns:
            settings = SmarthostSettings(
                hostname="client.test",
                host=[f"tcp://smart.test:{server.port}" for server in (one, two)],
                tls_client=TLSClientSettings(root_ca=[root]),
            )
            async with (
                open_engine(DNSSettings(server=[dns.server]), discard) as engine,
                open_smarthost(settings, engine) as delivery,
            ):
                submission = prepare(MESSAGE, "a@client.test", ["x@a.test"])
                assert submission.envelope is not None
                report = await delivery.deliver(submission.envelope, submission.content)
        assert statuses(report) == ["delivered"]
        assert [one.accepted, two.accepted] == accepted
        assert [one.opened, two.opened] == [1, accepted[1]]


@pytest.mark.parametrize("kind", [SmarthostSettings, LMTPSettings])
async def test_recipients_whose_domain_is_held_back_by_a_limit_come_again_and_the_others_go(
    tmp_path: Path, kind: type[SmarthostSettings]
) -> None:
    script = MXScript(tls=TLS, lmtp=kind is LMTPSettings)
    limits = LimitsSettings(destination=["rate 1 1h"])
    async with smarthost(script, tmp_path, kind=kind, limits=limits) as (server, send):
        assert statuses(await send("x@a.test", "y@b.test")) == ["delivered", "delivered"]
        report = await send("x@c.test", "y@b.test", "z@d.test", "y@a.test")
        taken = [address for message in server.messages for address in message.addresses]
        assert taken == ["x@a.test", "y@b.test", "x@c.test", "z@d.test"]
    assert statuses(report) == ["delivered", "deferred", "delivered", "deferred"]
    assert [isinstance(each, Deferred) and each.eligible_at is not None for each in report] == [
        status == "deferred" for status in statuses(report)
    ]


async def test_a_message_that_a_limit_holds_back_opens_no_connection(tmp_path: Path) -> None:
    async with smarthost(MXScript(tls=TLS), tmp_path, limits=LimitsSettings(all=["rate 1 1h"])) as (server, send):
        await send("x@a.test")
        assert statuses(await send("x@a.test", "y@b.test")) == ["deferred", "deferred"]
        assert server.accepted == 1


async def test_what_a_message_took_of_its_limits_is_given_back(tmp_path: Path) -> None:
    limits = LimitsSettings(all=["concurrency 1"], destination=["concurrency 1"])
    async with smarthost(MXScript(tls=TLS), tmp_path, limits=limits) as (_, send):
        for _ in range(3):
            assert statuses(await send("x@a.test", "y@b.test")) == ["delivered", "delivered"]


def test_a_password_is_never_configured_to_go_in_clear() -> None:
    with pytest.raises(ValueError, match="in clear"):
        SmarthostSettings(host=["tcp://smart.test:25"], starttls="offered", auth="plain u p")


@pytest.mark.parametrize("address", ["tls://store.test:24", "tls://192.0.2.1:24"])
def test_a_password_is_not_for_a_server_that_has_to_prove_nothing(address: str) -> None:
    with pytest.raises(ValueError, match="anybody could answer for"):
        LMTPSettings(host=[address], auth="plain u p")
    assert LMTPSettings(host=[address], auth="plain u p", min_tls_level="authenticated").auth
    assert LMTPSettings(host=["tls://127.0.0.1:24", "unix:///run/lmtp"], auth="plain u p").auth


def test_at_least_one_server_is_required() -> None:
    with pytest.raises(ValueError, match="at least one server"):
        SmarthostSettings()


async def test_where_tls_comes_first_there_is_nothing_to_fall_back_to(tmp_path: Path) -> None:
    script = MXScript(lmtp=True, tls=MXTLS(fault=TLSFault.ALERT, implicit=True))
    async with smarthost(script, tmp_path, scheme="tls", kind=LMTPSettings) as (server, send):
        (outcome,) = await send("x@a.test")
        assert server.opened == 1
    assert [each.result.value for each in outcome.tries] == ["tls"]
    assert (outcome.reply.code, str(outcome.reply.enhanced)) == (451, "4.7.5")
