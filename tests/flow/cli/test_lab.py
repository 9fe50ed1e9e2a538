"""`mailrider lab`: started by a person, used by another process with what it printed, stopped by Ctrl-C."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from tests.support.commands import run, start
from tests.support.loopback import free_port

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.commands import Ran

MESSAGE = b"Subject: hello\n\nIt travels.\n"


def ports() -> list[str]:
    """Three free ones, as options."""
    return [f"--{name}={free_port()}" for name in ("port", "dns-port", "https-port")]


@asynccontextmanager
async def lab(*arguments: str) -> AsyncIterator[tuple[Process, str]]:
    """A lab in a process of its own, with what it printed until it was ready."""
    process = await start("lab", *ports(), *arguments)
    assert process.stdout is not None
    printed = ""
    try:
        while "Ctrl-C ends it." not in printed:
            line = await process.stdout.readline()
            assert line, printed
            printed += line.decode()
        yield process, printed
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_what_it_prints_makes_another_process_deliver_within_it(tmp_path: Path) -> None:
    async with lab() as (process, printed):
        file = re.search(r"It stands in (\S+)\.", printed)
        assert file is not None
        # The configuration that it shows is the one that it wrote.
        assert (await asyncio.to_thread(open_text, file[1])) in printed
        (tmp_path / "printed.conf").write_text(printed)
        explained = await run("-c", tmp_path / "printed.conf", "explain", "dane.test")
        assert explained.code == 0
        recipients = ["dane.test", "plain.test", "nobody.test", "servfail.test", "sts.test"]
        ran = await send(file[1], *recipients)
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()
    assert [(each["status"], each["tls_level"], each["mx_level"]) for each in ran.objects] == [
        ("delivered", "authenticated", "dnssec"),
        ("delivered", "none", "none"),
        ("failed", "none", "none"),
        ("deferred", "none", "none"),
        ("delivered", "authenticated", "mtasts"),
    ]
    assert (ran.code, process.returncode, err) == (69, 0, b"")


def open_text(path: str) -> str:
    with open(path) as file:
        return file.read()


async def send(configuration: str, *domains: str) -> Ran:
    to = [f"--to=friend@{domain}" for domain in domains]
    return await run("-c", configuration, "send", "--json", "--from=you@sender.test", *to, stdin=MESSAGE)


async def test_its_files_stand_where_they_are_wanted(tmp_path: Path) -> None:
    folder = tmp_path / "my world"
    async with lab(f"--dir={folder}") as (_, printed):
        ran = await send(str(folder / "mailrider.conf"), "pkix.test")
    assert (ran.code, ran.objects[0]["authenticated_by"]) == (0, "pkix")
    assert f"mailrider -c '{folder}/mailrider.conf' explain" in printed
    assert (folder / "root.pem").read_text().startswith("-----BEGIN CERTIFICATE-----")


async def test_a_port_that_is_taken_is_a_clear_word() -> None:
    options = ports()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.2.53", int(options[1].partition("=")[2])))
        process = await start("lab", *options)
        _, err = await process.communicate()
    assert process.returncode == 69
    assert err.startswith(b"mailrider: the lab cannot listen: Address already in use; is another lab running?")
    assert len(err.splitlines()) == 1


async def test_the_demonstration_beside_the_last_port_takes_mail_at_the_one_before() -> None:
    process = await start("lab", "--port", "65535", *ports()[1:], "demo")
    out, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")
    assert "A daemon with a queue takes mail on 127.0.0.1:65534;" in out.decode()


async def test_the_demonstration_shows_what_became_of_a_message_at_which_levels() -> None:
    process = await start("lab", *ports(), "demo")
    out, err = await process.communicate()
    shown = out.decode()
    assert (process.returncode, err) == (0, b"")
    words = " ".join(re.sub("[│┃]", " ", shown).split())
    for known in ("plain.test", "127.0.2.1", "authenticated by DANE", "authenticated by PKIX", "TLSv1.3", "550 5.1.1"):
        assert known in words
    assert '"result-type": "certificate-expired"' in words, "the TLS report of ststesting.test"
    assert "nothing left this machine" in shown
