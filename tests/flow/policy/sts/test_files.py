"""The MTA-STS cache on a real disk: damaged, hostile, full, shared."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from mailrider.files import write_new
from mailrider.model.domain import Domain
from mailrider.mtasts.policy import MXPattern, STSMode, STSPolicy
from mailrider.policy.sts import files as mtasts_files
from mailrider.policy.sts.cache import MAX_ENTRY, CachedPolicy, decode_entry, encode_entry
from mailrider.policy.sts.events import CacheFault
from mailrider.policy.sts.files import STALE_TEMPORARY, FSStore
from mailrider.testing.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mailrider.model.event import Event

NOW = datetime(2026, 1, 1, tzinfo=UTC)
EXAMPLE, OTHER = Domain("example.com"), Domain("example.net")
POLICY = STSPolicy(STSMode.ENFORCE, timedelta(days=7), (MXPattern(Domain("mx.example.com")),))
ENTRY = CachedPolicy(EXAMPLE, POLICY, "id1", NOW)

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="wants root")


class Disk:
    """A store in a directory, and what it complained of."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.clock = FakeClock(NOW)
        self.events: list[Event] = []
        self.store = self.restarted()

    def restarted(self) -> FSStore:
        """The store of a new process."""
        return FSStore(self.directory, self.clock, self.events.append)

    @property
    def names(self) -> list[str]:
        return sorted(os.listdir(self.directory))

    def faults(self) -> list[tuple[str, str]]:
        """What was complained of, and what was done about it."""
        assert all(isinstance(event, CacheFault) for event in self.events)
        return [(event.reason, event.consequence) for event in self.events if isinstance(event, CacheFault)]


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path / "state" / "mtasts_cache")


# --- As it should be ----------------------------------------------------------------------------


async def test_what_is_saved_survives_the_process(disk: Disk) -> None:
    await disk.store.save(ENTRY)
    assert await disk.restarted().load(EXAMPLE) == ENTRY
    assert await disk.restarted().domains() == [EXAMPLE]
    assert disk.names == ["example.com"]
    assert decode_entry((disk.directory / "example.com").read_bytes()) == ENTRY
    assert disk.events == []


async def test_a_directory_that_is_not_there_yet_is_empty(disk: Disk) -> None:
    assert await disk.store.load(EXAMPLE) is None
    assert await disk.store.domains() == []
    await disk.store.discard(ENTRY)
    assert disk.events == []
    assert not disk.directory.exists()


async def test_directory_and_files_are_ours_alone(disk: Disk) -> None:
    await disk.store.save(ENTRY)
    assert disk.directory.stat().st_mode & 0o777 == 0o700
    assert (disk.directory / "example.com").stat().st_mode & 0o777 == 0o600


async def test_the_last_one_saved_counts(disk: Disk) -> None:
    newer = replace(ENTRY, id="id2", fetched=NOW + timedelta(hours=1))
    await disk.store.save(ENTRY)
    await disk.store.save(newer)
    assert await disk.restarted().load(EXAMPLE) == newer
    assert disk.names == ["example.com"]


async def test_discarding_removes_exactly_that_entry(disk: Disk) -> None:
    newer = replace(ENTRY, id="id2")
    await disk.store.save(newer)
    await disk.store.discard(ENTRY)
    assert await disk.store.load(EXAMPLE) == newer
    await disk.store.discard(newer)
    assert await disk.store.load(EXAMPLE) is None
    assert disk.names == []


