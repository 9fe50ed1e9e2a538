"""What we write is ours alone from the first moment, and belongs to whom its folder belongs to."""

from __future__ import annotations

import errno
import os
import pwd
import stat
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mailrider.dns.anchors import AnchorFileError, read_anchor_file
from mailrider.endpoint.passwords import read_passwords, write_passwords
from mailrider.errors import ConfigError
from mailrider.files import error_text, follow_owner, make_folder, make_private, set_mode
from mailrider.net.tls import make_server_context
from mailrider.queue.sqlite.file import DAMAGED, FILE
from mailrider.queue.sqlite.signals import QueueDirectory, SignalListener
from mailrider.queue.sqlite.store import SQLiteStore
from mailrider.queue.store import StoreUnavailable
from mailrider.reporting.store import ReportStore, ReportsUnavailable
from mailrider.signing.keys import examine_key
from mailrider.testing.clock import FakeClock
from mailrider.x509.anchors import load_anchors
from tests.support.queueing import Writing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
DAEMON = 4711


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def rights(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError("odd"), "odd"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (FileNotFoundError(errno.ENOENT, "No such file", "/x"), "/x: No such file"),
    ],
)
def test_an_error_of_the_system_is_told_with_its_path(error: OSError, text: str) -> None:
    assert error_text(error) == text


@pytest.mark.parametrize("owner", [os.geteuid() + 1, 54_321])
def test_where_a_right_is_missing_it_is_told_whose_the_path_is_and_who_we_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: int
) -> None:
    denied = PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "queue/queue.db"))
    assert error_text(denied) == f"{tmp_path}/queue/queue.db: Permission denied"
    name, own = pwd.getpwuid(os.geteuid()).pw_name, os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner)
    assert f"; {tmp_path} belongs to {name}, and we run as " in error_text(denied)
    monkeypatch.setattr(os, "geteuid", lambda: own)


def test_a_private_file_is_private_from_the_first_moment(tmp_path: Path) -> None:
    with umask(0):
        make_private(tmp_path / "file")
        make_folder(tmp_path / "a" / "b")
    assert rights(tmp_path / "file") == 0o600
    assert (rights(tmp_path / "a"), rights(tmp_path / "a" / "b")) == (0o700, 0o700)


def test_a_file_that_is_there_loses_the_rights_of_others_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"kept")
    (tmp_path / "file").chmod(0o644)
    make_private(tmp_path / "file")
    assert rights(tmp_path / "file") == 0o600
    assert (tmp_path / "file").read_bytes() == b"kept"


async def test_all_files_of_a_queue_are_private_and_those_that_were_open_are_mended(tmp_path: Path) -> None:
    location = tmp_path / "queue"
    writing = Writing()
    with umask(0):
        for _ in range(2):
            async with SQLiteStore(location, FakeClock()) as store:
                await store.add(writing.message(), leased=False)
                assert rights(location) == 0o700
                found = {path.name: rights(path) for path in location.iterdir()}
                assert set(found.values()) == {0o600}
                assert {FILE, f"{FILE}-wal", f"{FILE}-shm", "queue.lock", "queue.spare"} == set(found)
            for path in location.iterdir():
                path.chmod(0o644)


@AS_ROOT
async def test_what_root_makes_in_a_queue_belongs_to_the_owner_of_its_folder(tmp_path: Path) -> None:
    os.chown(tmp_path, DAEMON, DAEMON)
    async with SQLiteStore(tmp_path / "state" / "queue", FakeClock()) as store:
        await store.add(Writing().message(), leased=False)
        made = [tmp_path / "state", *(tmp_path / "state").rglob("*")]
        assert len(made) == 7
        assert {(path.stat().st_uid, path.stat().st_gid) for path in made} == {(DAEMON, DAEMON)}


async def test_the_folder_of_sockets_is_open_to_those_who_submit(tmp_path: Path) -> None:
    runtime = tmp_path / "run"
    with umask(0o022):
        async with SignalListener(QueueDirectory(tmp_path, runtime), lambda _: None, lambda _: None):
            assert rights(runtime) == 0o755
            assert [rights(path) for path in runtime.iterdir()] == [0o600]


