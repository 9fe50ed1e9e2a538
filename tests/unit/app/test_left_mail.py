"""Which queues a reload leaves behind, and what is told of the mail in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mailrider.app import left_mail
from mailrider.app.left_mail import tell_left_mail, unknown_queues
from mailrider.config import dropped_queues, load
from mailrider.model.daemon_event import MailLeftBehind
from mailrider.model.event import Bug, Event
from mailrider.queue.sqlite.file import FILE
from mailrider.queue.sqlite.store import SQLiteStore
from mailrider.testing.clock import FakeClock

if TYPE_CHECKING:
    from pathlib import Path

    from mailrider.config import Configuration

NEXT = "target.smtp next {\nhost tcp://127.0.0.1:9\n}"
QUEUE = "target.queue mail {\ntarget &next\n}"


def read(tmp_path: Path, text: str) -> Configuration:
    path = tmp_path / "mailrider.conf"
    path.write_text(
        f"hostname mx.here.test\nstate_dir {tmp_path}/state\n{NEXT}\n" + text.replace("FOLDER", str(tmp_path))
    )
    return load(path)


@pytest.mark.parametrize(
    ("new", "dropped"),
    [
        (QUEUE, []),
        ("", ["mail"]),
        ("target.queue mail {\ntarget &next\nlocation FOLDER/elsewhere\n}", ["mail"]),
        ("target.queue other {\ntarget &next\nlocation FOLDER/state/mail\n}", []),
        ("target.queue mail {\ntarget &next\nlocation FOLDER/link/mail\n}", []),
    ],
    ids=["the same", "taken out", "moved", "another name", "the same directory by another path"],
)
def test_a_queue_is_dropped_if_no_queue_has_its_directory_any_more(
    tmp_path: Path, new: str, dropped: list[str]
) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "state")
    found = dropped_queues(read(tmp_path, QUEUE), read(tmp_path, new))
    assert found == [(name, tmp_path / "state" / name) for name in dropped]


def test_a_queue_without_a_name_is_dropped_with_its_endpoint(tmp_path: Path) -> None:
    endpoint = "submission tcp://127.0.0.1:9 {\ndeliver_to queue {\ntarget &next\n}\n}"
    assert dropped_queues(read(tmp_path, endpoint), read(tmp_path, QUEUE)) == [("", tmp_path / "state/queue")]


async def test_a_start_finds_the_queues_in_the_state_directory_that_it_has_not(tmp_path: Path) -> None:
    configuration = read(tmp_path, QUEUE)
    assert unknown_queues(configuration) == [], "there is no state directory yet"
    for name in ("mail", "old", "older"):
        async with SQLiteStore(tmp_path / "state" / name, FakeClock()):
            pass
    (tmp_path / "state/spool").mkdir()
    (tmp_path / "state/users").write_text("no directory")
    (tmp_path / "state/link").symlink_to(tmp_path / "state/mail")
    (tmp_path / "state/circle").symlink_to(tmp_path / "state/circle")
    assert unknown_queues(configuration) == [(name, tmp_path / "state" / name) for name in ("old", "older")]


def test_what_a_start_may_not_look_into_is_no_queue_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(_: Path) -> list[int]:
        raise PermissionError

    configuration = read(tmp_path, QUEUE)
    (tmp_path / "state/other").mkdir(parents=True)
    monkeypatch.setattr(left_mail, "shards_in", deny)
    assert unknown_queues(configuration) == []


async def told(location: Path) -> list[Event]:
    events = list[Event]()
    await tell_left_mail([("mail", location)], FakeClock(), events.append)
    return events


async def test_nothing_is_told_of_a_queue_that_nobody_has_used_or_that_is_empty(tmp_path: Path) -> None:
    assert await told(tmp_path / "missing") == []
    async with SQLiteStore(tmp_path / "used", FakeClock()):
        assert await told(tmp_path / "used") == []
    assert await told(tmp_path / "used") == []


async def test_of_a_queue_that_cannot_be_read_it_is_told_that_mail_may_be_there(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("this is no database, whatever its name says")
    assert await told(tmp_path) == [MailLeftBehind("mail", str(tmp_path), None)]


async def test_a_bug_in_the_look_ends_no_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(left_mail, "ShardsReader", fail)
    assert [type(each) for each in await told(tmp_path)] == [Bug, MailLeftBehind]
