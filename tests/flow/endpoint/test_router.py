"""Endpoints as the configuration describes them: routes, limits, logins, and where they listen."""

from __future__ import annotations

import asyncio
import base64
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

import pytest

from mailrider.app import endpoints as module
from mailrider.app.endpoints import EndpointResources, open_endpoint, spool_share, try_endpoint
from mailrider.clock import SystemClock
from mailrider.delivery.limits.lines import WaitingAsk
from mailrider.delivery.limits.rules import THROTTLED
from mailrider.delivery.limits.shares import Shares
from mailrider.delivery.settings import LimitsSettings
from mailrider.endpoint.intake import MEMORY, Memory
from mailrider.endpoint.passwords import hash_password, write_passwords
from mailrider.endpoint.pipeline.authorize import AuthorizeSettings
from mailrider.endpoint.pipeline.check import CheckAction, HeaderCheck
from mailrider.endpoint.pipeline.settings import CheckSettings
from mailrider.endpoint.settings import EndpointRouteSettings, EndpointSettings, SourceSettings, SubmissionSettings
from mailrider.endpoint.sockets import Sockets
from mailrider.errors import ConfigError
from mailrider.model.domain import Domain
from mailrider.model.event import discard
from mailrider.model.handover import DIRECT, Handover
from mailrider.model.outcome import AttemptReport, Deferred, Delivered
from mailrider.model.reply import Reply
from mailrider.net.settings import ServerTLS
from mailrider.queue.ids import IdSource
from mailrider.settings.pipeline import TargetRef
from mailrider.settings.socket_address import Scheme, SocketAddress
from mailrider.testing.clock import FakeClock
from tests.flow.endpoint.running_endpoint import HOST, MESSAGE, Client
from tests.support.kept import kept
from tests.support.loopback import free_port
from tests.support.loops import eventually
from tests.support.queueing import envelope

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from mailrider.clock import Clock
    from mailrider.delivery.limits.rules import Limiter
    from mailrider.model.address import ReversePath
    from mailrider.model.envelope import Envelope
    from mailrider.settings.pipeline import Target
    from mailrider.smtp.content import Content


class Targets:
    """Every target there is, and what it got. Those that are named `direct` deliver at once, the others are queues."""

    def __init__(self) -> None:
        self.got: list[tuple[str, list[str]]] = []
        self._open: dict[str, One] = {}
        self.names = IdSource(SystemClock())

    async def open(self, target: Target) -> One:
        name = str(target)
        return self._open.setdefault(name, (One if name == "&direct" else Queue)(self, name))


class One:
    def __init__(self, targets: Targets, name: str) -> None:
        self.targets = targets
        self.name = name

    async def deliver(self, envelope: Envelope, content: Content, _handover: Handover = DIRECT) -> AttemptReport:
        self.targets.got.append((self.name, [str(each) for each in envelope.recipients]))
        reply = Reply.make(250, "2.0.0", f"{self.name} has it")
        return AttemptReport(tuple(Delivered(each, reply) for each in envelope.recipients))


class Queue(One):
    def can_tell(self, sender: ReversePath) -> bool:
        return True

    async def tell_failed(self, envelope: Envelope, content: Content, reply: Reply) -> bool:
        raise AssertionError("it takes everything")

    async def tell_passed_on(self, envelope: Envelope, content: Content, *, to_list: bool) -> None:
        raise AssertionError("nobody asks for it")


@asynccontextmanager
async def opened(
    settings: EndpointSettings, targets: Targets, clock: Clock | None = None, shares: Shares | None = None
) -> AsyncIterator[Client]:
    """A client that has said EHLO."""
    clock = clock or SystemClock()
    sockets = Sockets()
    port = free_port()
    settings = replace(
        settings, hostname=Domain("mx.here.test"), listen=(SocketAddress(Scheme.TCP, IPv4Address(HOST), port),)
    )
    resources = EndpointResources(targets.open, clock, discard, shares or Shares(clock), targets.names)
    async with open_endpoint("smtp", settings, resources) as endpoint:
        await endpoint.open(sockets.take)
        client = Client(*await asyncio.open_connection(HOST, port))
        await client.hello()
        yield client
        client.writer.transport.abort()
    sockets.close()


