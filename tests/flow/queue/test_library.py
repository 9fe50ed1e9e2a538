"""`mailrider.Queue`: accepted means delivered or bounced, for programs; targets that refer to each other; words."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from contextlib import AsyncExitStack
from email.message import EmailMessage
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import mailrider
from mailrider.app.assemble import open_engine
from mailrider.app.targets import Targets
from mailrider.config import loads
from mailrider.delivery.settings import RemoteSettings
from mailrider.dns.settings import DNSSettings
from mailrider.endpoint.pipeline.route import PipelineDeliverer
from mailrider.errors import ConfigError, InvalidValue
from mailrider.model.event import Event, discard
from mailrider.model.handover import DIRECT
from mailrider.model.outcome import AttemptReport
from mailrider.model.queue_event import MessageQueued, OperatorActed, RecipientDone
from mailrider.queue.message import EVERYTHING, Filter
from mailrider.queue.settings import QueueSettings
from mailrider.queue.sqlite.signals import QueueDirectory, Signal, SignalListener
from mailrider.queue.store import QueueCommand
from mailrider.settings.pipeline import PipelineSettings, RouteSettings, TargetRef
from mailrider.smtp.content import Content
from tests.support.loops import eventually
from tests.support.queueing import MESSAGE, NO_SUCH_USER, deferred, delivered, envelope
from tests.support.routes import routes_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mailrider.model.envelope import Envelope, Recipient
    from mailrider.model.event import Emit
    from mailrider.model.handover import Handover
    from mailrider.model.outcome import Outcome
    from mailrider.queue.service import DeliveryQueue
    from mailrider.settings.directive import Settings

DEAD_DNS = DNSSettings(server=["127.0.0.1:9"], timeout=0.1, attempts=1)
REMOTE = mailrider.RemoteSettings(hostname="mx.example.org", dns=DEAD_DNS)


async def test_submit_returns_an_id_and_events_tell_what_became_of_it(tmp_path: Path) -> None:
    events: list[Event] = []
    message = EmailMessage()
    message["Subject"] = "hello"
    message.set_content("Hello.")
    async with mailrider.Queue(target=REMOTE, location=tmp_path / "q", on_event=events.append) as queue:
        id = await queue.submit(message, sender="a@example.org", recipients=["b@example.net"])
        await queue.idle()
    (queued,) = [event for event in events if isinstance(event, MessageQueued)]
    (done,) = [event for event in events if isinstance(event, RecipientDone)]
    assert queued.message == done.message == id
    assert done.outcome.status == "deferred"
    assert done.retry_at is not None


async def test_what_waits_is_listed_by_what_is_asked_for(tmp_path: Path) -> None:
    async with mailrider.Queue(target=REMOTE, location=tmp_path / "q", deliver=False) as queue:
        first = await queue.submit(MESSAGE, "a@example.org", ["b@example.net", "c@example.com"])
        second = await queue.submit(MESSAGE, "", ["d@example.net"])
        assert [each.recipient for each in await queue.list()] == ["b@example.net", "c@example.com", "d@example.net"]
        assert [each.id for each in await queue.list(sender="")] == [second]
        assert [each.id for each in await queue.list(sender="<>")] == [second]
        assert [each.id for each in await queue.list(domain="example.com")] == [first]
        assert [each.recipient for each in await queue.list(recipient="c@")] == ["c@example.com"]
        assert len(await queue.list(state="queued")) == len(await queue.list(limit=None)) == 3
        assert len(await queue.list(limit=2)) == 2
        assert [*await queue.list(state="held"), *await queue.list(older="1h")] == []
        for wrong in ({"state": "new"}, {"recipient": ""}, {"older": "soon"}, {"domain": "a b"}):
            with pytest.raises(ValueError):
                await queue.list(**wrong)  # type: ignore[arg-type]
        for unfit in ({"sender": 5}, {"recipient": b"c"}, {"domain": 5}, {"state": 5}, {"limit": "3"}):
            with pytest.raises(TypeError, match=f"{next(iter(unfit))} is a "):
                await queue.list(**unfit)


@pytest.mark.parametrize("method", ["show", "retry", "cancel"])
async def test_what_is_no_string_is_no_id(tmp_path: Path, method: str) -> None:
    async with mailrider.Queue(target=REMOTE, location=tmp_path / "q", deliver=False) as queue:
        with pytest.raises(TypeError, match="the id of a message is a string, not NoneType"):
            await getattr(queue, method)(None)


async def test_a_long_list_is_read_in_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailrider.queue.sqlite.shards.PAGE", 2)
    to = [f"{number}@example.net" for number in range(5)]
    async with mailrider.Queue(target=REMOTE, location=tmp_path / "q", deliver=False) as queue:
        await queue.submit(MESSAGE, "a@example.org", to)
        assert [each.recipient for each in await queue.list(limit=None)] == to
        assert [each.recipient for each in await queue.list(limit=3)] == to[:3]


async def test_a_message_is_shown_with_its_tries_and_tried_again(tmp_path: Path) -> None:
    async with mailrider.Queue(target=REMOTE, location=tmp_path / "q") as queue:
        id = await queue.submit(MESSAGE, "a@example.org", ["b@example.net"])
        await queue.idle()
        shown = await queue.show(id)
        assert shown is not None
        (recipient,) = shown.recipients
        assert (shown.id, shown.sender, recipient.tries) == (id, "a@example.org", 1)
        assert recipient.last is not None
        (attempt,) = shown.history["b@example.net"]
        assert attempt.evidence["code"] == recipient.last.code
        assert await queue.retry(id) == 1
        await queue.idle()
        again = await queue.show(id)
        assert again is not None
        assert again.recipients[0].tries == 2
        unknown = queue.new_id()
        assert (await queue.show(unknown), await queue.retry(unknown)) == (None, 0)


async def test_wrong_arguments_raise_at_once(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="not both"):
        mailrider.Queue(QueueSettings(target=REMOTE), location=tmp_path)
    queue = mailrider.Queue(target=REMOTE, location=tmp_path / "q", deliver=False)
    with pytest.raises(RuntimeError, match="async with"):
        await queue.submit(MESSAGE, "a@example.org", ["b@example.net"])
    async with queue:
        for sender, recipients in (("no address", ["b@example.net"]), ("a@example.org", ["b@example.net", "x@@y"])):
            with pytest.raises(InvalidValue):
                await queue.submit(MESSAGE, sender, recipients)
        assert await queue.opened.store.page(EVERYTHING, 0, 1) == []


async def test_a_queue_without_a_target_or_a_name_cannot_be_opened(tmp_path: Path) -> None:
    for settings in (
        QueueSettings(location=tmp_path),
        QueueSettings(location=tmp_path, target=mailrider.RemoteSettings()),
    ):
        with pytest.raises(ConfigError):
            async with mailrider.Queue(settings, dns=DEAD_DNS):
                pass


async def test_what_one_process_takes_in_another_delivers(tmp_path: Path, runtime_dir: Path) -> None:
    events: list[Event] = []
    settings = QueueSettings(target=REMOTE, location=tmp_path / "q", runtime_dir=runtime_dir)
    done = asyncio.Event()

    def hear(event: Event) -> None:
        events.append(event)
        if isinstance(event, RecipientDone):
            done.set()

    async with mailrider.Queue(settings, on_event=hear) as delivering:
        await delivering.idle()
        async with mailrider.Queue(settings, deliver=False) as taking:
            await taking.submit(MESSAGE, "a@example.org", ["b@example.net"])
        await done.wait()


def named(text: str, tmp_path: Path) -> dict[str, Settings]:
    head = f"hostname mx.example.org\nstate_dir {tmp_path}\nruntime_dir {tmp_path}\ntarget.remote out {{ }}\n"
    return {name: each.settings for name, each in loads(head + text).targets.items()}


async def notify(text: str, tmp_path: Path, emit: Emit = discard) -> dict[str, list[tuple[str, int]]]:
    """The queue `a` tells a sender of a failure: who waits in which queue then, and how often each was tried."""
    settings = named(text, tmp_path)
    async with open_engine(DEAD_DNS, emit) as engine, Targets(engine, settings) as targets:
        queue = await open_a(targets, settings)
        assert await queue.tell_failed(envelope("b@example.net"), Content.inspect(MESSAGE), NO_SUCH_USER)
        await queue.idle()  # what goes to another queue is there
        for each in targets.queues.values():
            await each.idle()
        return {
            name: [(each.recipient, each.progress.tries) for each in await opened.store.page(EVERYTHING, 0, 9)]
            for name, opened in targets.queues.items()
        }


async def open_a(targets: Targets, settings: dict[str, Settings]) -> DeliveryQueue:
    queue = settings["a"]
    assert isinstance(queue, QueueSettings)
    return await targets.open_queue(queue)


async def open_from(settings: dict[str, Settings]) -> None:
    async with open_engine(DEAD_DNS, discard) as engine, Targets(engine, settings) as targets:
        await open_a(targets, settings)


async def test_two_queues_may_send_their_notifications_through_each_other(tmp_path: Path) -> None:
    text = (
        "target.queue a {\n target &out\n bounce {\n deliver_to &b\n }\n}\n"
        "target.queue b {\n target &out\n bounce {\n deliver_to &a\n }\n}\n"
    )
    assert await notify(text, tmp_path) == {"a": [], "b": [("a@example.org", 1)]}


async def test_a_queue_may_send_its_notifications_itself(tmp_path: Path) -> None:
    text = "target.queue a {\n target &out\n bounce {\n deliver_to &a\n }\n}\n"
    assert await notify(text, tmp_path) == {"a": [("a@example.org", 1)]}


async def test_a_notification_that_a_queue_sends_itself_is_not_queued_there_once_more(tmp_path: Path) -> None:
    text = "target.queue a {\n target &out\n bounce {\n deliver_to &a\n }\n}\n"
    events = list[Event]()
    await notify(text, tmp_path, events.append)
    assert [each.outcome.status for each in events if isinstance(each, RecipientDone)] == ["deferred"]
    assert not any(isinstance(each, MessageQueued) for each in events)


async def test_settings_that_stand_in_two_places_are_one_target(tmp_path: Path) -> None:
    remote, alike, outside = (RemoteSettings(hostname="mx.example.org") for _ in range(3))
    queue = QueueSettings(target=remote, location=tmp_path / "q")
    async with open_engine(DEAD_DNS, discard) as engine, Targets(engine, {"out": outside}) as targets:
        assert await targets.open(queue) is await targets.open(queue)
        assert list(targets.queues) == [str(tmp_path / "q")]
        assert await targets.open(remote) is await targets.open(remote)
        assert await targets.open(remote) is not await targets.open(alike)
        assert await targets.open(outside) is await targets.open(TargetRef("out"))


# What a configuration file is refused for, a program may give all the same.


async def test_targets_that_lead_in_a_circle_are_refused(tmp_path: Path) -> None:
    chain = {"a": "b", "b": "c", "c": "b"}
    queues = {name: QueueSettings(target=TargetRef(to), location=tmp_path / name) for name, to in chain.items()}
    with pytest.raises(ConfigError, match="b -> c -> b"):
        await open_from({**queues})


async def test_two_queues_cannot_share_a_directory(tmp_path: Path) -> None:
    settings = named("", tmp_path)
    for name, to in {"a": "b", "b": "out"}.items():
        settings[name] = QueueSettings(target=TargetRef(to), location=tmp_path / "x", hostname="mx.example.org")
    with pytest.raises(ConfigError, match="share the directory"):
        await open_from(settings)


async def test_the_configuration_gives_queues_by_name(tmp_path: Path) -> None:
    file = tmp_path / "mailrider.conf"
    file.write_text(
        f"hostname a.example\nstate_dir {tmp_path}\ntarget.remote out {{ }}\ntarget.queue q {{\n target &out\n}}\n"
    )
    loaded = mailrider.load(file)
    async with loaded.queue("q", deliver=False) as queue:
        assert len(await queue.submit(MESSAGE, "a@example.org", ["b@example.net"])) == 13
    with pytest.raises(ConfigError, match=r"no target\.queue"):
        loaded.queue("out")


# --- The pipeline --------------------------------------------------------------------------------


class Fixed:
    def __init__(self, outcome: Callable[[Recipient], Outcome]) -> None:
        self.outcome = outcome

    async def deliver(self, given: Envelope, _: Content, _handover: Handover = DIRECT) -> AttemptReport:
        return AttemptReport(tuple(map(self.outcome, given.recipients)))


async def test_a_pipeline_shares_a_message_out_and_keeps_the_order() -> None:
    good, bad = TargetRef("good"), TargetRef("bad")
    pipeline = PipelineSettings(
        destination=[
            (["good.example"], RouteSettings(deliver_to=good)),
            (["bad.example"], RouteSettings(deliver_to=bad)),
        ],
        reject="550 5.1.1 unknown",
    )
    targets: dict[Any, Fixed] = {good: Fixed(delivered), bad: Fixed(deferred)}
    deliverer = PipelineDeliverer(routes_of(pipeline, targets.__getitem__))
    report = await deliverer.deliver(
        envelope("1@bad.example", "2@none.example", "3@good.example", "4@bad.example"), Content.inspect(MESSAGE)
    )
    assert [(str(each.recipient)[0], each.status.value) for each in report] == [
        ("1", "deferred"),
        ("2", "failed"),
        ("3", "delivered"),
        ("4", "deferred"),
    ]


# --- Words between processes ---------------------------------------------------------------------


@pytest.fixture
def runtime_dir() -> Iterator[Path]:
    """A short path: the name of a socket has 107 octets at most."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


