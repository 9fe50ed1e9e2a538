"""`mailrider.sync`: the library without asyncio, in threads, after a fork, and at the end of a program."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import subprocess
import sys
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest

import mailrider
import mailrider.sync
from mailrider.dns.settings import DNSSettings
from mailrider.errors import ConfigError
from mailrider.lab.mx_script import MXScript
from tests.flow.delivery.internet import internet

if TYPE_CHECKING:
    from mailrider.model.event import Event

DEAD_DNS = DNSSettings(server=["127.0.0.1:9"], timeout=0.1, attempts=1)
REMOTE = mailrider.RemoteSettings(hostname="mx.example.org", dns=DEAD_DNS)
MESSAGE = b"Subject: hello\r\n\r\nHello.\r\n"

PROGRAM = """
import sys, mailrider.sync, mailrider
dns = mailrider.DNSSettings(server=["127.0.0.1:9"], timeout=0.1, attempts=1)
queue = mailrider.sync.Queue(
    target=mailrider.RemoteSettings(hostname="mx.example.org", dns=dns), location=sys.argv[1], deliver=False
)
print(queue.submit(b"Subject: x\\r\\n\\r\\n", "a@example.org", ["b@example.net"]))
"""


def queue_at(folder: Path) -> mailrider.sync.Queue:
    return mailrider.sync.Queue(target=REMOTE, location=folder / "q", deliver=False)


def test_remote_sends_and_reports() -> None:
    with mailrider.sync.Remote(REMOTE) as remote:
        (result,) = remote.send(MESSAGE, "a@example.org", ["b@example.net"])
    assert (result.recipient, result.status) == ("b@example.net", mailrider.Status.DEFERRED)


def test_a_smarthost_sends_and_reports() -> None:
    with mailrider.sync.Smarthost(host=["tcp://127.0.0.1:9"], starttls="no", hostname="mx.example.org") as smarthost:
        (result,) = smarthost.send(MESSAGE, "a@example.org", ["b@example.net"])
    assert result.status is mailrider.Status.DEFERRED


def threads_of_targets() -> set[threading.Thread]:
    """The running threads of targets; a thread that another test left behind, or that only begins, is not ours."""
    return {thread for thread in threading.enumerate() if thread.name == "mailrider"}


def test_a_target_starts_with_its_first_call_and_again_after_close() -> None:
    before = threads_of_targets()
    remote = mailrider.sync.Remote(REMOTE)
    assert threads_of_targets() <= before
    assert len(remote.send(MESSAGE, "a@example.org", ["b@example.net"])) == 1
    (thread,) = threads_of_targets() - before
    remote.close()
    remote.close()
    assert not thread.is_alive()
    assert len(remote.send(MESSAGE, "a@example.org", ["b@example.net"])) == 1
    remote.close()


def test_a_target_that_nothing_refers_to_any_more_is_closed() -> None:
    before = threads_of_targets()
    remote = mailrider.sync.Remote(REMOTE)
    remote.send(MESSAGE, "a@example.org", ["b@example.net"])
    (thread,) = threads_of_targets() - before
    del remote
    gc.collect()
    thread.join(60)
    assert not thread.is_alive()


def test_wrong_arguments_raise_in_the_callers_thread() -> None:
    with pytest.raises(ConfigError, match="hostname is required"):
        mailrider.sync.Remote()
    with pytest.raises(ConfigError, match="needs a target"):
        mailrider.sync.Queue(hostname="mx.example.org")
    with mailrider.sync.Remote(REMOTE) as remote, pytest.raises(ValueError, match="recipients is empty"):
        remote.send(MESSAGE, "a@example.org", [])


def test_what_entering_raises_is_raised_by_the_call(tmp_path: Path) -> None:
    (tmp_path / "q").write_text("a file")
    queue = queue_at(tmp_path)
    for _ in range(2):
        with pytest.raises(mailrider.MailriderError):
            queue.submit(MESSAGE, "a@example.org", ["b@example.net"])


def test_a_queue_lists_shows_retries_and_cancels(tmp_path: Path) -> None:
    with queue_at(tmp_path) as queue:
        id = queue.submit(MESSAGE, "a@example.org", ["b@example.net", "c@example.com"])
        assert [(each.id, each.recipient, each.state) for each in queue.list()] == [
            (id, "b@example.net", "queued"),
            (id, "c@example.com", "queued"),
        ]
        shown = queue.show(id)
        assert shown is not None
        assert (shown.sender, len(shown.recipients)) == ("a@example.org", 2)
        assert queue.retry(id) == 2
        known = queue.submit(MESSAGE, "a@example.org", ["d@example.net"], id=queue.new_id())
        assert queue.cancel(known)
        assert queue.show(known) is None
        assert len(queue.list()) == 2


def test_a_queue_delivers_in_its_thread(tmp_path: Path) -> None:
    events: list[Event] = []
    with mailrider.sync.Queue(target=REMOTE, location=tmp_path / "q", on_event=events.append) as queue:
        queue.submit(MESSAGE, "a@example.org", ["b@example.net"])
        queue.idle()
        queue.drain()
        (waiting,) = queue.list()
    assert waiting.tries == 1
    assert "RecipientDone" in {type(event).__name__ for event in events}


def test_threads_share_a_queue(tmp_path: Path) -> None:
    with queue_at(tmp_path) as queue:
        work = [
            threading.Thread(target=queue.submit, args=(MESSAGE, "a@example.org", [f"{number}@example.net"]))
            for number in range(5)
        ]
        for each in work:
            each.start()
        for each in work:
            each.join()
        assert sorted(each.recipient for each in queue.list()) == [f"{number}@example.net" for number in range(5)]


def test_a_listener_that_would_wait_for_its_own_thread_is_refused(tmp_path: Path) -> None:
    refused: list[RuntimeError] = []

    def listen(_: Event) -> None:
        try:
            queue.list()
        except RuntimeError as error:
            refused.append(error)

    queue = mailrider.sync.Queue(target=REMOTE, location=tmp_path / "q", deliver=False, on_event=listen)
    with queue:
        queue.submit(MESSAGE, "a@example.org", ["b@example.net"])
    assert "cannot wait" in str(refused[0])


@pytest.mark.parametrize("moment", ["run_coroutine_threadsafe", "Future"])
def test_a_handler_of_signals_may_send_at_every_moment_of_a_call(monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    home = asyncio if moment == "run_coroutine_threadsafe" else mailrider.sync
    usual = getattr(home, moment)
    sent: list[mailrider.Result] = []
    remote = mailrider.sync.Remote(REMOTE)

    def interrupted(*arguments: object) -> object:
        monkeypatch.undo()  # it comes once
        sent.extend(remote.send(MESSAGE, "a@example.org", ["signal@example.net"]))
        return usual(*arguments)

    monkeypatch.setattr(home, moment, interrupted)
    sent.extend(remote.send(MESSAGE, "a@example.org", ["b@example.net"]))
    remote.close()
    assert [each.recipient for each in sent] == ["signal@example.net", "b@example.net"]


class SlowTarget:
    """Entered only when `may_enter` says so."""

    def __init__(self) -> None:
        self.may_enter = threading.Event()
        self.steps: list[str] = []

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self.may_enter.wait)
        self.steps.append("entered")
        return self

    async def __aexit__(self, *_: object) -> None:
        self.steps.append("left")


def test_an_interrupt_while_a_target_starts_leaves_nothing_running(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while the first call waits for its thread; the next call starts another one."""
    slow, before, interrupts = SlowTarget(), threads_of_targets(), [KeyboardInterrupt()]

    class InterruptedOnce(Future[Any]):
        def result(self, timeout: float | None = None) -> Any:
            if interrupts:
                raise interrupts.pop()
            return super().result(timeout)

    monkeypatch.setattr(mailrider.sync, "Future", InterruptedOnce)
    target = mailrider.sync.InThread(lambda: slow)
    with pytest.raises(KeyboardInterrupt):
        target.open()
    (thread,) = threads_of_targets() - before
    slow.may_enter.set()
    thread.join(60)
    assert not thread.is_alive()
    assert slow.steps == ["entered", "left"]
    with target:
        assert slow.steps[2:] == ["entered"]


