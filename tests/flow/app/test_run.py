"""The daemon as its operator sees it: it accepts, delivers, reloads and stops, and loses nothing on the way."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import smtplib
import socket
import subprocess
import sys
import urllib.request
from typing import TYPE_CHECKING

import pytest

from mailrider.clock import SystemClock, after
from mailrider.lab.mx import LabMX
from mailrider.lab.mx_script import MXScript, Stage, parse_reply
from tests.flow.app.running import PATIENCE, Process, running, running_anew, submit
from tests.support.forked import forked
from tests.support.loopback import free_port
from tests.support.loops import eventually

if TYPE_CHECKING:
    from pathlib import Path


def configuration(tmp_path: Path, port: int, mx: LabMX, *, hostname: str = "mx.here.test", more: str = "") -> Path:
    path = tmp_path / "mailrider.conf"
    path.write_text(
        f"""hostname {hostname}
        state_dir state
        runtime_dir {tmp_path}/run
        dns {{
            server 127.0.0.1:9
        }}
        target.smtp next {{
            host tcp://{mx.address}:{mx.port}
            starttls no
            min_tls_level none
        }}
        target.queue queue {{
            target &next
        }}
        submission tcp://127.0.0.1:{port} unix://{tmp_path}/run/submission.sock {{
            deliver_to &queue
        }}
        {more}
        """
    )
    return path


async def test_a_message_goes_in_and_out_and_the_daemon_stops_when_told(tmp_path: Path) -> None:
    port = free_port()
    async with LabMX() as mx, running_anew(configuration(tmp_path, port, mx)) as daemon:
        await submit(port)
        message = await mx.wait_message()
        assert message.addresses == ["b@example.net"]
        assert b"by mx.here.test with ESMTP id" in message.content
        assert b"\r\nMessage-ID: <" in message.content
        assert await daemon.stop() == 0
        assert not (tmp_path / "run/submission.sock").exists()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)


async def test_a_message_has_two_lines_in_the_log_who_brought_it_and_where_it_went(tmp_path: Path) -> None:
    port = free_port()
    async with LabMX() as mx, running(configuration(tmp_path, port, mx)) as daemon:
        await submit(port)
        last = await daemon.line("queue_delivered")
        names = [line.split()[2] for line in daemon.lines]
        assert names[names.index("daemon_ready") + 1 :] == ["mail_taken", "queue_delivered"]
        for field in ("recipient=b@example.net", f"address={mx.address}", "mx_level=none", "tls_level=none", "2.0.0"):
            assert field in last
        assert await daemon.stop() == 0


async def test_one_id_stands_in_received_in_the_reply_and_in_every_line_about_the_message(tmp_path: Path) -> None:
    port = free_port()
    refusing = MXScript(replies={Stage.RCPT: parse_reply("550 5.1.1 nobody")})
    async with LabMX(refusing) as mx, running(configuration(tmp_path, port, mx)) as daemon:
        client = await asyncio.to_thread(smtplib.SMTP, "127.0.0.1", port)
        client.helo("client.test")
        client.mail("a@example.org")
        client.rcpt("b@example.net")
        _, reply = await asyncio.to_thread(
            client.data, "From: a@example.org\r\nMessage-ID: <1@x.test>\r\n\r\nhello\r\n"
        )
        id = reply.decode().split()[-1]
        assert f" message={id} message_id=<1@x.test> " in await daemon.line("mail_taken")
        assert f" about={id} " in await daemon.line("notification_queued")
        assert f" message={id} " in await daemon.line("queue_failed")
        await asyncio.to_thread(client.quit)
        assert await daemon.stop() == 0


async def test_the_lines_of_an_attempt_name_the_message(tmp_path: Path) -> None:
    port = free_port()
    async with LabMX() as mx:
        path = configuration(tmp_path, port, mx)
        path.write_text(path.read_text().replace(f":{mx.port}", f":{free_port()}"))
        async with running(path) as daemon:
            await submit(port)
            (id,) = [each for each in (await daemon.line("mail_taken")).split() if each.startswith("message=")]
            assert f" {id} " in await daemon.line("address_failed")
            assert f" {id} " in await daemon.line("queue_deferred")
            assert await daemon.stop() == 0


async def test_what_an_operator_does_stands_in_the_log_of_the_daemon_with_his_name(tmp_path: Path) -> None:
    async with LabMX() as mx:
        path = configuration(tmp_path, free_port(), mx)
        async with running(path) as daemon:
            command = [sys.executable, "-m", "mailrider", "-c", str(path), "queue", "hold", "--domain", "example.net"]
            await asyncio.to_thread(subprocess.run, command, check=True)
            line = await daemon.line("operator_acted")
            assert " act=hold by=" in line
            assert ' meant="domain=example.net" changed=0 later=0' in line
            assert await daemon.stop() == 0


async def test_a_new_configuration_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    port, other = free_port(), free_port()
    async with LabMX() as mx, running(configuration(tmp_path, port, mx)) as daemon:
        configuration(
            tmp_path, port, mx, hostname="new.here.test", more=f"lmtp tcp://127.0.0.1:{other} {{\ndeliver_to &queue\n}}"
        )
        daemon.process.send_signal(signal.SIGHUP)
        await daemon.line("reloaded")
        await submit(port)
        assert b"by new.here.test with" in (await mx.wait_message()).content
        _, writer = await asyncio.open_connection("127.0.0.1", other)
        writer.close()
        assert await daemon.stop() == 0


@pytest.mark.parametrize("fault", ["nonsense here", "smtp tcp://0.0.0.0:1 {\ndeliver_to &queue\n}", "tls /no /no"])
async def test_a_wrong_configuration_changes_nothing_and_says_so(tmp_path: Path, fault: str) -> None:
    port = free_port()
    async with LabMX() as mx, running(configuration(tmp_path, port, mx)) as daemon:
        configuration(tmp_path, port, mx, hostname="new.here.test", more=fault)
        daemon.process.send_signal(signal.SIGHUP)
        await daemon.line("reload_refused")
        await submit(port)
        assert b"by mx.here.test with" in (await mx.wait_message()).content
        assert await daemon.stop() == 0


async def test_a_configuration_that_cannot_be_opened_leaves_the_old_one_alone(tmp_path: Path) -> None:
    port, taken = free_port(), socket.socket()
    with taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        async with LabMX() as mx, running(configuration(tmp_path, port, mx)) as daemon:
            more = f"lmtp tcp://127.0.0.1:{taken.getsockname()[1]} {{\ndeliver_to &queue\n}}"
            configuration(tmp_path, port, mx, hostname="new.here.test", more=more)
            daemon.process.send_signal(signal.SIGHUP)
            assert "cannot listen on" in await daemon.line(" error reload_refused")
            await submit(port)
            assert b"by mx.here.test with" in (await mx.wait_message()).content
            assert await daemon.stop() == 0


async def test_the_log_file_is_opened_again_at_sighup_even_if_the_reload_is_refused(tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "mail.log"
    async with LabMX() as mx:
        path = configuration(tmp_path, port, mx, more=f"log file {log} json")
        async with forked("-c", str(path), "run") as process:
            await eventually(lambda: log.exists() and "daemon_ready" in log.read_text())
            log.rename(tmp_path / "mail.log.1")
            path.write_text("nonsense here")
            process.send_signal(signal.SIGHUP)
            await eventually(lambda: log.exists() and '"reload_refused"' in log.read_text())
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_sighup_that_comes_too_early_is_obeyed_once_the_daemon_is_ready(tmp_path: Path, workers: int) -> None:
    async with LabMX() as mx:
        file = configuration(tmp_path, free_port(), mx, more=f"workers {workers}")
        pipe = tmp_path / "pipe.conf"
        os.mkfifo(pipe)
        async with forked("-c", str(pipe), "run") as process:
            daemon = Process(process)
            with await asyncio.to_thread(pipe.open, "w") as writer:  # it reads its configuration now
                process.send_signal(signal.SIGHUP)
                writer.write(file.read_text())
            await daemon.line("daemon_ready")
            await asyncio.to_thread(pipe.write_text, file.read_text())
            await daemon.line(" reloaded")
            assert await daemon.stop() == 0


@pytest.mark.parametrize("text", ["hostname mx.here.test", "target.remote next {"], ids=["no work", "a slip"])
async def test_a_sighup_that_waits_while_the_start_fails_changes_no_exit_code(tmp_path: Path, text: str) -> None:
    pipe = tmp_path / "pipe.conf"
    os.mkfifo(pipe)
    async with forked("-c", str(pipe), "run") as process:
        with await asyncio.to_thread(pipe.open, "w") as writer:  # it reads its configuration now
            process.send_signal(signal.SIGHUP)
            writer.write(text)
        assert await process.wait() == 78


async def test_what_was_accepted_survives_a_kill(tmp_path: Path) -> None:
    port = free_port()
    async with LabMX() as mx:
        gone = configuration(tmp_path, port, mx)
        there = gone.read_text()
        gone.write_text(there.replace(f"tcp://{mx.address}:{mx.port}", f"tcp://127.0.0.1:{free_port()}"))
        async with running(gone) as daemon:
            for number in range(20):
                await submit(port, f"b{number}@example.net")
            await daemon.stop(signal.SIGKILL)
        gone.write_text(there.replace("target &next", "target &next\ninitial_retry_time 1s"))
        async with running(gone) as daemon:
            subprocess.run([sys.executable, "-m", "mailrider", "-c", str(gone), "queue", "retry", "--all"], check=False)
            arrived = {(await mx.wait_message(number + 1)).addresses[0] for number in range(20)}
            assert arrived == {f"b{number}@example.net" for number in range(20)}
            assert await daemon.stop() == 0


async def told(manager: socket.socket) -> bytes:
    async with after(SystemClock(), PATIENCE):
        return await asyncio.get_running_loop().sock_recv(manager, 500)


async def test_the_service_manager_is_told_and_its_sockets_are_used(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager, socket.socket() as given:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        given.bind(("127.0.0.1", 0))
        given.listen()
        port = given.getsockname()[1]
        async with LabMX() as mx:
            script = (
                "import os, sys; os.dup2(int(sys.argv[1]), 3); os.environ['LISTEN_PID'] = str(os.getpid()); "
                "os.execv(sys.executable, [sys.executable, '-m', 'mailrider', '-c', sys.argv[2], 'run'])"
            )
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-c",
                script,
                str(given.fileno()),
                str(configuration(tmp_path, port, mx)),
                pass_fds=[given.fileno()],
                env={**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify"), "LISTEN_FDS": "1"},
                stderr=asyncio.subprocess.PIPE,
            )
            try:
                assert (await told(manager)).startswith(b"READY=1\n")
                await submit(port)
                assert (await mx.wait_message()).addresses == ["b@example.net"]
                process.send_signal(signal.SIGHUP)
                assert (await told(manager)).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
                assert (await told(manager)).startswith(b"READY=1\n")
                process.send_signal(signal.SIGTERM)
                assert await told(manager) == b"STOPPING=1"
                _, log = await process.communicate()
                assert process.returncode == 0, log.decode()
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()


async def test_a_watchdog_hears_of_one_process_as_long_as_its_event_loop_turns(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        given = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
        async with LabMX() as mx, running(configuration(tmp_path, free_port(), mx), environment=given) as daemon:
            while await told(manager) != b"WATCHDOG=1":
                pass
            daemon.process.send_signal(signal.SIGTERM)
            while await told(manager) != b"STOPPING=1":
                pass
            assert await daemon.ended() == 0


async def test_the_counters_can_be_watched(tmp_path: Path) -> None:
    port, watched = free_port(), free_port()
    more = f"openmetrics tcp://127.0.0.1:{watched}"
    async with LabMX() as mx, running(configuration(tmp_path, port, mx, more=more)) as daemon:
        await submit(port)
        await mx.wait_message()

        def look() -> str:
            with urllib.request.urlopen(f"http://127.0.0.1:{watched}/metrics") as page:
                return str(page.read().decode())

        shown = await asyncio.to_thread(look)
        assert 'mailrider_received_messages_total{endpoint="submission",reply="2xx"} 1.0' in shown
        assert 'mailrider_queue_messages{queue="queue"} ' in shown
        assert await daemon.stop() == 0


def test_without_anything_to_run_it_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "c").write_text("hostname a.test\n")
    done = subprocess.run(
        [sys.executable, "-m", "mailrider", "-c", str(tmp_path / "c"), "run"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 78
    assert "nothing to run" in done.stderr


async def test_a_client_that_is_not_trusted_gets_no_further(tmp_path: Path) -> None:
    port = free_port()
    more = f"""smtp tcp://127.0.0.1:{port} {{
        destination example.net {{
            deliver_to &queue
        }}
    }}"""
    async with LabMX() as mx, running(configuration(tmp_path, free_port(), mx, more=more)) as daemon:
        await submit(port)
        await mx.wait_message()
        with pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
            await submit(port, "x@elsewhere.test")
        assert refused.value.recipients["x@elsewhere.test"][0] == 550
        assert await daemon.stop() == 0


async def test_an_endpoint_and_its_target_may_share_one_block_of_limits(tmp_path: Path) -> None:
    """A message that is given on at once is in the block once; what the queue delivers later has to pass again."""
    port, direct = free_port(), free_port()
    narrow = "limits narrow {\nall concurrency 1\nall rate 4 1h\n}\n"
    async with LabMX() as mx:
        path = configuration(tmp_path, port, mx, more=f"submission tcp://127.0.0.1:{direct} {{\ndeliver_to &next\n}}")
        text = path.read_text()
        for block in ("min_tls_level none", "deliver_to &queue", "deliver_to &next"):
            text = text.replace(block, f"{block}\nlimits &narrow")
        path.write_text(narrow + text)
        async with running(path) as daemon:
            await submit(direct)
            await submit(port)
            await mx.wait_message(2)
            await submit(direct)
            with pytest.raises(smtplib.SMTPDataError, match="Too many messages at the moment"):
                await submit(direct)
            assert await daemon.stop() == 0


async def test_who_does_not_read_the_log_stops_no_mail(tmp_path: Path) -> None:
    """A pipe takes some hundred lines; each message has two."""
    port = free_port()
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    async with LabMX() as mx:
        command = (sys.executable, "-m", "mailrider", "-c", str(configuration(tmp_path, port, mx)), "run")
        process = await asyncio.create_subprocess_exec(*command, stderr=writer)
        os.close(writer)
        try:
            await eventually(lambda: _listens(port))
            for number in range(60):
                await submit(port, f"b{number}@example.net")
            await mx.wait_message(60)
            with os.fdopen(reader, "rb") as log:
                process.send_signal(signal.SIGTERM)
                text = (await asyncio.to_thread(log.read)).decode()
            assert await process.wait() == 0
            assert text.count(" queue_delivered ") == 60
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