@pytest.mark.parametrize(
    ("whole", "largest", "workers", "share"),
    [
        (2 << 30, 32 << 20, 1, 2 << 30),
        (2 << 30, 32 << 20, 4, 512 << 20),
        ((2 << 30) + 1, 32 << 20, 4, (512 << 20) + 1),
        (2 << 30, 32 << 20, 64, 64 << 20),
        (48 << 20, 32 << 20, 4, 48 << 20),
    ],
    ids=["one process", "divided", "rounded up", "the largest message fits", "never more than all"],
)
def test_workers_divide_the_spool(whole: int, largest: int, workers: int, share: int) -> None:
    settings = EndpointSettings(max_spool=whole, max_message_size=largest, deliver_to=TargetRef("one"))
    assert spool_share(settings, workers) == share


async def test_an_endpoint_of_a_worker_has_its_part_of_the_spool(monkeypatch: pytest.MonkeyPatch) -> None:
    given = list[int]()

    def note(octets: int = MEMORY) -> Memory:
        given.append(octets)
        return Memory(octets)

    monkeypatch.setattr(module, "Memory", note)
    targets, clock = Targets(), FakeClock()
    settings = EndpointSettings(
        hostname=Domain("mx.here.test"), max_spool=8 << 20, max_message_size=1 << 20, deliver_to=TargetRef("one")
    )
    resources = EndpointResources(targets.open, clock, discard, Shares(clock), targets.names, workers=4)
    async with open_endpoint("smtp", settings, resources):
        assert given == [MEMORY, 2 << 20, 2 << 20], "of the network, and of programs on this machine"


async def test_recipients_go_where_they_belong_and_others_nowhere() -> None:
    targets = Targets()
    settings = EndpointSettings(
        destination=[
            (["a.test"], EndpointRouteSettings(deliver_to=TargetRef("one"))),
            (["b.test"], EndpointRouteSettings(reject="")),
        ],
        source=[(["evil.test"], SourceSettings(reject="450 4.7.1 Not you"))],
        deliver_to=TargetRef("two"),
    )
    async with opened(settings, targets) as client:
        assert (await client.send(MESSAGE, "x@a.test", "y@c.test", "z@a.test"))[:3] == "250"
        assert sorted(targets.got) == [("&one", ["x@a.test", "z@a.test"]), ("&two", ["y@c.test"])]
        assert (await client.send(MESSAGE, "x@b.test")).startswith("554 5.5.1 No valid recipients")
        await client.ask("RSET")
        await client.ask("MAIL FROM:<me@evil.test>")
        assert await client.ask("RCPT TO:<x@a.test>") == "450 4.7.1 Not you\r\n"


async def test_the_postmaster_is_taken_wherever_mail_is() -> None:
    targets = Targets()
    settings = EndpointSettings(
        destination=[(["a.test", "b.test"], EndpointRouteSettings(deliver_to=TargetRef("one")))], reject=""
    )
    async with opened(settings, targets) as client:
        assert (await client.send(MESSAGE, "Postmaster"))[:3] == "250"
        assert targets.got == [("&one", ["postmaster@a.test"])]
        await client.ask("MAIL FROM:<a@x.test>")
        assert (await client.ask("RCPT TO:<a.test>"))[:9] == "501 5.1.3"


@pytest.mark.parametrize(("origin", "expected"), [("example.org", "example.org"), (None, "mx.here.test")])
async def test_a_submission_completes_addresses(origin: str | None, expected: str) -> None:
    targets = Targets()
    async with opened(SubmissionSettings(origin=origin, deliver_to=TargetRef("one")), targets) as client:
        assert (await client.send(MESSAGE, "root", "b@x.test", sender="scanner"))[:3] == "250"
        assert targets.got == [("&one", [f"root@{expected}", "b@x.test"])]


