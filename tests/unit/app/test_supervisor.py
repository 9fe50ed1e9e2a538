"""Which workers a supervisor starts, keeps and ends; they are no processes here, and do what the test says."""

from __future__ import annotations

import asyncio
import fcntl
import gc
import os
import signal
import socket
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from mailrider.app.supervisor import Supervisor
from mailrider.app.worker_link import encode_frame
from mailrider.app.worker_lock import LOCK
from mailrider.app.worker_process import NotBegun, WorkerProcess
from mailrider.app.worker_starts import READY_WITHIN
from mailrider.config import load_to_carry
from mailrider.delivery.limits.findings import SharedFinding
from mailrider.delivery.limits.share_client import TELL, TOLD
from mailrider.model.daemon_event import (
    DaemonReady,
    DaemonStopping,
    EarlierWorkersAwaited,
    Reloaded,
    ReloadRefused,
    WorkerDied,
    WorkerFailed,
)
from mailrider.model.event import Bug, Event
from mailrider.testing.clock import FakeClock
from tests.support.loops import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


class ScriptedWorker(WorkerProcess):
    """It begins to serve when the test calls `settle`, and ends when it is killed or told to stop."""

    begun: list[ScriptedWorker]
    is_told_to_finish = False
    serves_before_it_ends = False

    async def start(self, *_: Any) -> None:
        self.begun.append(self)
        self.pid = self.number
        self.heard: list[tuple[str, Any]] = []
        self.link.send = lambda kind, body=None: self.heard.append((kind, body))  # type: ignore[method-assign]

    def finish(self) -> None:
        super().finish()
        self.is_told_to_finish = True

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        if self.serves_before_it_ends:
            self.settle(None)
        self.settle(NotBegun("it was killed"))
        if not self.ended.done():
            self.ended.set_result(-number)


class Scripted:
    """A supervisor, the workers that it has started so far, in order, and what it tells."""

    def __init__(self, path: Path, begun: list[ScriptedWorker]) -> None:
        self.path = path
        self.begun = begun
        self.clock = FakeClock()
        self.events = list[Event]()
        self.task: asyncio.Task[int]
        self.manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.manager.bind(str(path.with_name("notify")))
        self.manager.setblocking(False)
        environment = {"NOTIFY_SOCKET": self.manager.getsockname()}
        self.supervisor = Supervisor(
            lambda: load_to_carry(path), self.events.append, lambda _: None, environment=environment, clock=self.clock
        )

    def manager_heard(self) -> list[str]:
        """What the service manager was told since the last time, the first word of each."""
        heard = list[str]()
        with suppress(BlockingIOError):
            while True:
                heard.append(self.manager.recv(4096).decode().split()[0])
        return heard

    def told(self, kind: type[Event]) -> list[Any]:
        return [each for each in self.events if isinstance(each, kind)]

    async def next(self, place: int) -> ScriptedWorker:
        """The worker that is started next, which has to be for this place."""
        count = len(self.begun)
        await eventually(lambda: len(self.begun) > count)
        assert self.begun[count].worker == place
        return self.begun[count]

    def configure(self, workers: int) -> None:
        self.path.write_text(
            f"""hostname mx.here.test
            state_dir state
            workers {workers}
            target.smtp next {{
                host tcp://127.0.0.1:9
                starttls no
                min_tls_level none
            }}
            target.queue queue {{
                target &next
            }}
            submission unix://{self.path.parent}/submission.sock {{
                deliver_to &queue
            }}
            """
        )

    async def reload(self, workers: int) -> ScriptedWorker:
        """Begin one, to so many workers; the first of them, which is to serve next."""
        self.configure(workers)
        os.kill(os.getpid(), signal.SIGHUP)
        return await self.next(0)

    async def pass_by(self, seconds: float) -> None:
        """Let time pass in which every worker says that it lives, whether it serves or not."""
        for _ in range(int(seconds)):
            for each in self.begun:
                each.link.data_received(encode_frame("beat", None))
            await self.clock.advance(1)

    @property
    def serving(self) -> list[tuple[int, int]]:
        """The place of each worker that serves, and the number of its configuration."""
        return [(each.worker, each.generation) for each in self.supervisor.workers]

    async def serve(self) -> None:
        """All that were started begin to serve."""
        for each in self.begun:
            each.settle(None)
        await eventually(lambda: self.told(DaemonReady))

    async def die(self, place: int) -> None:
        """Its worker dies, the first that does; another is to be started in a second."""
        self.begun[place].kill()
        await eventually(lambda: self.told(WorkerDied))

    async def begin_again(self) -> ScriptedWorker:
        """A second is over: the worker that is started instead of the dead one."""
        count = len(self.begun)
        await self.clock.advance(1)
        return self.begun[count]

    async def stop(self) -> None:
        if not self.task.done():
            os.kill(os.getpid(), signal.SIGTERM)
        await self.task
        assert self.told(Bug) == []

    def close(self) -> None:
        self.manager.close()