async def test_every_listener_of_a_queue_hears_every_word_and_no_other_queues(
    tmp_path: Path, runtime_dir: Path
) -> None:
    heard: list[tuple[str, Signal]] = []
    got = asyncio.Event()

    def place(location: str) -> QueueDirectory:
        return QueueDirectory(tmp_path / location, runtime_dir / "run")

    def listener(name: str, location: str) -> SignalListener:
        def hear(word: Signal) -> None:
            heard.append((name, word))
            if len(heard) == 3:
                got.set()

        return SignalListener(place(location), hear, lambda _: None)

    async with listener("a", "q"), listener("b", "q"), listener("c", "other"):
        assert place("q").send(Signal.RETRY) == 2
        assert place("other").send(Signal.LOOK) == 1
        await got.wait()
    assert sorted(heard, key=str) == [("a", Signal.RETRY), ("b", Signal.RETRY), ("c", Signal.LOOK)]
    assert list((runtime_dir / "run").iterdir()) == []
    assert place("q").send(Signal.LOOK) == 0


async def test_an_act_is_told_to_one_worker_of_a_daemon_and_to_every_other_process(
    tmp_path: Path, runtime_dir: Path
) -> None:
    heard: list[tuple[str, Event]] = []
    acted = OperatorActed("hold", "anna", "all", 1, 0)

    def listener(name: str, *, is_worker: bool) -> SignalListener:
        place = QueueDirectory(tmp_path / "q", runtime_dir, is_worker)
        return SignalListener(place, lambda _: None, lambda event: heard.append((name, event)))

    async with AsyncExitStack() as stack:
        for _ in range(3):
            await stack.enter_async_context(listener("worker", is_worker=True))
        await stack.enter_async_context(listener("program", is_worker=False))
        assert QueueDirectory(tmp_path / "q", runtime_dir).send_act(acted) == 2
        await eventually(lambda: len(heard) == 2)
        assert sorted(heard, key=str) == [("program", acted), ("worker", acted)]
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as dead:
            first = next(each for each in runtime_dir.rglob("*w*-*") if each.is_socket())
            dead.bind(str(first.with_name(first.name.rpartition("w")[0] + "w0-0")))
        assert QueueDirectory(tmp_path / "q", runtime_dir).send_act(acted) == 2, "one that died is passed over"
        await eventually(lambda: len(heard) == 4)


