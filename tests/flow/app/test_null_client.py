"""A machine that only sends: cron's mail to root, from the program `sendmail` to whoever reads it in the end."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

from mailrider.lab.mx import LabMX
from mailrider.lab.mx_script import MXScript
from tests.flow.app.running import PATIENCE, running

if TYPE_CHECKING:
    from pathlib import Path

CRON = b"From: root (Cron Daemon)\nTo: root\nSubject: Cron <root@web1> backup\n\ntar: no space left\n"


def configuration(folder: Path, mx: LabMX) -> Path:
    (folder / "aliases").write_text("root: admin@example.net\nwww-data: web@example.net, ops@example.net\n")
    (folder / "aliases").chmod(0o644)
    path = folder / "mailrider.conf"
    path.write_text(
        f"""hostname web1.example.org
        origin example.org
        aliases {folder}/aliases
        postmaster boss@example.com
        state_dir state
        runtime_dir {folder}/run
        dns {{
            server 127.0.0.1:9
        }}
        target.smtp company {{
            host tcp://{mx.address}:{mx.port}
            starttls no
            min_tls_level none
        }}
        target.queue outqueue {{
            target &company
        }}
        submission unix://{folder}/run/submission.sock {{
            deliver_to &outqueue
        }}
        """
    )
    return path


async def sendmail(config: Path, *arguments: str, message: bytes = CRON) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "mailrider", "-c", str(config), "sendmail", *arguments,
        stdin=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, told = await asyncio.wait_for(process.communicate(message), PATIENCE)
    return process.returncode or 0, told.decode()


async def test_crons_mail_to_root_is_read_by_whom_the_alias_names(tmp_path: Path) -> None:
    async with LabMX(MXScript()) as mx:
        config = configuration(tmp_path, mx)
        async with running(config) as daemon:
            assert await sendmail(config, "-i", "-FCronDaemon", "-froot", "-t") == (0, "")
            first = await mx.wait_message()
            assert await sendmail(config, "-i", "-froot", "www-data") == (0, "")
            second = await mx.wait_message(2)
            assert await daemon.stop() == 0
    assert (str(first.sender), first.addresses) == ("root@example.org", ["admin@example.net"])
    assert b"\r\nTo: root@example.org\r\n" in first.content
    assert sorted(second.addresses) == ["ops@example.net", "web@example.net"]


async def test_when_nobody_can_be_reached_the_postmaster_hears_of_it(tmp_path: Path) -> None:
    gone = "550 5.1.1 no such user"
    script = MXScript(recipients={"admin@example.net": gone, "root@example.org": gone})
    async with LabMX(script) as mx:
        config = configuration(tmp_path, mx)
        async with running(config) as daemon:
            assert await sendmail(config, "-i", "-froot", "root") == (0, "")
            message = await mx.wait_message()
            assert await daemon.stop() == 0
    assert (str(message.sender), message.addresses) == ("", ["boss@example.com"])
    assert b"Subject: Not delivered: a notification to root@example.org\r\n" in message.content
    assert b"Cron <root@web1> backup" in message.content


async def test_a_broken_alias_is_told_to_who_calls_sendmail_and_others_work(tmp_path: Path) -> None:
    async with LabMX(MXScript()) as mx:
        config = configuration(tmp_path, mx)
        async with running(config) as daemon:
            (tmp_path / "aliases").write_text("root: |/usr/bin/procmail\nann: ann@example.net\n")
            code, told = await sendmail(config, "-i", "-froot", "root")
            assert (code, "451 4.3.5" in told) == (75, True)
            line = await daemon.line("alias_unusable")
            assert "mail is not given to programs" in line
            assert f"{tmp_path}/aliases:1" in line
            assert await sendmail(config, "-i", "-froot", "ann") == (0, "")
            assert (await mx.wait_message()).addresses == ["ann@example.net"]
            assert await daemon.stop() == 0


async def test_where_no_mail_server_is_looked_up_nobody_is_told_that_dnssec_is_off(tmp_path: Path) -> None:
    async with LabMX(MXScript()) as mx:
        config = configuration(tmp_path, mx)
        text = config.read_text().replace("server 127.0.0.1:9", "server 192.0.2.53")
        for more, is_told in (("", False), ("\ntarget.remote outbound {\n}\n", True)):
            config.write_text(text + more)
            async with running(config) as daemon:
                assert await daemon.stop() == 0
            assert any("dnssec_and_dane_off" in line for line in daemon.lines) is is_told
