"""What a queue remembers of mail that is done, and how it is shown and erased."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from mailrider.cli.main import main
from mailrider.clock import SystemClock
from mailrider.model.reply import Reply
from mailrider.model.transcript import Transcript
from mailrider.queue.fairness import BY_DOMAIN, jobs_of
from mailrider.queue.history import HistoryBounds
from mailrider.queue.ids import format_id
from mailrider.queue.message import EVERYTHING, Change, NewState, Progress, Quota, Settlement
from mailrider.queue.settings import QueueSettings
from mailrider.queue.sqlite.shards import ShardsReader
from mailrider.queue.sqlite.store import SQLiteStore
from mailrider.queue.sqlite.views import HistoryFilter
from mailrider.queue.store import QueueCommand
from mailrider.settings.directive import InvalidSetting
from mailrider.testing.clock import FakeClock
from tests.support.queueing import Writing, deferred, delivered, failed

if TYPE_CHECKING:
    from pathlib import Path

    from mailrider.clock import Clock
    from mailrider.model.envelope import Recipient
    from mailrider.model.outcome import Outcome
    from mailrider.queue.message import NewMessage

ON = HistoryBounds()


class Life:
    """A store with a history, and what happens to messages in it."""

    def __init__(self, location: Path, clock: Clock | None = None, history: HistoryBounds = ON) -> None:
        self.location = location
        self.clock = clock or FakeClock()
        self.writing = Writing(self.clock)
        self.store = SQLiteStore(location, self.clock, history=history)

    async def end(self, message: NewMessage, *becomes: Any) -> None:
        """Each of its recipients is attempted: what `becomes` says of them in turn."""
        (job,) = jobs_of(message, BY_DOMAIN, self.store.lease)
        changes = []
        for id, make, who in zip(job.ids, becomes, job.envelope.recipients, strict=True):
            again = make is deferred
            fate = NewState.QUEUED if again else NewState.DONE
            changes.append(Change(id, fate, progress=Progress(1) if again else None, attempt=make(who)))
        await self.store.settle(Settlement(job, tuple(changes), self.clock.now()))

    async def message(self, *recipients: str, **options: Any) -> NewMessage:
        message = self.writing.message(*recipients, **options)
        await self.store.add(message, leased=True)
        return message

    async def kinds(self, wanted: HistoryFilter) -> list[tuple[str, str]]:
        traced = await ShardsReader(self.location, self.clock).trace(wanted, 100)
        return [(fact.kind, fact.recipient) for each in traced for fact in each.facts]


async def test_the_ends_of_all_recipients_are_told_in_order(tmp_path: Path) -> None:
    life = Life(tmp_path)
    async with life.store:
        message = await life.message("b@example.net", "c@example.net", "d@example.net")
        await life.end(message, delivered, failed, deferred)
        assert await life.kinds(HistoryFilter(message.id)) == [
            ("recipient.delivered", "b@example.net"),
            ("recipient.failed", "c@example.net"),
            ("recipient.deferred", "d@example.net"),
        ]


async def test_history_is_found_by_address_message_id_and_origin(tmp_path: Path) -> None:
    life = Life(tmp_path)
    async with life.store:
        first = await life.message("b@example.net", message_id="<1@x.test>", sender="a@example.org")
        second = await life.message("c@example.net", origin=format_id(first.id), sender="z@example.org")
        for each in (first, second):
            await life.end(each, delivered)
        assert await life.kinds(HistoryFilter(address="B@Example.net")) == [("recipient.delivered", "b@example.net")]
        assert await life.kinds(HistoryFilter(address="z@example.org")) == [("recipient.delivered", "c@example.net")]
        assert await life.kinds(HistoryFilter(message_id="<1@x.test>")) == [("recipient.delivered", "b@example.net")]
        assert [who for _, who in await life.kinds(HistoryFilter(first.id))] == ["b@example.net", "c@example.net"]


@pytest.mark.parametrize(
    ("given", "bounds"),
    [
        ("7d", HistoryBounds(timedelta(days=7))),
        ("7d 100", HistoryBounds(timedelta(days=7), 100)),
        (timedelta(hours=1), HistoryBounds(timedelta(hours=1))),
        ("0", HistoryBounds(timedelta(0))),
    ],
)
def test_history_takes_an_age_and_perhaps_a_number(given: timedelta | str, bounds: HistoryBounds) -> None:
    assert QueueSettings(history=given).history == bounds


@pytest.mark.parametrize("given", ["", "many", "7d 0", "7d 1 2"])
def test_history_takes_nothing_else(given: str) -> None:
    with pytest.raises(InvalidSetting, match="history"):
        QueueSettings(history=given)


async def test_without_history_nothing_is_written(tmp_path: Path) -> None:
    life = Life(tmp_path, history=HistoryBounds(timedelta(0)))
    async with life.store:
        message = await life.message()
        await life.end(message, delivered)
        assert await life.kinds(HistoryFilter(message.id)) == []


async def test_what_is_too_old_or_too_much_goes_the_oldest_first(tmp_path: Path) -> None:
    life = Life(tmp_path, history=HistoryBounds(timedelta(days=30), 2))
    async with life.store:
        for name in ("a", "b", "c"):
            await life.end(await life.message(f"{name}@example.net"), delivered)
        await life.store.keep_alive(life.clock.now())
        told = [who for _, who in await life.kinds(HistoryFilter(address="a@example.org"))]
        assert told == ["b@example.net", "c@example.net"]
        assert isinstance(life.clock, FakeClock)
        await life.clock.advance(31 * 86400)
        await life.store.keep_alive(life.clock.now())
        assert await life.kinds(HistoryFilter(address="a@example.org")) == []


async def test_what_an_operator_does_is_told_with_his_name(tmp_path: Path) -> None:
    life = Life(tmp_path)
    async with life.store:
        message = life.writing.message("b@example.net")
        await life.store.add(message, leased=False)
        for command in (QueueCommand.HOLD, QueueCommand.REMOVE):
            await life.store.command(command, EVERYTHING, life.clock.now(), "anna")
        assert [kind for kind, _ in await life.kinds(HistoryFilter(message.id))] == [
            "recipient.held",
            "recipient.removed",
        ]
        (traced,) = await ShardsReader(tmp_path, life.clock).trace(HistoryFilter(message.id), 10)
        assert traced.facts[0].details == {"by": "anna"}


@pytest.mark.parametrize("leased", [False, True])
async def test_what_an_operator_does_that_changes_nothing_is_not_told(tmp_path: Path, leased: bool) -> None:
    life = Life(tmp_path)
    async with life.store:
        message = life.writing.message("b@example.net")
        await life.store.add(message, leased=leased)
        hold, release, retry = QueueCommand.HOLD, QueueCommand.RELEASE, QueueCommand.RETRY
        for command in (release, retry, hold, hold, retry, release, release):
            await life.store.command(command, EVERYTHING, life.clock.now(), "anna")
        told = [kind.partition(".")[2] for kind, _ in await life.kinds(HistoryFilter(message.id))]
        assert told == ["retried", "held", "released"]


async def test_what_is_erased_is_gone_and_the_rest_stays(tmp_path: Path) -> None:
    life = Life(tmp_path)
    async with life.store:
        first, second = await life.message("b@example.net"), await life.message("c@example.net")
        for each in (first, second):
            await life.end(each, delivered)
        assert await life.store.drop_history(HistoryFilter(address="b@example.net")) == 1
        assert await life.kinds(HistoryFilter(address="a@example.org")) == [("recipient.delivered", "c@example.net")]


async def test_on_a_full_disk_no_history_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    life = Life(tmp_path)
    async with life.store:
        message = await life.message()
        await life.store.keep_alive(life.clock.now())  # there is no space for the spare file
        await life.end(message, delivered)
        assert await life.kinds(HistoryFilter(message.id)) == []


# --- The commands --------------------------------------------------------------------------------


@pytest.fixture
def configured(tmp_path: Path) -> Path:
    path = tmp_path / "mailrider.conf"
    path.write_text(
        "hostname mx.here.test\nstate_dir state\ntarget.queue q {\ntarget remote {\nmx_auth off\n}\nlocation q\n}\n"
    )
    return path


async def _live(location: Path) -> str:
    life = Life(location, SystemClock())
    async with life.store:
        message = await life.message("b@example.net", "c@example.net", message_id="<1@x.test>")
        await life.end(message, delivered, deferred)
    return format_id(message.id)


def _run(path: Path, *arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["-c", str(path), *arguments])
    return int(ended.value.code or 0)


def test_trace_tells_what_became_of_a_message(configured: Path, capfd: pytest.CaptureFixture[str]) -> None:
    import asyncio

    id = asyncio.run(_live(configured.parent / "state" / "q"))
    for what in (id, "<1@x.test>", "b@example.net"):
        assert _run(configured, "trace", what) == 0
        text = capfd.readouterr().out
        assert f"Message   {id}" in text
        assert "Z  delivered  b@example.net" in text
        assert "c@example.net  queued" in text
    assert _run(configured, "trace", "--json", id) == 0
    told = json.loads(capfd.readouterr().out)
    assert [each["event"] for each in told["events"]] == ["recipient.delivered", "recipient.deferred"]
    assert told["message_id"] == "<1@x.test>"
    assert _run(configured, "queue", "show", id) == 0
    assert "Z  delivered  b@example.net" in capfd.readouterr().out
    assert _run(configured, "history", "drop", "b@example.net") == 0
    assert capfd.readouterr().out == "1 event erased\n"
    assert _run(configured, "trace", "nobody@example.net") == os.EX_UNAVAILABLE


def talked(who: Recipient) -> Outcome:
    """It was deferred, and this was said."""
    outcome = deferred(who)
    said = Transcript(("S: 450 4.2.0 try later",))
    return replace(outcome, tries=(replace(outcome.tries[0], transcript=said),))


async def test_who_is_given_up_without_another_try_keeps_what_was_said_in_the_last(tmp_path: Path) -> None:
    life = Life(tmp_path)
    async with life.store:
        message = await life.message("b@example.net")
        (job,) = jobs_of(message, BY_DOMAIN, life.store.lease)
        again = Change(job.ids[0], NewState.QUEUED, progress=Progress(1), attempt=talked(job.envelope.recipients[0]))
        await life.store.settle(Settlement(job, (again,), life.clock.now()))
        (job,) = (await life.store.claim([Quota("example.net", 1)], life.clock.now())).jobs
        why = Progress(1, last=Reply.make(451, "4.4.1", "[192.0.2.1]:25 refused the connection"))
        await life.store.settle(Settlement(job, (Change(job.ids[0], NewState.DONE, progress=why),), life.clock.now()))
        (traced,) = await ShardsReader(life.location, life.clock).trace(HistoryFilter(message.id), 10)
        first, last = traced.facts
        said = [last.details[name] for name in ("code", "enhanced", "text")]
        assert said == [451, "4.4.1", "[192.0.2.1]:25 refused the connection"]
        assert "dialogue" not in first.details
        assert (last.kind, last.details["given_up"]) == ("recipient.failed", True)
        assert last.details["dialogue"] == "S: 450 4.2.0 try later"