async def test_the_longest_domain_has_a_file(disk: Disk) -> None:
    longest = Domain(".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 61]))
    assert len(longest.ascii) == 253
    await disk.store.save(replace(ENTRY, domain=longest))
    assert await disk.restarted().load(longest) == replace(ENTRY, domain=longest)
    assert disk.events == []


@pytest.mark.parametrize("text", ["../escape", "..", ".", "a/b", "/etc/passwd", ".hidden", "a\0b", "", "-", ".tmp-1"])
def test_no_domain_is_a_path_out_of_the_directory(text: str) -> None:
    with pytest.raises(ValueError):
        Domain.parse(text)
    with pytest.raises(ValueError):
        Domain(text)


async def test_a_directory_removed_while_running_is_made_again(disk: Disk) -> None:
    await disk.store.save(ENTRY)
    (disk.directory / "example.com").unlink()
    disk.directory.rmdir()
    assert await disk.store.load(EXAMPLE) is None
    await disk.store.save(ENTRY)
    assert await disk.restarted().load(EXAMPLE) == ENTRY
    assert disk.events == []


async def test_saving_is_synced_before_it_is_moved_into_place(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []

    def spy(name: str) -> None:
        real: Callable[..., object] = getattr(os, name)

        def call(*args: object, **kwargs: object) -> object:
            steps.append(name)
            return real(*args, **kwargs)

        monkeypatch.setattr(os, name, call)

    spy("fsync")
    spy("replace")
    await disk.store.save(ENTRY)
    assert steps == ["fsync", "replace", "fsync"]  # the file, its name, the directory


# --- Damaged and hostile files ------------------------------------------------------------------


def plant_text(path: Path) -> None:
    path.write_bytes(b"not a policy")


def plant_nothing(path: Path) -> None:
    path.write_bytes(b"")


def plant_half(path: Path) -> None:
    path.write_bytes(encode_entry(ENTRY)[:100])


def plant_zeros(path: Path) -> None:
    path.write_bytes(bytes(4096))


def plant_large(path: Path) -> None:
    path.write_bytes(encode_entry(ENTRY).ljust(MAX_ENTRY + 1))


def plant_endless(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)  # sparse: reading it all would take a terabyte


def plant_anothers(path: Path) -> None:
    path.write_bytes(encode_entry(replace(ENTRY, domain=OTHER)))


def plant_link(path: Path) -> None:
    target = path.parent.parent / "elsewhere"
    target.write_bytes(encode_entry(ENTRY))
    path.symlink_to(target)


def plant_dangling(path: Path) -> None:
    path.symlink_to("/nonexistent")


def plant_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def plant_pipe(path: Path) -> None:
    os.mkfifo(path)


def plant_directory(path: Path) -> None:
    path.mkdir()


def plant_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(path))


PLANTS = {
    "text": (plant_text, "not a cached policy"),
    "an empty file": (plant_nothing, "not a cached policy"),
    "half a file": (plant_half, "not a cached policy"),
    "zeros": (plant_zeros, "not a cached policy"),
    "a file that is too large": (plant_large, "larger than"),
    "a file without an end": (plant_endless, "larger than"),
    "another domain's policy": (plant_anothers, "holds the policy of example.net"),
    "a symbolic link to a good file": (plant_link, "not a plain file"),
    "a symbolic link to nothing": (plant_dangling, "not a plain file"),
    "a symbolic link to a device": (plant_device, "not a plain file"),
    "a pipe nobody writes to": (plant_pipe, "not a plain file"),
    "a directory": (plant_directory, "not a plain file"),
    "a socket": (plant_socket, "not a plain file"),
}


@pytest.mark.parametrize(("plant", "reason"), PLANTS.values(), ids=PLANTS)
async def test_what_is_no_entry_is_dropped_with_a_warning(
    disk: Disk, monkeypatch: pytest.MonkeyPatch, plant: Callable[[Path], None], reason: str
) -> None:
    disk.directory.mkdir(parents=True)
    monkeypatch.chdir(disk.directory)  # a socket's path must be short
    plant(disk.directory / "example.com")
    assert await disk.store.load(EXAMPLE) is None
    (fault,) = disk.faults()
    assert reason in fault[0]
    assert fault[1] == "dropped"
    assert disk.names == []
    assert await disk.store.load(EXAMPLE) is None
    await disk.store.save(ENTRY)
    assert await disk.restarted().load(EXAMPLE) == ENTRY
    assert len(disk.events) == 1


async def test_the_target_of_a_dropped_link_is_not_touched(disk: Disk) -> None:
    disk.directory.mkdir(parents=True)
    plant_link(disk.directory / "example.com")
    await disk.store.load(EXAMPLE)
    await disk.store.save(ENTRY)
    assert (disk.directory.parent / "elsewhere").read_bytes() == encode_entry(ENTRY)


async def test_saving_over_a_link_replaces_the_link(disk: Disk) -> None:
    disk.directory.mkdir(parents=True)
    plant_link(disk.directory / "example.com")
    await disk.store.save(replace(ENTRY, id="id2"))
    assert (disk.directory.parent / "elsewhere").read_bytes() == encode_entry(ENTRY)
    assert not (disk.directory / "example.com").is_symlink()


async def test_a_full_directory_in_the_place_of_a_file_is_set_aside(disk: Disk) -> None:
    (disk.directory / "example.com" / "x").mkdir(parents=True)
    assert await disk.store.load(EXAMPLE) is None
    assert disk.events
    await disk.store.save(ENTRY)
    assert await disk.restarted().load(EXAMPLE) == ENTRY


async def test_names_that_are_no_domains_are_left_alone(disk: Disk) -> None:
    disk.directory.mkdir(parents=True)
    for name in ("README.txt~", ".hidden", "UPPER.example", "lost+found", "\udcff"):
        (disk.directory / name).touch()
    await disk.store.save(ENTRY)
    assert await disk.store.domains() == [EXAMPLE]
    assert len(disk.names) == 6
    assert disk.events == []


async def test_temporary_files_of_dead_processes_are_removed_and_those_of_living_ones_are_not(disk: Disk) -> None:
    await disk.store.save(ENTRY)
    now = disk.clock.now().timestamp()
    for name, age in {".tmp-dead": STALE_TEMPORARY + 1, ".tmp-alive": 10, ".tmp-future": -STALE_TEMPORARY - 1}.items():
        (disk.directory / name).touch()
        os.utime(disk.directory / name, (now - age, now - age))
    await disk.store.domains()
    assert disk.names == [".tmp-alive", "example.com"]


async def test_a_temporary_file_that_cannot_be_removed_disturbs_nobody(disk: Disk) -> None:
    await disk.store.save(ENTRY)
    (disk.directory / ".tmp-dead" / "x").mkdir(parents=True)
    os.utime(disk.directory / ".tmp-dead", (0, 0))
    assert await disk.store.domains() == [EXAMPLE]
    assert disk.events == []


# --- A disk that fails --------------------------------------------------------------------------

FAILURES = {
    "disk full, when the file is made": ("open", errno.ENOSPC),
    "disk full, when it is synced": ("fsync", errno.ENOSPC),
    "a broken disk": ("fsync", errno.EIO),
    "a read-only file system": ("open", errno.EROFS),
    "no rights to the directory": ("replace", errno.EACCES),
    "over quota": ("replace", errno.EDQUOT),
}


@pytest.mark.parametrize(("call", "code"), FAILURES.values(), ids=FAILURES)
async def test_what_cannot_be_written_is_kept_in_memory_and_written_later(
    disk: Disk, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    disk.directory.mkdir(parents=True)
    with monkeypatch.context() as broken:
        fail_writing(broken, call, code)
        await disk.store.save(ENTRY)
        assert await disk.store.load(EXAMPLE) == ENTRY
        assert await disk.store.domains() == [EXAMPLE]
    assert disk.faults()[0][0].startswith("cannot be written: ")
    assert disk.faults()[0][1] == "kept in memory"
    assert disk.names == []  # no temporary file either
    assert await disk.store.load(EXAMPLE) == ENTRY
    assert await disk.restarted().load(EXAMPLE) is None
    assert await disk.store.domains() == [EXAMPLE]  # which tries again
    assert await disk.restarted().load(EXAMPLE) == ENTRY


def fail_writing(patch: pytest.MonkeyPatch, call: str, code: int) -> None:
    real: Callable[..., object] = getattr(os, call)

    def fail(*args: object, **kwargs: object) -> object:
        if call == "open" and not (isinstance(args[1], int) and args[1] & os.O_CREAT):
            return real(*args, **kwargs)
        raise OSError(code, os.strerror(code))

    patch.setattr(os, call, fail)


async def test_a_newer_entry_in_memory_wins_over_an_older_file(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    newer = replace(ENTRY, id="id2", fetched=NOW + timedelta(hours=1))
    await disk.store.save(ENTRY)
    with monkeypatch.context() as broken:
        fail_writing(broken, "fsync", errno.ENOSPC)
        await disk.store.save(newer)
    disk.clock.jump(timedelta(hours=1))
    assert await disk.store.load(EXAMPLE) == newer


async def test_a_file_that_another_process_could_write_wins_over_memory(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        fail_writing(broken, "fsync", errno.ENOSPC)
        await disk.store.save(ENTRY)
    newer = replace(ENTRY, id="id2", fetched=NOW + timedelta(hours=1))
    await disk.restarted().save(newer)
    assert await disk.store.load(EXAMPLE) == ENTRY  # that one claims to be from the future
    disk.clock.jump(timedelta(hours=1))
    assert await disk.store.load(EXAMPLE) == newer


async def test_discarding_forgets_what_could_not_be_written(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_writing(monkeypatch, "fsync", errno.ENOSPC)
    await disk.store.save(ENTRY)
    await disk.store.discard(ENTRY)
    assert await disk.store.load(EXAMPLE) is None
    assert await disk.store.domains() == []


async def test_an_older_entry_that_was_written_late_does_not_push_a_newer_one_out_of_memory(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer = replace(ENTRY, id="id2", fetched=NOW + timedelta(seconds=1))
    newer_has_failed = threading.Event()

    def write(path: Path, octets: bytes) -> None:
        if octets == encode_entry(newer):
            raise OSError(errno.ENOSPC, "No space left on device")
        newer_has_failed.wait()
        write_new(path, octets)

    monkeypatch.setattr(mtasts_files, "write_new", write)
    slow = asyncio.create_task(disk.store.save(ENTRY))
    await asyncio.sleep(0)
    await disk.store.save(newer)
    newer_has_failed.set()
    await slow
    disk.clock.jump(timedelta(seconds=1))
    assert await disk.store.load(EXAMPLE) == newer


async def test_what_cannot_be_read_is_told_and_left_there(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    await disk.store.save(ENTRY)
    real = os.open

    def fail(path: str, flags: int, mode: int = 0o777) -> int:
        if not flags & os.O_CREAT:
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path, flags, mode)

    with monkeypatch.context() as broken:
        broken.setattr(os, "open", fail)
        assert await disk.store.load(EXAMPLE) is None
        await disk.store.discard(ENTRY)
    assert [consequence for _, consequence in disk.faults()] == ["treated as not there", "left there"]
    assert disk.names == ["example.com"]
    assert await disk.store.load(EXAMPLE) == ENTRY


async def test_a_file_system_without_hard_links_loses_nothing(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    newer = replace(ENTRY, id="id2")
    await disk.store.save(ENTRY)
    when_renaming(disk, monkeypatch, before=newer)
    monkeypatch.setattr(os, "link", refuse)
    await disk.store.discard(ENTRY)
    assert await disk.store.load(EXAMPLE) == newer
    assert disk.names == ["example.com"]


async def test_a_directory_that_cannot_be_listed_leaves_what_is_in_memory(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk.directory.parent.mkdir(parents=True)
    disk.directory.write_bytes(b"a file in the directory's place")
    await disk.store.save(ENTRY)
    assert await disk.store.domains() == [EXAMPLE]
    assert "cannot be listed" in disk.faults()[-1][0]
    assert await disk.store.load(EXAMPLE) == ENTRY


async def test_an_owner_has_a_share_of_the_files_and_pushes_nobody_out(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mtasts_files, "MAX_FILES_OF_ONE", 2)
    for name in ("d0.evil.test", "d1.evil.test", "d2.evil.test", "good.test"):
        await disk.store.save(replace(ENTRY, domain=Domain(name)))
    assert disk.names == ["d0.evil.test", "d1.evil.test", "good.test"]
    assert "holds 2 policies of evil.test already" in disk.faults()[0][0]


async def test_too_many_files_push_nobody_out(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mtasts_files, "MAX_FILES", 3)
    some = [replace(ENTRY, domain=Domain(f"d{number}.example")) for number in range(5)]
    for entry in some:
        await disk.store.save(entry)
    assert disk.names == ["d0.example", "d1.example", "d2.example"]
    assert [await disk.store.load(entry.domain) for entry in some] == some
    assert "holds 3 policies already" in disk.faults()[0][0]
    await disk.store.save(replace(some[0], id="id2"))  # a known one is renewed all the same
    assert await disk.restarted().load(some[0].domain) == replace(some[0], id="id2")
    await disk.store.discard(some[1])
    assert len(await disk.store.domains()) == 4  # there is room again, as of the next listing
    await disk.store.domains()
    assert len(disk.names) == 3


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    path = tmp_path / "tiny"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(path)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    yield path
    subprocess.run(["umount", str(path)], check=True)


@as_root
async def test_a_disk_that_is_really_full(tiny: Path) -> None:
    disk = Disk(tiny / "cache")
    some = [replace(ENTRY, domain=Domain(f"d{number}.example")) for number in range(40)]
    for entry in some:
        await disk.store.save(entry)
    written = disk.names
    assert 0 < len(written) < 40
    assert not [name for name in written if name.startswith(".")]
    assert [await disk.store.load(entry.domain) for entry in some] == some
    assert set(await disk.store.domains()) == {entry.domain for entry in some}
    for name in written:  # none is damaged by what happened around it
        assert decode_entry((disk.directory / name).read_bytes()).domain == Domain(name)


@as_root
async def test_what_root_writes_belongs_to_the_directorys_owner(disk: Disk) -> None:
    disk.directory.mkdir(parents=True)
    os.chown(disk.directory, 12345, 23456)
    await disk.store.save(ENTRY)
    status = (disk.directory / "example.com").stat()
    assert (status.st_uid, status.st_gid) == (12345, 23456)


async def test_who_is_not_root_gives_nothing_away(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "fchown", lambda *_: pytest.fail("not ours to give"))
    await disk.store.save(ENTRY)
    assert disk.events == []


# --- Several processes --------------------------------------------------------------------------


def when_renaming(
    disk: Disk, patch: pytest.MonkeyPatch, *, before: CachedPolicy | None = None, after: CachedPolicy | None = None
) -> None:
    """Let another process write just before, or just after, we take a file away, the first time."""
    other, real = disk.restarted(), os.rename

    def rename(source: Path, target: Path) -> None:
        patch.setattr(os, "rename", real)
        if before is not None:
            asyncio.run(other.save(before))
        real(source, target)
        if after is not None:
            asyncio.run(other.save(after))

    patch.setattr(os, "rename", rename)


async def test_a_file_replaced_while_it_is_being_dropped_stays(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    disk.directory.mkdir(parents=True)
    plant_text(disk.directory / "example.com")
    when_renaming(disk, monkeypatch, before=ENTRY)
    assert await disk.store.load(EXAMPLE) is None
    assert await disk.store.load(EXAMPLE) == ENTRY
    assert disk.names == ["example.com"]


async def test_a_file_written_while_another_is_put_back_wins(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    newer, newest = replace(ENTRY, id="id2"), replace(ENTRY, id="id3")
    await disk.store.save(ENTRY)
    when_renaming(disk, monkeypatch, before=newer, after=newest)
    await disk.store.discard(ENTRY)
    assert await disk.store.load(EXAMPLE) == newest
    assert disk.names == ["example.com"]


async def test_a_file_that_another_process_has_removed_is_gone(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    await disk.store.save(ENTRY)
    monkeypatch.setattr(os, "rename", gone)
    await disk.store.discard(ENTRY)
    assert disk.events == []


async def test_a_file_that_is_not_to_be_removed_is_not_touched(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    # It would be missing for a moment, in which another process would take the domain for one without a policy.
    await disk.store.save(ENTRY)
    monkeypatch.setattr(os, "rename", lambda *_: pytest.fail("taken away"))
    await disk.store.discard(replace(ENTRY, id="unlike"))
    assert await disk.store.load(EXAMPLE) == ENTRY


async def test_a_temporary_file_gone_before_it_is_looked_at_is_no_fault(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    await disk.store.save(ENTRY)
    (disk.directory / ".tmp-quick").touch()
    # The file has to go between two calls of the system: there is nothing of ours that is public there.
    real = mtasts_files._age

    def late(entry: os.DirEntry[str], now: float) -> float:
        os.unlink(entry.path)
        return real(entry, now)

    monkeypatch.setattr(mtasts_files, "_age", late)
    assert await disk.store.domains() == [EXAMPLE]
    assert disk.events == []


WRITER = """
import asyncio, sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from mailrider.clock import SystemClock
from mailrider.model.domain import Domain
from mailrider.mtasts.policy import MXPattern, STSMode, STSPolicy
from mailrider.policy.sts.cache import CachedPolicy
from mailrider.policy.sts.files import FSStore

async def main(directory, name, rounds):
    faults = []
    store = FSStore(Path(directory), SystemClock(), faults.append)
    policy = STSPolicy(STSMode.ENFORCE, timedelta(days=7), (MXPattern(Domain(name + ".example")),) * 100)
    print("ready", flush=True)
    sys.stdin.readline()
    for count in range(int(rounds)):
        domain = Domain(f"d{count % 3}.example")
        entry = CachedPolicy(domain, policy, f"{name}{count}", datetime.now(UTC))
        await store.save(entry)
        found = await store.load(domain)
        assert found is not None, "an entry vanished"
        if count % 2:
            await store.discard(replace(entry, id="nobodys"))
    assert not faults, faults

asyncio.run(main(*sys.argv[1:]))
"""


async def test_two_processes_write_the_same_files(disk: Disk) -> None:
    writers = [
        await asyncio.create_subprocess_exec(
            sys.executable,
            *("-W", "error", "-c", WRITER, str(disk.directory), name, "60"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        for name in ("one", "two")
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert await writer.stdout.readline() == b"ready\n"
    outputs = await asyncio.gather(*(writer.communicate(b"go\n") for writer in writers))
    assert [writer.returncode for writer in writers] == [0, 0], outputs
    assert disk.names == ["d0.example", "d1.example", "d2.example"]
    for domain in await disk.store.domains():
        assert await disk.store.load(domain) is not None
    assert disk.events == []
