"""A reload and a stop while servers take their time: nothing pauses, nothing is repeated, nothing is lost."""

from __future__ import annotations

import asyncio
import os
import signal
import smtplib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from mailrider.app.daemon import Daemon
from mailrider.config import load
from mailrider.lab.ca import Kind
from mailrider.lab.mx import LabMX
from mailrider.lab.mx_script import MXScript, Silence, Stage
from mailrider.model.daemon_event import DaemonReady, ReloadRefused
from mailrider.model.event import Bug, Event
from mailrider.model.reply import Reply
from tests.flow.app.running import running, submit
from tests.flow.app.test_run import configuration
from tests.support.channels import authority
from tests.support.loopback import free_port
from tests.support.loops import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path


class ThinkingServer:
    """An SMTP server that answers the final dot of its first message only when it is told to."""

    def __init__(self) -> None:
        self.address, self.port = "127.0.0.1", 0
        self.contents: list[str] = []
        self.may_answer = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mx\r\n")
        while line := await reader.readline():
            verb = line.split()[0].upper()
            if verb == b"DATA":
                writer.write(b"354 go on\r\n")
                self.contents.append((await reader.readuntil(b"\r\n.\r\n")).decode())
                if len(self.contents) == 1:
                    await self.may_answer.wait()
            writer.write(b"221 bye\r\n" if verb == b"QUIT" else b"250 ok\r\n")
        writer.close()


@asynccontextmanager
async def thinking() -> AsyncIterator[ThinkingServer]:
    thinker = ThinkingServer()
    server = await asyncio.start_server(thinker.serve, "127.0.0.1", 0)
    async with server:
        thinker.port = server.sockets[0].getsockname()[1]
        yield thinker
        thinker.may_answer.set()


async def test_a_reload_ends_no_attempt_and_keeps_nobody_waiting(tmp_path: Path) -> None:
    port = free_port()
    async with thinking() as mx, running(configuration(tmp_path, port, mx)) as daemon:  # type: ignore[arg-type]
        await submit(port, "slow@example.net")
        await eventually(lambda: len(mx.contents) == 1)
        daemon.process.send_signal(signal.SIGHUP)
        await daemon.line("reloaded")
        await submit(port, "quick@example.net")
        assert "recipient=quick@example.net" in await daemon.line("queue_delivered")
        mx.may_answer.set()
        assert "recipient=slow@example.net" in await daemon.line("queue_delivered")
        assert "was_cut_off=no" in await daemon.line("earlier_configuration_ended")
        assert await daemon.stop() == 0
        assert len(mx.contents) == 2


async def test_who_is_connected_when_it_reloads_is_served(tmp_path: Path) -> None:
    port = free_port()
    async with LabMX() as mx, running(configuration(tmp_path, port, mx)) as daemon:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert (await reader.readline()).startswith(b"220 ")
        daemon.process.send_signal(signal.SIGHUP)
        await daemon.line("reloaded")
        for line, code in (("HELO a.test", 250), ("MAIL FROM:<a@a.test>", 250), ("RCPT TO:<b@example.net>", 250)):
            writer.write(f"{line}\r\n".encode())
            assert (await reader.readline()).startswith(b"%d " % code)
        writer.write(b"DATA\r\n")
        assert (await reader.readline()).startswith(b"354 ")
        writer.write(b"Subject: x\r\n\r\n.\r\n")
        assert (await reader.readline()).startswith(b"250 2.0.0 Queued")
        assert (await mx.wait_message()).addresses == ["b@example.net"]
        writer.close()
        assert await daemon.stop() == 0


async def test_a_stop_ends_at_once_what_has_not_begun_to_send_and_counts_no_try(tmp_path: Path) -> None:
    port = free_port()
    async with LabMX(MXScript(replies={Stage.RCPT: Silence()})) as mx:
        async with running(configuration(tmp_path, port, mx)) as daemon:
            await submit(port)
            await mx.wait_connection()
            await eventually(lambda: any(stage is Stage.MAIL for stage in _stages(mx)))
            daemon.process.send_signal(signal.SIGHUP)  # also what an earlier configuration has begun
            await daemon.line("reloaded")
            assert await daemon.stop() == 0
        assert any("attempt_interrupted" in line for line in daemon.lines)
        mx.script = MXScript()
        async with running(configuration(tmp_path, port, mx)) as daemon:
            assert "tries" not in await daemon.line("queue_delivered")
            assert await daemon.stop() == 0


def _stages(mx: LabMX) -> list[Stage]:
    return [Stage(type(command)) for connection in mx.connections for command in connection.commands]