def test_a_password_file_that_everybody_could_read_is_closed_when_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "users"
    path.write_text("")
    path.chmod(0o644)
    write_passwords(path, {"anna": "$argon2id$x"})
    assert rights(path) == 0o640


@AS_ROOT
@pytest.mark.parametrize("folder", ["state", "etc"])
def test_a_password_file_that_root_makes_can_be_read_by_the_daemon(tmp_path: Path, folder: str) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "etc").mkdir()
    os.chown(tmp_path / "state", DAEMON, DAEMON)
    path = tmp_path / folder / "users"
    write_passwords(path, {"anna": "$argon2id$x"}, tmp_path / "state")
    assert (path.stat().st_uid, rights(path)) == (DAEMON, 0o600)


# Whoever has broken into the daemon owns its folder, and root runs commands there.


def test_a_link_in_the_place_of_a_private_file_is_refused_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    victim = tmp_path / "passwd"
    victim.write_bytes(b"root")
    victim.chmod(0o644)
    (tmp_path / "file").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic link"):
        make_private(tmp_path / "file")
    assert (rights(victim), victim.read_bytes()) == (0o644, b"root")


@AS_ROOT
def test_a_link_is_given_away_itself_and_not_what_it_leads_to(tmp_path: Path) -> None:
    folder, victim = tmp_path / "theirs", tmp_path / "shadow"
    folder.mkdir()
    os.chown(folder, DAEMON, DAEMON)
    victim.write_bytes(b"")
    (folder / "link").symlink_to(victim)
    follow_owner(folder / "link", folder)
    assert victim.stat().st_uid == os.geteuid()


@pytest.mark.parametrize("name", [FILE, f"{FILE}-wal", f"{FILE}-shm", "queue.lock", "queue.spare", DAMAGED])
@pytest.mark.parametrize("exists", [True, False])
async def test_no_file_of_a_queue_may_be_a_link(tmp_path: Path, name: str, *, exists: bool) -> None:
    location, victim = tmp_path / "queue", tmp_path / "victim"
    async with SQLiteStore(location, FakeClock()):
        pass
    if exists:
        victim.write_bytes(b"important" * 100_000)
        victim.chmod(0o644)
    (location / name).unlink(missing_ok=True)
    (location / name).symlink_to(victim)
    with pytest.raises(StoreUnavailable, match="symbolic link"):
        async with SQLiteStore(location, FakeClock()):
            pass
    if exists:
        assert (rights(victim), victim.stat().st_size) == (0o644, 900_000)
    else:
        assert not victim.exists()


def test_rights_are_given_to_what_stands_there_and_never_to_what_a_link_leads_to(tmp_path: Path) -> None:
    victim = tmp_path / "shadow"
    victim.write_bytes(b"")
    victim.chmod(0o600)
    set_mode(victim, 0o640)
    assert rights(victim) == 0o640
    (tmp_path / "socket").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic link"):
        set_mode(tmp_path / "socket", 0o666)
    assert rights(victim) == 0o640


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
def test_no_file_of_the_reports_may_be_a_link(tmp_path: Path, suffix: str) -> None:
    victim = tmp_path / "victim"
    (tmp_path / f"tls-reports.db{suffix}").symlink_to(victim)
    with pytest.raises(ReportsUnavailable, match="symbolic link"):
        ReportStore(tmp_path).refusing(datetime.now(UTC))
    assert not victim.exists()


# A pipe, or a device without an end, would keep a start, a reload or a login waiting for ever, and SIGTERM with it.
READERS: dict[str, Callable[[Path], object]] = {
    "passwords": read_passwords,
    "a certificate": lambda path: make_server_context(path, path),
    "authorities": lambda path: load_anchors([path]),
    "a DKIM key": examine_key,
    "trust anchors": read_anchor_file,
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_only_regular_files_are_read(read: Callable[[Path], object], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises((ConfigError, AnchorFileError), match="not a regular file"):
            read(path)


@pytest.mark.parametrize("what", ["passwords", "a certificate", "authorities", "a DKIM key", "trust anchors"])
def test_no_more_is_read_than_there_can_be(what: str, tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    (tmp_path / "sparse").chmod(0o600)
    with pytest.raises((ConfigError, AnchorFileError)):
        READERS[what](tmp_path / "sparse")