Start = Callable[..., Coroutine[Any, Any, Scripted]]


@pytest.fixture
async def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Start]:
    """Starts a supervisor of so many workers, which begin at once."""
    monkeypatch.setattr(ScriptedWorker, "begun", [], raising=False)
    monkeypatch.setattr("mailrider.app.worker_starts.WorkerProcess", ScriptedWorker)
    started = list[Scripted]()

    async def start(workers: int, *, waits: bool = False) -> Scripted:
        """`waits`: for earlier workers."""
        it = Scripted(tmp_path / "mailrider.conf", ScriptedWorker.begun)
        started.append(it)
        it.configure(workers)
        it.task = asyncio.create_task(it.supervisor.run(*load_to_carry(it.path)))
        if waits:
            await eventually(lambda: it.told(EarlierWorkersAwaited))
        else:
            await eventually(lambda: len(it.begun) == workers or it.task.done())
        return it

    yield start
    for each in started:
        await each.stop()
        each.close()


async def test_a_worker_that_begins_while_a_reload_takes_its_place_away_does_not_serve(start: Start) -> None:
    it = await start(3)
    await it.serve()
    await it.die(2)
    late = await it.begin_again()
    first = await it.reload(2)
    first.settle(None)
    (await it.next(1)).settle(None)
    await eventually(lambda: it.told(Reloaded))
    late.settle(None)
    await eventually(lambda: late.is_told_to_finish)
    assert it.serving == [(0, 2), (1, 2)]
    assert len(it.begun) == 6


async def test_a_worker_that_begins_during_a_reload_does_not_replace_one_of_the_new_configuration(start: Start) -> None:
    it = await start(2)
    await it.serve()
    await it.die(0)
    late = await it.begin_again()
    first = await it.reload(2)
    first.settle(None)
    (await it.next(1)).settle(None)
    await eventually(lambda: it.told(Reloaded))
    late.settle(None)
    await eventually(lambda: late.is_told_to_finish)
    assert not first.is_told_to_finish
    assert it.serving == [(0, 2), (1, 2)]
    assert len(it.begun) == 5


async def test_a_worker_that_begins_during_a_reload_is_followed_by_one_of_the_new_configuration(start: Start) -> None:
    it = await start(2)
    await it.serve()
    await it.die(1)
    late = await it.begin_again()
    (await it.reload(2)).settle(None)
    await eventually(lambda: it.told(Reloaded))
    late.settle(None)
    (await it.next(1)).settle(None)
    await eventually(lambda: it.serving == [(0, 2), (1, 2)])
    assert late.is_told_to_finish


async def test_a_start_that_was_put_off_does_not_happen_after_a_reload_to_fewer_workers(start: Start) -> None:
    it = await start(3)
    await it.serve()
    await it.die(2)
    (await it.reload(2)).settle(None)
    (await it.next(1)).settle(None)
    await eventually(lambda: it.told(Reloaded))
    await it.clock.advance(5)
    assert len(it.begun) == 5
    assert it.told(WorkerFailed) == []


async def test_a_start_that_was_put_off_does_not_replace_the_worker_that_a_reload_has_started(start: Start) -> None:
    it = await start(2)
    await it.serve()
    await it.die(1)
    (await it.reload(2)).settle(None)
    (await it.next(1)).settle(None)
    await eventually(lambda: it.told(Reloaded))
    await it.clock.advance(1)
    assert len(it.begun) == 4
    assert not any(each.is_told_to_finish for each in it.begun[2:])


async def test_a_worker_that_lives_and_does_not_begin_keeps_no_reload_from_its_end_and_is_tried_again(
    start: Start,
) -> None:
    it = await start(2)
    await it.serve()
    (await it.reload(2)).settle(None)
    stuck = await it.next(1)
    await it.pass_by(READY_WITHIN)
    await eventually(lambda: it.told(Reloaded))
    assert stuck.ended.result() == -signal.SIGKILL
    assert it.told(WorkerFailed) == [WorkerFailed(1, "it was not ready within 60 seconds", 1.0)]
    assert it.serving == [(0, 2), (1, 1)]
    await it.pass_by(1)
    it.begun[4].settle(None)
    await eventually(lambda: it.serving == [(0, 2), (1, 2)])
    (await it.reload(2)).settle(None)