async def test_limits_go_on_counting_over_a_reload(tmp_path: Path) -> None:
    port, direct = free_port(), free_port()
    more = f"submission tcp://127.0.0.1:{direct} {{\ndeliver_to &next\nlimits {{\nall rate 2 1h\n}}\n}}"
    async with LabMX() as mx, running(configuration(tmp_path, port, mx, more=more)) as daemon:
        for _ in range(2):
            await submit(direct)
        configuration(tmp_path, port, mx, hostname="new.here.test", more=more)
        daemon.process.send_signal(signal.SIGHUP)
        await daemon.line("reloaded")
        with pytest.raises(smtplib.SMTPDataError, match="Too many messages"):
            await submit(direct)
        assert await daemon.stop() == 0


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("target.remote other {{\nlocal_ip 192.0.2.77\n}}", "local_ip 192.0.2.77"),
        ("target.remote other {{\nmx_auth {{\nmtasts {{\nfs_dir {folder}/file\n}}\n}}\n}}", "fs_dir"),
        ("target.queue other {{\ntarget &next\nlocation {folder}/file\n}}", "file"),
    ],
    ids=["an address that is not ours", "a cache that is a file", "a queue that is a file"],
)
async def test_what_would_fail_later_is_found_before_anything_changes(tmp_path: Path, fault: str, said: str) -> None:
    port = free_port()
    (tmp_path / "file").write_text("")
    async with LabMX() as mx, running(configuration(tmp_path, port, mx)) as daemon:
        configuration(tmp_path, port, mx, hostname="new.here.test", more=fault.format(folder=tmp_path))
        daemon.process.send_signal(signal.SIGHUP)
        line = await daemon.line(" error reload_refused")
        assert said in line
        assert "\\x0a" not in line
        assert "the old configuration stays in force" in line
        await submit(port)
        assert b"by mx.here.test with" in (await mx.wait_message()).content
        assert await daemon.stop() == 0


async def test_after_a_reload_new_connections_have_the_new_configuration_while_old_ones_last(tmp_path: Path) -> None:
    port = free_port()

    async def greeting() -> tuple[str, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        return (await reader.readline()).decode().split()[1], writer

    async with LabMX() as mx:
        path = configuration(tmp_path, port, mx)
        async with running(path) as daemon:
            opened = [await greeting()]
            path.write_text(path.read_text().replace("hostname mx.here.test", "hostname mx.new.test"))
            daemon.process.send_signal(signal.SIGHUP)
            await daemon.line(" reloaded")
            opened += [await greeting() for _ in range(20)]
            for _, writer in opened:
                writer.close()
            assert await daemon.stop() == 0
        assert [each for each, _ in opened] == ["mx.here.test"] + ["mx.new.test"] * 20


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_refused_reload_leaves_no_unix_socket_that_refuses_clients(tmp_path: Path, workers: int) -> None:
    port, path = free_port(), tmp_path / "run" / "submission.sock"
    more = f"workers {workers}"
    async with LabMX() as mx, running(configuration(tmp_path, port, mx, more=more)) as daemon:
        path.unlink()
        (tmp_path / "file").write_text("")
        configuration(
            tmp_path, port, mx, more=f"{more}\ntarget.queue other {{\ntarget &next\nlocation {tmp_path}/file\n}}"
        )
        daemon.process.send_signal(signal.SIGHUP)
        await daemon.line("reload_refused")
        with pytest.raises(FileNotFoundError):
            await asyncio.open_unix_connection(path)
        configuration(tmp_path, port, mx, more=more)
        daemon.process.send_signal(signal.SIGHUP)
        await daemon.line(" reloaded")
        reader, writer = await asyncio.open_unix_connection(path)
        assert (await reader.readline()).startswith(b"220 ")
        writer.close()
        assert await daemon.stop() == 0


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("target.queue queue", "target.queue other").replace("&queue", "&other"),
        lambda text: text.replace("target &next", "target &next\nlocation elsewhere"),
    ],
    ids=["dropped", "moved"],
)
async def test_a_reload_tells_of_mail_that_it_leaves_in_the_directory_of_a_queue(
    tmp_path: Path, workers: int, change: Callable[[str], str]
) -> None:
    port = free_port()
    script = MXScript(replies={Stage.RCPT: Reply.make(451, "4.0.0", "Later")})
    async with LabMX(script) as mx:
        path = configuration(tmp_path, port, mx, more=f"workers {workers}")
        async with running(path) as daemon:
            for _ in range(3):
                await submit(port)
            daemon.process.send_signal(signal.SIGHUP)
            await daemon.line(" reloaded")
            path.write_text(change(path.read_text()))
            daemon.process.send_signal(signal.SIGHUP)
            line = await daemon.line(" mail_left_behind")
            assert f" warning mail_left_behind queue=queue location={tmp_path}/state/queue messages=3 " in line
            daemon.process.send_signal(signal.SIGHUP)  # the queue that it has now has no mail
            await daemon.line(" reloaded")
            assert await daemon.stop() == 0
            assert sum(" mail_left_behind" in line for line in daemon.lines) == 1


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_start_and_a_reload_tell_once_of_a_certificate_of_ours_that_has_expired(
    tmp_path: Path, workers: int
) -> None:
    cert, key = authority().issue(["mx.here.test"], Kind.EXPIRED).write(tmp_path, Kind.EXPIRED)
    async with LabMX() as mx:
        path = configuration(tmp_path, free_port(), mx, more=f"workers {workers}\ntls {cert} {key}")
        async with running(path) as daemon:
            daemon.process.send_signal(signal.SIGHUP)
            await daemon.line(" reloaded")
            assert await daemon.stop() == 0
            told = [line for line in daemon.lines if " error own_certificate_faulty " in line]
            assert len(told) == 2
            assert f"the certificate {cert} expired on " in told[0]


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_start_tells_of_mail_in_a_queue_that_it_has_no_more(tmp_path: Path, workers: int) -> None:
    port = free_port()
    script = MXScript(replies={Stage.RCPT: Reply.make(451, "4.0.0", "Later")})
    async with LabMX(script) as mx:
        path = configuration(tmp_path, port, mx, more=f"workers {workers}")
        async with running(path) as daemon:
            await submit(port)
            assert await daemon.stop() == 0
            assert not any(" mail_left_behind" in line for line in daemon.lines)
        path.write_text(
            path.read_text().replace("target.queue queue", "target.queue other").replace("&queue", "&other")
        )
        async with running(path) as daemon:
            line = await daemon.line(" mail_left_behind")
            assert f" warning mail_left_behind queue=queue location={tmp_path}/state/queue messages=1 " in line
            assert "no queue of this configuration has this location" in line
            assert await daemon.stop() == 0