async def test_the_socket_of_a_dead_process_is_taken_away(tmp_path: Path, runtime_dir: Path) -> None:
    place = QueueDirectory(tmp_path / "q", runtime_dir)
    async with SignalListener(place, lambda _: None, lambda _: None):
        (path,) = (each for each in runtime_dir.rglob("*") if each.is_socket())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as dead:
        dead.bind(str(path))
    assert place.send(Signal.LOOK) == 0
    assert not path.exists()


async def test_where_no_socket_can_be_nothing_is_heard_and_nothing_fails(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    place = QueueDirectory(tmp_path / "q", tmp_path / "file" / "run")
    async with SignalListener(place, lambda _: None, lambda _: None):
        assert place.send(Signal.LOOK) == 0


# --- Cancelling ----------------------------------------------------------------------------------


async def cancelled_after(turns: int, queue: mailrider.Queue, message: bytes, id: str) -> None:
    task = asyncio.create_task(queue.submit(message, "a@example.org", ["b@example.net", "c@example.net"], id=id))
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])


@pytest.mark.parametrize("size", [100, 1_000_000], ids=["small", "large"])
@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 8])
async def test_a_submit_that_was_cancelled_can_be_taken_back_with_certainty(
    tmp_path: Path, turns: int, size: int
) -> None:
    async with mailrider.Queue(target=REMOTE, location=tmp_path / "q", deliver=False) as queue:
        id = queue.new_id()
        await cancelled_after(turns, queue, MESSAGE + b"x" * size + b"\r\n", id)
        assert await queue.cancel(id)
        assert await queue.opened.store.page(EVERYTHING, 0, 1) == []