async def test_what_is_delivered_at_once_has_a_transaction_of_its_own_for_each_recipient() -> None:
    targets = Targets()
    direct = EndpointRouteSettings(deliver_to=TargetRef("direct"))
    settings = EndpointSettings(destination=[(["a.test"], direct)], deliver_to=TargetRef("queue"))
    async with opened(settings, targets) as client:
        await client.ask("MAIL FROM:<me@example.org>")
        replies = [await client.ask(f"RCPT TO:<{each}>") for each in ("x@a.test", "y@a.test", "z@b.test")]
        assert [reply[:9] for reply in replies] == ["250 2.1.5", "452 4.5.3", "452 4.5.3"]
        await client.ask("DATA")
        assert (await client.ask(MESSAGE.decode() + "."))[:3] == "250"
        assert (await client.send(MESSAGE, "y@a.test"))[:3] == "250"
        assert (await client.send(MESSAGE, "z@b.test", "z2@b.test"))[:3] == "250"
    assert targets.got == [
        ("&direct", ["x@a.test"]),
        ("&direct", ["y@a.test"]),
        ("&queue", ["z@b.test", "z2@b.test"]),
    ]


async def test_what_is_over_the_limit_is_asked_to_come_again() -> None:
    targets, clock = Targets(), FakeClock()
    settings = EndpointSettings(deliver_to=TargetRef("one"), limits=LimitsSettings(ip=["rate 2 1h"]))
    async with opened(settings, targets, clock) as client:
        assert [(await client.send(MESSAGE))[:3] for _ in range(3)] == ["250", "250", "451"]
        assert len(targets.got) == 2


class Limited(One):
    """A target with limits of its own, which takes what passes them at once or not at all."""

    limiter: Limiter

    async def deliver(self, envelope: Envelope, content: Content, handover: Handover = DIRECT) -> AttemptReport:
        with self.limiter.ticket(envelope, discard, replace(handover, patience=0.0)) as ticket:
            async with ticket.to(Domain("a.test")) as held_back:
                if held_back is not None:
                    return AttemptReport(tuple(Deferred(each, THROTTLED) for each in envelope.recipients))
                return await super().deliver(envelope, content)


class LimitedTargets(Targets):
    def __init__(self, limiter: Limiter) -> None:
        super().__init__()
        self.limiter = limiter

    async def open(self, target: Target) -> One:
        one = Limited(self, str(target))
        one.limiter = self.limiter
        return one


async def test_an_endpoint_and_its_target_with_the_same_limits_count_a_message_once() -> None:
    clock = FakeClock()
    shares = Shares(clock)
    narrow = LimitsSettings(all=["concurrency 1", "rate 2 1h"], name="narrow")
    limiter = shares.limiter(narrow)
    assert limiter is not None
    targets = LimitedTargets(limiter)
    settings = EndpointSettings(deliver_to=TargetRef("one"), limits=narrow)
    async with opened(settings, targets, clock, shares) as client:
        assert [(await client.send(MESSAGE))[:3] for _ in range(3)] == ["250", "250", "451"]
        assert len(targets.got) == 2


async def test_messages_that_want_the_same_destinations_do_not_wait_for_each_other() -> None:
    """Each takes what it needs in one order: neither holds what the other waits for while it waits itself."""
    targets, clock = Targets(), FakeClock()
    limits = LimitsSettings(destination=["concurrency 1"], name="narrow")
    shares = Shares(clock)
    limiter = shares.limiter(limits)
    assert limiter is not None
    settings = EndpointSettings(deliver_to=TargetRef("one"), limits=limits)
    async with opened(settings, targets, clock, shares) as client:
        with limiter.ticket(envelope("x@a.test", "x@b.test"), discard, Handover(patience=0.0)) as ticket:
            async with ticket.to(Domain("a.test")):
                sending = asyncio.create_task(client.send(MESSAGE, "y@b.test", "y@a.test"))
                await eventually(lambda: kept(limiter, WaitingAsk))  # it waits
                async with ticket.to(Domain("b.test")) as held_back:
                    assert held_back is None
        assert (await sending)[:3] == "250"