async def test_a_worker_that_does_not_begin_keeps_the_others_from_no_start(start: Start) -> None:
    it = await start(2)
    it.begun[0].settle(None)
    await it.pass_by(READY_WITHIN)
    await eventually(lambda: it.told(DaemonReady))
    assert it.serving == [(0, 1)]
    await it.pass_by(1)
    it.begun[2].settle(None)
    await eventually(lambda: it.serving == [(0, 1), (1, 1)])


async def test_a_worker_that_starts_again_learns_what_others_found_out_but_not_one_of_a_new_configuration(
    start: Start,
) -> None:
    it = await start(2)
    await it.serve()
    finding = ["queue mail", "down.test", None, it.clock.monotonic() + 900]
    it.begun[0].link.data_received(encode_frame(TELL, finding))
    await it.die(1)
    again = await it.begin_again()
    assert (TOLD, [SharedFinding._make(finding)]) in again.heard
    first = await it.reload(2)
    assert [body for kind, body in first.heard if kind == TOLD] == []
    first.settle(None)


async def test_a_reload_that_is_refused_forgets_nothing_that_workers_found_out(start: Start) -> None:
    it = await start(2)
    await it.serve()
    finding = ["queue mail", "down.test", None, it.clock.monotonic() + 900]
    it.begun[0].link.data_received(encode_frame(TELL, finding))
    first = await it.reload(2)
    first.settle(NotBegun("no"))
    await eventually(lambda: it.told(ReloadRefused))
    await it.die(1)
    again = await it.begin_again()
    assert (TOLD, [SharedFinding._make(finding)]) in again.heard


async def test_workers_of_an_earlier_configuration_close_nothing_for_those_of_the_new_one(start: Start) -> None:
    it = await start(1)
    await it.serve()
    first = await it.reload(1)
    first.settle(None)
    await eventually(lambda: it.told(Reloaded))
    it.begun[0].link.data_received(encode_frame(TELL, ["queue mail", "down.test", None, it.clock.monotonic() + 900]))
    assert [body for kind, body in first.heard if kind == TOLD] == []


async def test_a_reload_while_earlier_workers_are_awaited_is_done_once_they_are_gone(
    start: Start, tmp_path: Path
) -> None:
    (tmp_path / "state").mkdir()
    earlier = os.open(tmp_path / "state" / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(earlier, fcntl.LOCK_EX)
    it = await start(1, waits=True)
    os.kill(os.getpid(), signal.SIGHUP)
    await it.clock.advance(1)
    os.close(earlier)
    await it.clock.advance(1)
    await eventually(lambda: it.begun)
    await it.serve()
    await eventually(lambda: len(it.begun) == 2)
    it.begun[1].settle(None)
    await eventually(lambda: it.told(Reloaded))
    assert it.serving == [(0, 2)]


async def test_a_start_that_fails_because_of_a_stop_leaves_no_error_behind(start: Start) -> None:
    unhandled = list[dict[str, Any]]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
    it = await start(2)
    assert not it.told(DaemonReady)
    await it.stop()
    gc.collect()
    assert unhandled == []


async def test_a_worker_that_begins_to_serve_during_a_stop_makes_no_start_of_it(start: Start) -> None:
    it = await start(1)
    it.begun[0].serves_before_it_ends = True
    await it.stop()
    assert it.told(DaemonStopping)
    assert it.told(DaemonReady) == []
    assert it.manager_heard() == ["STOPPING=1"]


@pytest.mark.parametrize("serving", [0, 1], ids=["the first worker begins", "the second worker begins"])
async def test_a_stop_during_a_reload_is_the_last_that_anybody_hears(start: Start, serving: int) -> None:
    it = await start(2)
    await it.serve()
    late = await it.reload(2)
    if serving:
        late.settle(None)
        late = await it.next(1)
    late.serves_before_it_ends = True
    await it.stop()
    assert it.told(Reloaded) == []
    assert it.told(ReloadRefused) == []
    assert it.manager_heard() == ["READY=1", "RELOADING=1", "STOPPING=1"]