def test_a_thread_that_could_not_start_is_not_waited_for_at_the_end(tmp_path: Path) -> None:
    program = """
import threading, mailrider.sync, mailrider
def refused(thread):
    raise RuntimeError("can't start new thread")
threading.Thread.start = refused
try:
    mailrider.sync.Remote(mailrider.RemoteSettings(hostname="mx.example.org")).open()
except RuntimeError as error:
    kept = error
print(kept)
"""
    assert run(program, tmp_path) == "can't start new thread\n"


def test_whoever_waits_while_it_is_closed_is_told(tmp_path: Path) -> None:
    waits, told = threading.Event(), list[str]()
    queue = queue_at(tmp_path)

    async def wait_for_ever(_: object) -> None:
        waits.set()
        await asyncio.Event().wait()

    def call() -> None:
        try:
            queue.call(wait_for_ever)
        except RuntimeError as error:
            told.append(str(error))

    thread = threading.Thread(target=call)
    thread.start()
    waits.wait()
    queue.close()
    thread.join()
    assert told == ["this Queue was closed meanwhile"]


def test_a_configurations_targets_are_used_by_name(tmp_path: Path) -> None:
    file = tmp_path / "mailrider.conf"
    file.write_text(
        "hostname mx.example.org\n"
        "target.remote out { }\n"
        "target.smtp smart { host tcp://127.0.0.1:9\nstarttls no }\n"
        f"target.queue q {{ target &out\nlocation {tmp_path}/q }}\n"
    )
    loaded = mailrider.sync.load(file)
    assert isinstance(loaded.target("out"), mailrider.sync.Remote)
    assert isinstance(loaded.target("q"), mailrider.sync.Queue)
    with pytest.raises(ConfigError, match="smart is a Smarthost, not a Remote"):
        loaded.target("smart", mailrider.sync.Remote)
    with loaded.target("smart", mailrider.sync.Smarthost) as smart:
        assert smart.send(MESSAGE, "a@example.org", ["b@example.net"])[0].status is mailrider.Status.DEFERRED
    with loaded.queue("q", deliver=False) as queue:
        assert queue.submit(MESSAGE, "a@example.org", ["b@example.net"])
    with pytest.raises(ConfigError, match="nothing"):
        loaded.target("nothing")


