"""A supervisor and its workers, as real processes: start, death, silence, reload, stop."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import sysconfig
import urllib.request
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest

import mailrider
from mailrider.app import worker_process
from mailrider.app.daemon import Daemon
from mailrider.app.supervisor import Supervisor
from mailrider.app.worker_link import WorkerLink, encode_frame
from mailrider.app.worker_lock import LOCK
from mailrider.config import load, load_to_carry
from mailrider.endpoint.logins import LoginFinding
from mailrider.lab.mx import LabMX
from mailrider.model.daemon_event import (
    DaemonReady,
    EarlierWorkersAwaited,
    Reloaded,
    ReloadRefused,
    VersionChanged,
    WorkerDied,
    WorkerFailed,
    WorkerHangs,
    WorkerReady,
)
from mailrider.model.event import Event
from tests.flow.app.running import FEW_FILES, GIVEN_SOCKET, Process, running, running_anew, submit
from tests.flow.app.test_killed import Load
from tests.flow.app.test_run import configuration
from tests.support.forked import forked, run_worker
from tests.support.long_runs import LONG
from tests.support.loopback import free_port
from tests.support.loops import eventually, state_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mailrider.lab.mx_connection import LabMessage


RELOADS = 10 if LONG else 2


class Supervised:
    """A supervisor in this process, and what it tells; `log` is what its workers wrote."""

    def __init__(self, path: Path, **options: Any) -> None:
        self.events = list[Event]()
        self.log = list[str]()
        self.configuration, self.carried = load_to_carry(path)
        self.supervisor = Supervisor(lambda: load_to_carry(path), self.events.append, self.log.append, **options)
        self.task: asyncio.Task[int]

    def told(self, kind: type[Event]) -> list[Any]:
        return [each for each in self.events if isinstance(each, kind)]

    async def until(self, kind: type[Event], times: int = 1) -> Any:
        await eventually(lambda: len(self.told(kind)) >= times or self.task.done())
        assert len(self.told(kind)) >= times, (self.events, self.log)
        return self.told(kind)[-1]

    async def stop(self) -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        return await self.task


@asynccontextmanager
async def supervised(path: Path, **options: Any) -> AsyncIterator[Supervised]:
    made = Supervised(path, **options)
    with mock.patch.object(worker_process, "run_program", run_worker):
        made.task = asyncio.create_task(made.supervisor.run(made.configuration, made.carried))
        try:
            await made.until(DaemonReady)
            yield made
        finally:
            if not made.task.done():
                assert await made.stop() == 0


def with_workers(
    tmp_path: Path, port: int, mx: LabMX, workers: int | str = 2, *, more: str = "", **options: Any
) -> Path:
    return configuration(tmp_path, port, mx, more=f"workers {workers}\n{more}", **options)


async def greeting(port: int) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    line = await reader.readline()
    writer.close()
    await writer.wait_closed()
    return line.decode()


def is_alive(pid: int) -> bool:
    return state_of(pid) not in "ZX"


async def test_a_message_goes_in_and_out_and_all_stop_when_told(tmp_path: Path) -> None:
    port = free_port()
    async with LabMX() as mx, running_anew(with_workers(tmp_path, port, mx)) as daemon:
        for number in range(4):
            await submit(port, f"b{number}@example.net")
        for _ in range(4):
            assert " worker=" in await daemon.line("queue_delivered")
        assert daemon.process.pid is not None
        pids = [int(each.partition("pid=")[2].split()[0]) for each in daemon.lines if " worker_ready " in each]
        assert len(pids) == 2
        assert all(map(is_alive, pids))
        assert await daemon.stop() == 0
        assert not any(map(is_alive, pids))
        assert not (tmp_path / "run/submission.sock").exists()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)


def test_a_supervisor_imports_nothing_that_carries_mail() -> None:
    script = (
        "import sys, mailrider.cli.run, mailrider.app.supervisor\n"
        "print(*(each for each in sys.modules if each.startswith('mailrider.') or '.' not in each))"
    )
    # The measurement of coverage goes on in programs that tests start, and imports sqlite3.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, env=environment)
    imported = set(done.stdout.split())
    assert "mailrider.app.supervisor" in imported
    carriers = (
        "mailrider.smtp.server",
        "mailrider.smtp.client",
        "mailrider.smtp.transaction",
        "mailrider.smtp.parse",
        "mailrider.endpoint.session",
        "mailrider.endpoint.listener",
        "mailrider.queue.sqlite",
        "mailrider.queue.scheduler",
        "mailrider.delivery.attempt",
        "mailrider.delivery.connection",
        "mailrider.policy.judge",
    )
    assert not [each for each in imported if each.startswith(carriers)]
    assert not imported & {"uvloop", "aiohttp", "dns", "OpenSSL", "cryptography", "sqlite3"}


async def test_what_a_terminal_sends_reaches_the_supervisor_alone(tmp_path: Path) -> None:
    async with LabMX() as mx, supervised(with_workers(tmp_path, free_port(), mx)) as it:
        assert all(os.getpgid(each.pid) == each.pid for each in it.supervisor.workers)
        assert {os.getsid(each.pid) for each in it.supervisor.workers} == {os.getsid(0)}, (
            "one session, for the scheduler"
        )


async def test_a_supervisor_takes_as_many_descriptors_as_its_workers(tmp_path: Path) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with LabMX() as mx, running(with_workers(tmp_path, free_port(), mx), entry=FEW_FILES) as daemon:
        assert resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE) == (most, most)
        assert await daemon.stop() == 0


async def test_workers_run_the_program_of_their_supervisor_although_it_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An interpreter that finds what we need, and mailrider only in the directory from where it is started.
    monkeypatch.setattr(sys, "executable", str(Path(sys.executable).resolve()))
    environment = os.environ | {"PYTHONPATH": sysconfig.get_path("purelib")}
    source = Path(mailrider.__file__).parents[1]
    port = free_port()
    async with LabMX() as mx, running_anew(with_workers(tmp_path, port, mx), cwd=source, env=environment) as daemon:
        await submit(port)
        await mx.wait_message()
        assert await daemon.stop() == 0


async def test_a_worker_that_is_killed_is_started_again_and_the_other_one_goes_on(tmp_path: Path) -> None:
    port = free_port()
    async with LabMX() as mx, supervised(with_workers(tmp_path, port, mx)) as it:
        first, second = it.supervisor.workers
        os.kill(first.pid, signal.SIGKILL)
        died = await it.until(WorkerDied)
        assert (died.worker, died.code, died.again_in) == (0, -signal.SIGKILL, 1)
        for number in range(5):
            await submit(port, f"b{number}@example.net")
        await it.until(WorkerReady, 3)
        assert [each.worker for each in it.supervisor.workers] == [0, 1]
        assert is_alive(second.pid)


async def test_a_worker_that_is_started_again_has_the_configuration_in_force_whatever_the_file_says(
    tmp_path: Path,
) -> None:
    port = free_port()
    async with LabMX() as mx:
        path = with_workers(tmp_path, port, mx)
        async with supervised(path) as it:
            path.write_text("nonsense\n")
            os.kill(it.supervisor.workers[1].pid, signal.SIGKILL)
            ready = await it.until(WorkerReady, 3)
            assert (ready.worker, ready.configuration) == (1, 1)
            with_workers(tmp_path, port, mx, hostname="new.here.test")
            os.kill(os.getpid(), signal.SIGHUP)
            await it.until(Reloaded)
            path.unlink()
            os.kill(it.supervisor.workers[0].pid, signal.SIGKILL)
            ready = await it.until(WorkerReady, 6)
            assert (ready.worker, ready.configuration) == (0, 2)
            assert {await greeting(port) for _ in range(6)} == {"220 new.here.test ESMTP\r\n"}


@pytest.mark.parametrize("workers", [1, 2])
async def test_who_asks_for_debug_reads_the_dialogues(tmp_path: Path, workers: int) -> None:
    port = free_port()
    async with LabMX() as mx, running(with_workers(tmp_path, port, mx, workers), "--debug") as daemon:
        await submit(port)
        await daemon.line('direction=C line="MAIL FROM:<a@example.org>')
        assert await daemon.stop() == 0


async def test_a_supervisor_that_stood_still_goes_on_with_the_same_workers(tmp_path: Path) -> None:
    port = free_port()
    async with LabMX() as mx, running(with_workers(tmp_path, port, mx)) as daemon:
        daemon.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(3)  # longer than workers wait for an answer
        daemon.process.send_signal(signal.SIGCONT)
        await submit(port)
        await mx.wait_message()
        assert await daemon.stop() == 0
        assert not [line for line in daemon.lines if "worker_died" in line or "worker_hangs" in line]


async def test_a_worker_that_stands_still_is_killed_and_started_again(tmp_path: Path) -> None:
    port = free_port()
    async with LabMX() as mx, supervised(with_workers(tmp_path, port, mx), silence=3.0) as it:
        first = it.supervisor.workers[0]
        os.kill(first.pid, signal.SIGSTOP)
        # A busy machine may keep others silent as well.
        await eventually(lambda: (0, first.pid) in {(each.worker, each.pid) for each in it.told(WorkerHangs)})
        await eventually(lambda: 0 in {each.worker for each in it.told(WorkerDied)})
        await it.until(WorkerReady, 2 + len(it.told(WorkerDied)))
        load = Load(port)  # goes on until one message is taken
        await mx.wait_message()
        await load.stop()


async def test_a_reload_replaces_every_worker_and_keeps_nobody_waiting(tmp_path: Path) -> None:
    port = free_port()
    async with LabMX() as mx, supervised(with_workers(tmp_path, port, mx)) as it:
        before = {each.pid for each in it.supervisor.workers}
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await reader.readline()
        with_workers(tmp_path, port, mx, 3, hostname="new.here.test")
        os.kill(os.getpid(), signal.SIGHUP)
        while not it.told(Reloaded):
            await greeting(port)
        assert len(it.supervisor.workers) == 3
        assert before.isdisjoint(each.pid for each in it.supervisor.workers)
        assert "new.here.test" in await greeting(port)
        writer.write(b"NOOP\r\n")  # who is idle hears 421 after a while, and nobody is cut off
        assert (await reader.readline())[:4] in (b"250 ", b"421 ")
        writer.close()
        await eventually(lambda: not any(map(is_alive, before)))
        with_workers(tmp_path, port, mx, 2, hostname="newer.here.test")
        os.kill(os.getpid(), signal.SIGHUP)
        await it.until(Reloaded, 2)
        assert len(it.supervisor.workers) == 2
        assert not it.told(WorkerDied)


async def test_who_starts_later_knows_wrong_passwords_and_that_dnssec_works_before_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent, send = list[tuple[WorkerLink, str, Any]](), WorkerLink.send

    def note(link: WorkerLink, kind: str, body: Any = None) -> None:
        sent.append((link, kind, body))
        send(link, kind, body)

    monkeypatch.setattr(WorkerLink, "send", note)
    finding = asdict(LoginFinding("198.51.100.1", "anna", is_right=False, was_known=False))
    port = free_port()
    async with LabMX() as mx, supervised(with_workers(tmp_path, port, mx)) as it:
        first, second = (each.link for each in it.supervisor.workers)
        assert [body["proven"] for _, kind, body in sent if kind == "start"] == [False, False]
        first.data_received(encode_frame("login", finding))
        first.data_received(encode_frame("proven", None))
        assert [(link, body) for link, kind, body in sent if kind == "login"] == [(second, finding)]
        del sent[:]
        os.kill(os.getpid(), signal.SIGHUP)
        await it.until(Reloaded)
        for worker in it.supervisor.workers:
            told = [(kind, body) for link, kind, body in sent if link is worker.link]
            assert [kind for kind, _ in told[:2]] == ["logins", "start"]
            assert [body for _, body in told[0][1]] == [finding]
            assert told[1][1]["proven"]


@pytest.mark.parametrize(
    ("workers", "more", "said"),
    [
        (2, "nonsense yes", "nonsense"),
        (2, "target.remote other {\nlocal_ip 192.0.2.77\n}", "local_ip 192.0.2.77"),
        (1, "", "needs a restart of the daemon"),
        (2, "openmetrics tcp://192.0.2.77:9", "cannot listen"),
    ],
    ids=["a slip", "what only a worker can find", "one process", "counters that cannot be shown"],
)
async def test_a_reload_that_fails_changes_nothing(tmp_path: Path, workers: int, more: str, said: str) -> None:
    port = free_port()
    async with LabMX() as mx, supervised(with_workers(tmp_path, port, mx)) as it:
        before = [each.pid for each in it.supervisor.workers]
        with_workers(tmp_path, port, mx, workers, hostname="new.here.test", more=more)
        os.kill(os.getpid(), signal.SIGHUP)
        assert said in (await it.until(ReloadRefused)).reason
        assert [each.pid for each in it.supervisor.workers] == before
        assert all(map(is_alive, before))
        assert "mx.here.test" in await greeting(port)
        assert not it.told(WorkerDied)


class Everything(LabMX):
    """A server that remembers all recipients that it ever had, in order; another one only its latest messages."""

    def __init__(self) -> None:
        super().__init__(keeps_content=False)
        self.arrived = list[str]()

    def message_accepted(self, message: LabMessage) -> None:
        self.arrived += message.addresses
        super().message_accepted(message)


async def test_reloads_and_a_stop_under_load_refuse_nobody_and_lose_and_repeat_nothing(tmp_path: Path) -> None:
    port = free_port()
    async with Everything() as mx:
        path = with_workers(tmp_path, port, mx)
        async with supervised(path) as it:
            load = Load(port)
            for number in range(1, RELOADS + 1):
                before = len(load.accepted)
                await eventually(lambda least=before + 5: len(load.accepted) >= least)  # type: ignore[misc]
                os.kill(os.getpid(), signal.SIGHUP)
                await it.until(Reloaded, number)
            before = len(load.accepted)
            await eventually(lambda: len(load.accepted) > before)
            assert await it.stop() == 0
            await load.stop()
            assert not it.told(WorkerDied)
        async with supervised(path):
            await eventually(lambda: set(load.accepted) <= set(mx.arrived))
        assert len(set(mx.arrived)) == len(mx.arrived)


async def test_one_process_does_not_become_several_by_a_reload(tmp_path: Path) -> None:
    port = free_port()
    async with LabMX() as mx, running(configuration(tmp_path, port, mx)) as daemon:
        with_workers(tmp_path, port, mx, 2)
        daemon.process.send_signal(signal.SIGHUP)
        assert "a change from 1 needs a restart of the daemon" in await daemon.line("reload_refused")
        await submit(port)
        await mx.wait_message()
        assert await daemon.stop() == 0


async def test_what_a_new_worker_would_refuse_ends_the_start(tmp_path: Path) -> None:
    async with LabMX() as mx:
        more = "target.remote other {\nlocal_ip 192.0.2.77\n}"
        path = with_workers(tmp_path, free_port(), mx, more=more)
        async with forked("-c", str(path), "run") as process:
            daemon = Process(process)
            assert await daemon.ended() == os.EX_TEMPFAIL
        said = "\n".join(daemon.lines)
        assert "local_ip 192.0.2.77: cannot send from there" in said
        assert "mailrider.conf:" in said


async def test_workers_end_with_their_supervisor_also_one_that_is_stopped(tmp_path: Path) -> None:
    async with LabMX() as mx:
        path = with_workers(tmp_path, free_port(), mx)
        async with running_anew(path) as daemon:  # it is the system that wakes who is stopped when his parent dies
            pids = [int(each.partition("pid=")[2].split()[0]) for each in daemon.lines if " worker_ready " in each]
            os.kill(pids[0], signal.SIGSTOP)
            await eventually(lambda: state_of(pids[0]) == "T")
            daemon.process.kill()
            await daemon.process.wait()
        await eventually(lambda: not any(map(is_alive, pids)))


async def test_the_next_supervisor_waits_for_workers_that_still_live(tmp_path: Path) -> None:
    async with LabMX() as mx:
        path = with_workers(tmp_path, free_port(), mx)
        (tmp_path / "state").mkdir(mode=0o700, exist_ok=True)
        lock = os.open(tmp_path / "state" / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        async with forked("-c", str(path), "run") as process:
            daemon = Process(process)
            assert LOCK in await daemon.line("earlier_workers_awaited")
            os.close(lock)
            await daemon.line("daemon_ready")
            assert await daemon.stop() == 0


async def test_who_is_told_to_stop_while_it_waits_for_earlier_workers_stops(tmp_path: Path) -> None:
    async with LabMX() as mx:
        path = with_workers(tmp_path, free_port(), mx)
        async with supervised(path):
            async with forked("-c", str(path), "run") as process:
                other = Process(process)
                await other.line("earlier_workers_awaited")
                process.send_signal(signal.SIGHUP)
                assert await other.stop() == 0


def of_an_earlier_supervisor(tmp_path: Path) -> int:
    """A descriptor with the lock that its workers have."""
    (tmp_path / "state").mkdir()
    lock = os.open(tmp_path / "state" / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


@pytest.mark.parametrize("is_told_to_stop", [False, True], ids=["they end", "it is told to stop"])
async def test_one_process_waits_for_the_workers_of_an_earlier_supervisor(
    tmp_path: Path, *, is_told_to_stop: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mailrider.app.daemon.prepare_process", lambda: None)
    lock = of_an_earlier_supervisor(tmp_path)
    events = list[Event]()
    async with LabMX() as mx:
        port = free_port()
        path = configuration(tmp_path, port, mx)
        task = asyncio.create_task(Daemon(lambda: load(path), events.append, environment={}).run(load(path)))
        await eventually(lambda: any(isinstance(each, DaemonReady | EarlierWorkersAwaited) for each in events))
        assert EarlierWorkersAwaited(str(tmp_path / "state" / LOCK)) in events
        with pytest.raises(ConnectionRefusedError):
            await greeting(port)
        if not is_told_to_stop:
            os.kill(os.getpid(), signal.SIGHUP)
            os.close(lock)
            await eventually(lambda: any(isinstance(each, Reloaded) for each in events))
            assert await greeting(port)
        os.kill(os.getpid(), signal.SIGTERM)
        await task
        assert any(isinstance(each, DaemonReady) for each in events) != is_told_to_stop
    if is_told_to_stop:
        os.close(lock)


async def test_one_process_keeps_no_lock_that_others_would_wait_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mailrider.app.daemon.prepare_process", lambda: None)
    os.close(of_an_earlier_supervisor(tmp_path))
    events = list[Event]()
    async with LabMX() as mx:
        path = configuration(tmp_path, free_port(), mx)
        task = asyncio.create_task(Daemon(lambda: load(path), events.append, environment={}).run(load(path)))
        await eventually(lambda: any(isinstance(each, DaemonReady) for each in events))
        with (tmp_path / "state" / LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.kill(os.getpid(), signal.SIGTERM)
        await task


async def test_a_worker_of_another_version_ends_the_supervisor_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with LabMX() as mx, supervised(with_workers(tmp_path, free_port(), mx)) as it:
        pids = [each.pid for each in it.supervisor.workers]
        # Another version cannot be installed while this one runs its tests.
        monkeypatch.setattr(it.supervisor, "_version", "0.0.1")
        os.kill(pids[0], signal.SIGKILL)
        await it.until(VersionChanged)
        assert await it.task == os.EX_TEMPFAIL
        assert not any(map(is_alive, pids))


async def test_a_worker_that_cannot_begin_is_tried_again(tmp_path: Path) -> None:
    async with LabMX() as mx, supervised(with_workers(tmp_path, free_port(), mx)) as it:
        queue = tmp_path / "state/queue"
        first = it.supervisor.workers[0]
        queue.rename(tmp_path / "away")
        queue.write_text("no directory")
        os.kill(first.pid, signal.SIGKILL)
        failed = await it.until(WorkerFailed)
        assert failed.worker == 0
        queue.unlink()
        (tmp_path / "away").rename(queue)
        await it.until(WorkerReady, 3)


async def test_the_counters_of_all_workers_are_one_and_those_of_the_dead_stay(tmp_path: Path) -> None:
    port, counters = free_port(), free_port()

    async def look(name: str) -> float:
        def get() -> str:
            with urllib.request.urlopen(f"http://127.0.0.1:{counters}/metrics") as answer:
                return str(answer.read().decode())

        lines = (await asyncio.to_thread(get)).splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))

    async with LabMX() as mx:
        path = with_workers(tmp_path, port, mx, more=f"openmetrics tcp://127.0.0.1:{counters}")
        async with supervised(path) as it:
            for number in range(6):
                await submit(port, f"b{number}@example.net")
            await eventually(lambda: len(mx.messages) == 6)
            assert await look("mailrider_received_messages_total") == 6
            assert await look('process_open_fds{worker="supervisor"}') > 0
            assert await look('process_open_fds{worker="1"}') > 0
            for worker in it.supervisor.workers:
                os.kill(worker.pid, signal.SIGKILL)
            await it.until(WorkerReady, 4)
            assert await look("mailrider_received_messages_total") == 6
            await submit(port)
            assert await look("mailrider_received_messages_total") == 7
            os.kill(os.getpid(), signal.SIGHUP)
            await it.until(Reloaded)
            assert await look("mailrider_received_messages_total") == 7


async def test_all_write_to_one_log_file_which_may_be_moved_away(tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "mail.log"
    async with LabMX() as mx:
        path = with_workers(tmp_path, port, mx, more=f"log file {log}")
        async with forked("-c", str(path), "run") as process:
            await eventually(lambda: log.exists() and "daemon_ready" in log.read_text())
            for number in range(4):
                await submit(port, f"b{number}@example.net")
            await eventually(lambda: log.read_text().count(" queue_delivered ") == 4)
            lines = [line for line in log.read_text().splitlines() if " queue_delivered " in line]
            assert all(line.endswith((" worker=0", " worker=1")) for line in lines)
            log.rename(tmp_path / "mail.log.1")
            path.write_text(path.read_text().replace(f"log file {log}", f"log file {log} json"))
            process.send_signal(signal.SIGHUP)
            await eventually(lambda: log.exists() and "reloaded" in log.read_text())
            await submit(port)
            await eventually(lambda: '"event": "queue_delivered"' in log.read_text())
            delivered = [json.loads(line) for line in log.read_text().splitlines() if "queue_delivered" in line]
            assert [each["worker"] in (0, 1) for each in delivered] == [True]
            daemon = Process(process)
            assert (await daemon.stop(), daemon.lines) == (0, [])


async def test_a_worker_is_told_nothing_that_is_the_supervisor_s_and_no_secret(tmp_path: Path) -> None:
    port = free_port()
    async with LabMX() as mx:
        path = with_workers(tmp_path, port, mx)
        text = path.read_text().replace("starttls no", "starttls no\nauth plain me {env:MAIL_PASSWORD}\n")
        path.write_text(text.replace("min_tls_level none", "min_tls_level none"))
        given = {**os.environ, "MAIL_PASSWORD": "open sesame", "NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "60000000"}
        path.write_text(
            path.read_text().replace("auth plain me {env:MAIL_PASSWORD}\n", "") + "$(x) = {env:MAIL_PASSWORD}\n"
        )
        async with running_anew(path, env=given) as daemon:
            pids = [int(each.partition("pid=")[2].split()[0]) for each in daemon.lines if " worker_ready " in each]
            for pid in pids:
                environment = Path(f"/proc/{pid}/environ").read_bytes()
                arguments = Path(f"/proc/{pid}/cmdline").read_bytes()
                for word in (b"NOTIFY_SOCKET", b"WATCHDOG", b"open sesame"):
                    assert word not in environment + arguments
            assert await daemon.stop() == 0


async def test_a_service_manager_hears_that_it_is_ready_that_it_lives_and_that_it_stops(tmp_path: Path) -> None:
    port = free_port()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        heard = list[str]()
        asyncio.get_running_loop().add_reader(manager, lambda: heard.append(manager.recv(1000).decode()))

        def hear(word: str) -> bool:
            return any(word in each for each in heard)

        environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1000000"}
        async with LabMX() as mx:
            path = with_workers(tmp_path, port, mx)
            async with supervised(path, environment=environment) as it:
                await eventually(lambda: hear("READY=1\nSTATUS=workers: 2"))
                heard.clear()
                await eventually(lambda: hear("WATCHDOG=1"))
                os.kill(os.getpid(), signal.SIGHUP)
                await it.until(Reloaded)
                await eventually(lambda: hear("READY=1"))
                assert hear("RELOADING=1")
            await eventually(lambda: hear("STOPPING=1"))
        asyncio.get_running_loop().remove_reader(manager)


async def test_a_socket_of_the_service_manager_is_served_by_all(tmp_path: Path) -> None:
    port = free_port()
    async with LabMX() as mx:
        path = with_workers(tmp_path, port, mx)
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", port))
            listening.listen()
            async with running(path, entry=GIVEN_SOCKET, descriptors={3: listening.fileno()}) as daemon:
                for _ in range(4):
                    assert "mx.here.test" in await greeting(port)
                assert await daemon.stop() == 0
