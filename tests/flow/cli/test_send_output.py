"""`mailrider send` where nobody can read the report: the exit code says what became of the message all the same."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

import pytest

from mailrider.lab.mx_script import MXScript, Raw, Stage
from tests.flow.cli.test_send import MESSAGE, configure
from tests.flow.delivery.internet import internet
from tests.support.commands import PROGRAM, start

if TYPE_CHECKING:
    from pathlib import Path

QUEUE = """
target.queue queue {{
    target &outbound
    location {folder}/queue
}}
"""
LATER = MXScript(replies={Stage.RCPT: "450 4.2.1 Later"})
NO_ADDRESS = MXScript(replies={Stage.RCPT: "501 5.1.3 This is no address"})


async def send_without_output(file: Path, stdout: Any, *arguments: str) -> tuple[int | None, str]:
    """The exit code, and standard error."""
    process = await start("-c", file, "send", "--from=", "--to=x@a.test", *arguments, stdout=stdout)
    _, err = await process.communicate(MESSAGE)
    return process.returncode, err.decode()


@pytest.mark.parametrize(
    ("answer", "code", "form"),
    [(LATER, os.EX_TEMPFAIL, []), (NO_ADDRESS, os.EX_UNAVAILABLE, ["--json"])],
    ids=["deferred, for people", "failed, for programs"],
)
async def test_a_full_disk_or_a_reader_that_left_changes_no_exit_code(
    answer: MXScript, code: int, form: list[str], tmp_path: Path
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        async with internet({"a.test": [answer]}) as net:
            file = configure(net, tmp_path, "log off\n")
            on_full_disk, unread = await asyncio.gather(
                send_without_output(file, full, *form), send_without_output(file, writing, *form)
            )
    finally:
        os.close(writing)
        os.close(full)
    assert on_full_disk == (code, "mailrider: standard output cannot be written: No space left on device\n")
    assert unread == (code, "")


@pytest.mark.parametrize(
    ("closed", "code"), [("0<&-", os.EX_NOINPUT), ("1>&-", os.EX_TEMPFAIL), ("2>&-", os.EX_TEMPFAIL)]
)
async def test_a_stream_that_is_closed_from_the_start_is_no_bug(closed: str, code: int, tmp_path: Path) -> None:
    """No socket may come to stand under the number of a standard stream."""
    async with internet({"a.test": [LATER]}) as net:
        options = ["-c", str(configure(net, tmp_path, "log off\n")), "send", "--from=", "--to=x@a.test"]
        shell = ["sh", "-c", f'exec "$@" {closed}', "sh", *PROGRAM, *options]
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*shell, stdin=pipe, stdout=pipe, stderr=pipe)
        _, err = await process.communicate(MESSAGE)
    assert process.returncode == code
    assert b"Traceback" not in err
    assert (err == b"") is (code == os.EX_TEMPFAIL)


async def test_what_is_queued_is_queued_though_its_id_cannot_be_told(tmp_path: Path) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        async with internet({}) as net:
            file = configure(net, tmp_path, QUEUE.format(folder=tmp_path))
            assert (await send_without_output(file, full, "--queue"))[0] == os.EX_OK
    finally:
        os.close(full)


async def test_a_command_that_can_write_nothing_says_why_in_words() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        process = await start("--version", stdout=full)
        _, err = await process.communicate()
    finally:
        os.close(full)
    assert (process.returncode, err) == (os.EX_OSERR, b"mailrider: No space left on device\n")


async def test_a_terminal_that_lacks_characters_gets_them_escaped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "latin-1")
    refusal = "550 5.1.1 \u2717 grüße \U0001f4ed\r\n".encode()  # to a client that has not said SMTPUTF8
    async with internet({"a.test": [MXScript(replies={Stage.RCPT: Raw(refusal)})]}) as net:
        file = configure(net, tmp_path, "log off\n")
        process = await start("-c", file, "explain", "a.test")
        page, err = await process.communicate()
        assert (process.returncode, err) == (0, b"")
        assert "MX 0 mx0.a.test" in page.decode("latin-1")
        for form in ([], ["--json"]):
            process = await start("-c", file, "send", "--from=", "--to=x@a.test", *form)
            said, err = await process.communicate(MESSAGE)
            assert (process.returncode, err) == (os.EX_UNAVAILABLE, b"")
            assert r"\u2717 grüße \ud83d\udced" in said.decode("latin-1")
