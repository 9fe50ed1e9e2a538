"""Commands on a disk that is full or read-only: what needs no space works, the rest says clearly what is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from mailrider.endpoint.passwords import PasswordFileError, read_passwords, write_passwords
from mailrider.errors import ConfigError
from mailrider.model.domain import Domain
from mailrider.signing.keys import KeyMade, open_key
from mailrider.x509.key_kind import KeyKind
from tests.support.commands import queue_alone, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mailrider.model.event import Event

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")


@contextmanager
def mounted(path: Path, size: str) -> Iterator[Path]:
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "disk", "16m") as path:
        yield path


def fill(disk: Path) -> None:
    with (disk / "others").open("ab", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"\0" * 4096)


def program(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a command that wants a process of its own."""
    words = [sys.executable, "-m", "mailrider", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, timeout=200, check=False)


def read_only(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)


async def test_a_queue_is_looked_into_delivered_and_emptied_on_a_full_disk(tmp_path: Path, disk: Path) -> None:
    config, message = tmp_path / "mailrider.conf", tmp_path / "message"
    config.write_text(queue_alone(disk / "state"))
    message.write_bytes(b"Subject: hello\r\n\r\nHello.\r\n")
    send = ("-c", config, "send", "--queue", "--from", "a@example.org", "--to", "b@example.net", message)
    sent = await run(*send)
    assert (sent.code, sent.err) == (0, "")
    id = sent.out.strip()
    fill(disk)
    refused = await run(*send)
    assert refused.code == os.EX_TEMPFAIL
    assert "reserve" in refused.err or "Insufficient system storage" in refused.err
    for command in (("list",), ("stats",), ("show", id), ("show", "--content", id)):
        assert (await run("-c", config, "queue", *command)).code == 0
    delivered = program("-c", config, "queue", "run")
    assert (delivered.returncode, delivered.stderr) == (os.EX_TEMPFAIL, "0 delivered, 1 deferred, 0 failed\n")
    removed = await run("-c", config, "queue", "remove", id)
    assert (removed.code, removed.out) == (0, "1 recipient removed\n")


async def test_a_queue_on_a_read_only_disk_is_looked_into_and_says_why_it_cannot_be_changed(
    tmp_path: Path, disk: Path
) -> None:
    config, message = tmp_path / "mailrider.conf", tmp_path / "message"
    config.write_text(queue_alone(disk / "state"))
    message.write_bytes(b"Subject: hello\r\n\r\nHello.\r\n")
    sent = await run("-c", config, "send", "--queue", "--from", "a@example.org", "--to", "b@example.net", message)
    read_only(disk)
    listed = await run("-c", config, "queue", "list", "--json")
    assert (listed.code, sent.out.strip() in listed.out) == (0, True)
    for command in (("queue", "remove", "--all"), ("queue", "run")):
        ran = program("-c", config, *command)
        assert ran.returncode == os.EX_TEMPFAIL
        assert "ead-only file system" in ran.stderr or "readonly database" in ran.stderr
        assert "Traceback" not in ran.stderr


@pytest.mark.parametrize("trouble", [fill, read_only])
def test_a_password_file_that_cannot_be_written_stays_as_it_was(disk: Path, trouble: object) -> None:
    path = disk / "users"
    write_passwords(path, {"anna": "$argon2id$x"})
    assert callable(trouble)
    trouble(disk)
    many = {f"user{number}": "$argon2id$" + "x" * 100 for number in range(1000)}
    with pytest.raises(PasswordFileError, match="cannot write the password file"):
        write_passwords(path, many)
    assert read_passwords(path) == {"anna": "$argon2id$x"}
    assert sorted(each.name for each in disk.iterdir()) in (["users"], ["others", "users"])


@pytest.mark.parametrize("trouble", [fill, read_only])
def test_a_key_that_cannot_be_written_is_a_clear_error_and_leaves_nothing_half_done(
    disk: Path, trouble: object
) -> None:
    events: list[Event] = []
    path, domain = disk / "keys" / "example.org_default.key", Domain("example.org")
    path.parent.mkdir()
    assert callable(trouble)
    trouble(disk)
    with pytest.raises(ConfigError, match="cannot be read"):
        open_key(path, KeyKind.ED25519, domain, "default", events.append)
    assert list(path.parent.iterdir()) == []
    assert events == []


def test_a_key_whose_record_cannot_be_written_beside_it_is_used_and_its_record_told(disk: Path) -> None:
    events: list[Event] = []
    path, domain = disk / "keys" / "example.org_default.key", Domain("example.org")
    (path.parent / path.with_suffix(".dns").name).mkdir(parents=True)  # in the way
    key = open_key(path, KeyKind.ED25519, domain, "default", events.append)
    (made,) = events
    assert isinstance(made, KeyMade)
    assert key.public in made.record
    assert open_key(path, KeyKind.ED25519, domain, "default", events.append).public == key.public