async def test_a_message_that_was_accepted_can_be_cancelled_while_nobody_has_it(tmp_path: Path) -> None:
    async with mailrider.Queue(target=REMOTE, location=tmp_path / "q", deliver=False) as queue:
        id = queue.new_id()
        assert await queue.submit(MESSAGE, "a@example.org", ["b@example.net"], id=id) == id
        assert await queue.cancel(id)
        assert await queue.opened.store.page(EVERYTHING, 0, 1) == []
        assert not await queue.cancel(id)  # it is not known any more


async def test_what_was_delivered_or_removed_by_others_is_too_late(tmp_path: Path) -> None:
    async with mailrider.Queue(target=REMOTE, location=tmp_path / "q", deliver=False) as queue:
        id = queue.new_id()
        await queue.submit(MESSAGE, "a@example.org", ["b@example.net", "c@example.com"], id=id)
        await queue.opened.command(QueueCommand.REMOVE, Filter(domain="example.net"))
        assert not await queue.cancel(id)
        assert await queue.opened.store.page(EVERYTHING, 0, 1) == []


async def test_an_id_is_for_one_message_and_comes_from_the_queue(tmp_path: Path) -> None:
    async with mailrider.Queue(target=REMOTE, location=tmp_path / "q", deliver=False) as queue:
        id = queue.new_id()
        await queue.submit(MESSAGE, "a@example.org", ["b@example.net"], id=id)
        for wrong in (id, "0000000000000", "no id"):
            with pytest.raises(InvalidValue):
                await queue.submit(MESSAGE, "a@example.org", ["b@example.net"], id=wrong)