@pytest.mark.parametrize(
    "error", [OSError(97, "Address family not supported by protocol"), RuntimeError("nobody expected that")]
)
async def test_no_failure_of_a_reload_ends_the_daemon(
    tmp_path: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mailrider.app.daemon.prepare_process", lambda: None)
    port, events = free_port(), list[Event]()
    async with LabMX() as mx:
        path = configuration(tmp_path, port, mx)

        def fail() -> Any:
            raise error

        task = asyncio.create_task(Daemon(fail, events.append, environment={}).run(load(path)))
        await eventually(lambda: _is_told(events, DaemonReady))
        os.kill(os.getpid(), signal.SIGHUP)
        await eventually(lambda: _is_told(events, ReloadRefused))
        assert _is_told(events, Bug) == isinstance(error, RuntimeError)
        await submit(port)
        await mx.wait_message()
        os.kill(os.getpid(), signal.SIGTERM)
        await task


async def test_no_signal_waits_for_a_look_into_queues_that_are_not_delivered_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may last: of such a queue nobody knows how large it is."""
    monkeypatch.setattr("mailrider.app.daemon.prepare_process", lambda: None)
    looks, events = list[str](), list[Event]()

    async def look_for_ever(*_: object) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            looks.append("ended")

    monkeypatch.setattr("mailrider.app.daemon.tell_left_mail", look_for_ever)
    async with LabMX() as mx:
        path = configuration(tmp_path, free_port(), mx)
        task = asyncio.create_task(Daemon(lambda: load(path), events.append, environment={}).run(load(path)))
        await eventually(lambda: _is_told(events, DaemonReady))
        for number in (1, 2):
            os.kill(os.getpid(), signal.SIGHUP)
            await eventually(_count(events, "Reloaded", number))
        os.kill(os.getpid(), signal.SIGTERM)
        await task
        assert looks == ["ended"] * 3


def _is_told(events: list[Event], kind: type[Event]) -> bool:
    return any(isinstance(event, kind) for event in events)


async def test_the_oldest_of_too_many_configurations_has_to_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mailrider.app.daemon.prepare_process", lambda: None)
    monkeypatch.setattr("mailrider.app.daemon.MAX_FINISHING", 1)
    port, events = free_port(), list[Event]()
    async with LabMX(MXScript(replies={Stage.RCPT: Silence()})) as mx:
        path = configuration(tmp_path, port, mx)
        task = asyncio.create_task(Daemon(lambda: load(path), events.append, environment={}).run(load(path)))
        await eventually(lambda: _is_told(events, DaemonReady))
        for number in range(1, 4):
            await submit(port)
            await mx.wait_connection(number)
            os.kill(os.getpid(), signal.SIGHUP)
            await eventually(_count(events, "Reloaded", number))
        await eventually(_count(events, "EarlierConfigurationEnded", 1))
        os.kill(os.getpid(), signal.SIGTERM)
        await task
        assert _count(events, "EarlierConfigurationEnded", 3)()


def _count(events: list[Event], kind: str, least: int) -> Callable[[], bool]:
    return lambda: sum(type(event).__name__ == kind for event in events) >= least


async def test_a_reload_changes_where_the_log_is_written_and_how_much_of_it(tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "mail.log"

    def logged(word: str, times: int = 1) -> bool:
        return log.exists() and log.read_text().count(f" {word} ") >= times

    async with LabMX() as mx, running(configuration(tmp_path, port, mx)) as daemon:
        configuration(tmp_path, port, mx, more=f"log file {log}\ndebug yes")
        daemon.process.send_signal(signal.SIGHUP)
        await eventually(lambda: logged("reloaded"))
        await submit(port)
        await eventually(lambda: logged("queue_delivered"))
        assert logged("dialogue")
        configuration(tmp_path, port, mx, more=f"log file {tmp_path}/missing/mail.log")
        daemon.process.send_signal(signal.SIGHUP)
        await eventually(lambda: logged("reloaded", 2))
        assert logged("log_not_reopened")
        assert await daemon.stop() == 0