async def test_a_login_by_the_password_file(tmp_path: Path) -> None:
    write_passwords(tmp_path / "users", {"anna": hash_password("open sesame")})
    targets = Targets()
    settings = SubmissionSettings(auth=tmp_path / "users", deliver_to=TargetRef("one"))
    async with opened(settings, targets) as client:
        assert (await client.ask("MAIL FROM:<a@example.org>"))[:3] == "530"
        secret = base64.b64encode(b"\0anna\0open sesame").decode()
        assert (await client.ask(f"AUTH PLAIN {secret}"))[:3] == "235"
        assert (await client.send(MESSAGE))[:3] == "250"
    await eventually(lambda: targets.got)


async def test_a_user_sends_under_his_own_address_only(tmp_path: Path) -> None:
    write_passwords(tmp_path / "users", {"anna@example.org": hash_password("open sesame")})
    targets = Targets()
    check = CheckSettings(authorize_sender=AuthorizeSettings())
    settings = EndpointSettings(auth=tmp_path / "users", check=check, deliver_to=TargetRef("one"))
    boss = MESSAGE.replace(b"From: a@", b"From: boss@")
    own = MESSAGE.replace(b"From: a@", b"From: anna@")
    async with opened(settings, targets) as client:
        assert (await client.send(own, sender="anna@example.org")).startswith("530 5.7.0 ")
        secret = base64.b64encode(b"\0anna@example.org\0open sesame").decode()
        assert (await client.ask(f"AUTH PLAIN {secret}"))[:3] == "235"
        refused = "550 5.7.1 anna@example.org may not send as boss@example.org\r\n"
        assert await client.send(own, sender="boss@example.org") == refused
        assert await client.send(boss, sender="anna@example.org") == refused
        assert targets.got == []
        assert (await client.send(own, sender="anna@example.org"))[:3] == "250"
        assert len(targets.got) == 1


async def test_what_is_done_to_a_message_depends_on_who_sends_it_to_whom() -> None:
    """Checks of the endpoint, of the sender's block and of the recipients' block, in that order."""
    targets = Targets()

    def check(field: str) -> CheckSettings:
        return CheckSettings(header=[HeaderCheck(field, "yes", CheckAction.REJECT)])

    settings = EndpointSettings(
        check=check("Everywhere"),
        source=[
            (
                ["example.org"],
                SourceSettings(
                    check=check("Source"),
                    destination=[
                        (["b.test"], EndpointRouteSettings(check=check("Destination"), deliver_to=TargetRef("one")))
                    ],
                    deliver_to=TargetRef("two"),
                ),
            )
        ],
        deliver_to=TargetRef("three"),
    )

    async def code(field: str, sender: str, recipient: str) -> str:
        return (await client.send(field.encode() + b": yes\r\n" + MESSAGE, recipient, sender=sender))[:3]

    async with opened(settings, targets) as client:
        table = {
            ("Everywhere", "a@example.org", "x@b.test"): "550",
            ("Everywhere", "a@example.net", "x@b.test"): "550",
            ("Source", "a@example.org", "x@b.test"): "550",
            ("Source", "a@example.org", "x@c.test"): "550",
            ("Source", "a@example.net", "x@b.test"): "250",
            ("Destination", "a@example.org", "x@b.test"): "550",
            ("Destination", "a@example.org", "x@c.test"): "250",
            ("Destination", "a@example.net", "x@b.test"): "250",
        }
        assert {case: await code(*case) for case in table} == table
    assert [name for name, _ in targets.got] == ["&three", "&two", "&three"]


def test_what_would_keep_it_from_opening_is_found_before(tmp_path: Path) -> None:
    try_endpoint(EndpointSettings())
    with pytest.raises(ConfigError, match="cannot be read"):
        try_endpoint(EndpointSettings(tls=ServerTLS(tmp_path / "cert", tmp_path / "key")))
    with pytest.raises(ConfigError, match="cannot read the password file"):
        try_endpoint(EndpointSettings(auth=tmp_path / "none"))