async def test_the_guides_program(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "guide.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", guide, re.MULTILINE | re.DOTALL)
    (program,) = [block for block in blocks if "with mailrider.sync.Remote(settings, " in block]
    async with internet({"example.net": [MXScript()]}) as net:
        monkeypatch.setattr(mailrider, "RemoteSettings", lambda **_: net.remote.settings)
        await asyncio.to_thread(exec, compile(program, "guide.md", "exec"), {})
    assert capsys.readouterr().out.startswith("b@example.net delivered 250 2.0.0 ")


def test_after_a_fork_the_child_starts_its_own_and_the_parents_goes_on(tmp_path: Path) -> None:
    program = f"""{PROGRAM}
import os
child = os.fork()
if child == 0:
    queue.submit(b"Subject: x\\r\\n\\r\\n", "a@example.org", ["child@example.net"])
    queue.close()
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
queue.submit(b"Subject: x\\r\\n\\r\\n", "a@example.org", ["parent@example.net"])
print(len(queue.list()))
queue.close()
"""
    assert run(program, tmp_path).split()[1] == "3"


def test_a_program_that_forgets_to_close_ends_in_order(tmp_path: Path) -> None:
    id = run(PROGRAM, tmp_path).strip()
    with queue_at(tmp_path) as queue:
        assert [each.id for each in queue.list()] == [id]


def run(program: str, folder: Path) -> str:
    """In a process of its own, for forking one with threads is for the brave (Python 3.12 warns of it)."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore:.*fork:DeprecationWarning", "-c", program, folder / "q"],
        env=os.environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout
