"""The log: a line is a line, whatever strangers say; and no failure of it stops mail."""

from __future__ import annotations

import io
import json
import os
import resource
import shlex
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrider.errors import LocalError
from mailrider.model.address import Mailbox
from mailrider.model.daemon_event import MailLeftBehind
from mailrider.model.domain import Domain
from mailrider.model.envelope import Recipient
from mailrider.model.event import Bug, ConnectionOpened, Dialogue, LookupDidFail
from mailrider.model.outcome import Deferred
from mailrider.model.queue_event import RecipientDone
from mailrider.model.reply import Reply
from mailrider.mtasts.policy import STSMode
from mailrider.observe.log import EventLog, is_journal
from mailrider.observe.log_file import LogFile
from mailrider.policy.sts.events import PolicyFetched

NOW = datetime(2026, 1, 1, tzinfo=UTC)
EVENT = LookupDidFail("a.test", "MX", "SERVFAIL", "deferred")


def written(*events: object, style: str = "text", debug: bool = False) -> str:
    stream = io.StringIO()
    log = EventLog(stream, style=style, debug=debug)
    for event in events:
        log(event)  # type: ignore[arg-type]
    return stream.getvalue()


def test_people_get_time_level_name_and_fields() -> None:
    time, level, name, *fields = written(EVENT).split()
    assert time.endswith("Z")
    assert "T" in time
    assert (level, name) == ("warning", "lookup_failed")
    assert fields == ["name=a.test", "type=MX", "reason=SERVFAIL", "consequence=deferred"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain", "plain"),
        ("two words", '"two words"'),
        ('say "hi"', r'"say \"hi\""'),
        ("a=b", '"a=b"'),
        ("it's", '"it\'s"'),
        ("back\\slash", r'"back\\slash"'),
        ("line\nend", r'"line\x0aend"'),
        ("\x1b[31mred", r'"\x1b[31mred"'),
        ("\u2028", r'"\x2028"'),
        ("grüße", "grüße"),
    ],
)
def test_values_are_quoted_where_they_must_be(value: str, shown: str) -> None:
    line = written(LookupDidFail("a.test", "MX", value, "deferred"))
    assert line.endswith(f" reason={shown} consequence=deferred\n")


FORGED = 'x\n2026-01-01T00:00:00Z info delivered recipient=victim@b.test\r\n"} {"event": "delivered"'


@given(st.text(max_size=200) | st.just(FORGED))
def test_no_value_forges_a_line_or_a_field_for_people(value: str) -> None:
    text = written(LookupDidFail("a.test", "MX", value, "deferred"))
    (line,) = text.removesuffix("\n").splitlines()
    words = shlex.split(line)
    assert [word.partition("=")[0] for word in words[3:]] == [
        "name",
        "type",
        *(["reason"] if value else []),
        "consequence",
    ]


@given(st.text(max_size=200) | st.just(FORGED))
def test_no_value_forges_a_line_or_a_field_for_machines(value: str) -> None:
    (line,) = written(LookupDidFail("a.test", "MX", value, "deferred"), style="json").removesuffix("\n").splitlines()
    fields = json.loads(line)
    assert fields.get("reason", "") == value
    assert (fields["event"], fields["level"], fields["name"]) == ("lookup_failed", "warning", "a.test")
    line.encode()


def test_people_read_yes_and_no_and_nothing_where_there_is_nothing() -> None:
    fetched = PolicyFetched(Domain("a.test"), "1", STSMode.NONE, timedelta(days=1), False)
    events = MailLeftBehind("", "/state/old", None), fetched
    without, line = written(*events).splitlines()
    assert "messages" not in without
    assert line.endswith(" id=1 mode=none max_age=86400 changed=no")
    for_machines = [json.loads(each) for each in written(*events, style="json").splitlines()]
    assert (for_machines[0]["messages"], for_machines[1]["changed"]) == (None, False)


def raised(error: Exception) -> Exception:
    try:
        raise error
    except Exception as caught:
        return caught


def test_a_traceback_stands_below_its_line_and_begins_none() -> None:
    error = raised(ZeroDivisionError(FORGED + "\x1b[31m"))
    first, *rest = written(Bug("delivery", error)).splitlines()
    assert " error bug where=delivery " in first
    assert any("ZeroDivisionError" in line for line in rest)
    assert all(line.startswith("    ") and line.isprintable() for line in rest)
    (line,) = written(Bug("delivery", error), style="json").splitlines()
    assert "Traceback" in json.loads(line)["exception"]


def test_details_are_written_under_debug_only() -> None:
    details = Dialogue("mx", "192.0.2.1", "C", "EHLO x"), ConnectionOpened("mx", "192.0.2.1", None, None, "not offered")
    assert written(*details) == ""
    assert len(written(*details, debug=True).splitlines()) == 2


def test_an_event_that_is_a_detail_this_time_is_written_under_debug_only() -> None:
    held_back = Deferred(Recipient(Mailbox.parse("x@a.test")), Reply.make(451, "4.4.5", "our limit"), eligible_at=NOW)
    again = RecipientDone("1", "", held_back, 0, NOW, is_repeated=True)
    assert written(again) == ""
    assert " debug queue_deferred " in written(again, debug=True)


def test_the_log_is_told_details_under_debug_only() -> None:
    for debug in (False, True):
        log = EventLog(io.StringIO(), debug=debug)
        assert (log.listener_for(Dialogue) is log, log.listener_for(LookupDidFail) is log) == (debug, True)


def test_nothing_is_formatted_for_a_line_that_is_not_written() -> None:
    class Costly:
        def __str__(self) -> str:
            raise AssertionError("nobody asked")

    assert written(Dialogue("mx", "192.0.2.1", "C", Costly())) == ""  # type: ignore[arg-type]


class Broken(io.StringIO):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    def write(self, _: str) -> int:
        raise self._error


@pytest.mark.parametrize(
    "error",
    [BrokenPipeError(), OSError(28, "No space left"), ValueError("I/O on closed file"), RuntimeError()],
    ids=repr,
)
@pytest.mark.parametrize("style", ["text", "json"])
def test_a_log_that_cannot_be_written_stops_nobody(error: Exception, style: str) -> None:
    EventLog(Broken(error), style=style)(EVENT)


def test_an_event_that_cannot_be_described_stops_nobody() -> None:
    class Evil:
        def __str__(self) -> str:
            raise RuntimeError

    assert written(LookupDidFail(Evil(), "MX", "x", "y"), EVENT).count("\n") == 1  # type: ignore[arg-type]


def test_the_journal_gets_the_priority_of_each_line_and_no_time() -> None:
    stream = io.StringIO()
    log = EventLog(stream, journal=True)
    log(EVENT)
    log(Bug("here", RuntimeError("oops")))
    first, *rest = stream.getvalue().splitlines()
    assert first.startswith("<4>warning lookup_failed name=a.test")
    assert rest[0].startswith("<3>error bug where=here")
    assert len(rest) > 1
    assert all(line.startswith("<3>    ") for line in rest[1:])


def test_the_journal_is_known_by_the_stream_that_it_names(tmp_path: Path) -> None:
    with (tmp_path / "x").open("w") as opened:
        found = os.fstat(opened.fileno())
        assert is_journal({"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}, opened.fileno())
        assert not is_journal({"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino + 1}"}, opened.fileno())
        assert not is_journal({}, opened.fileno())
    assert not is_journal({}, 999_999)


def test_a_log_file_goes_on_under_its_name_when_it_was_moved_away(tmp_path: Path) -> None:
    path = tmp_path / "log"
    file = LogFile(path)
    file.write("one\n")
    path.rename(tmp_path / "log.1")
    file.reopen()
    file.write("two\n")
    file.close()
    assert [(tmp_path / name).read_text() for name in ("log.1", "log")] == ["one\n", "two\n"]
    assert path.stat().st_mode & 0o777 == 0o600
    file.write("three\n")
    assert file.lost == 1


def test_on_a_full_disk_each_lost_line_of_a_log_file_is_counted_and_the_next_one_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "log"
    file = LogFile(path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))  # a file that can have no more stands for a full disk
    try:
        file.write("first\nsecond\nthird\n")
        file.write("fourth\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert file.lost == 3
    file.write("fifth\n")
    file.close()
    assert path.read_text() == "first\nseco\nfifth\n"


def test_a_log_file_is_no_symbolic_link_and_no_pipe_and_the_old_one_is_written_on(tmp_path: Path) -> None:
    path = tmp_path / "log"
    file = LogFile(path)
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LocalError, match="symbolic link"):
        file.reopen()
    assert not (tmp_path / "elsewhere").exists()
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(LocalError):
        file.reopen()
    file.write("still\n")
    assert file.lost == 0
    file.close()
    with pytest.raises(LocalError, match="not a regular file"):
        LogFile(Path("/dev/null"))


@pytest.mark.parametrize(("style", "said"), [("text", " worker=3\n"), ("json", '"worker":3')])
def test_a_worker_s_lines_say_whose_they_are(style: str, said: str) -> None:
    stream = io.StringIO()
    EventLog(stream, style=style, worker=3)(EVENT)
    assert said in stream.getvalue().replace(": ", ":")
