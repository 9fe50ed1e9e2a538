"""The MTA-STS cache on disk: one file a domain, in a directory of its own.

What always holds:

- A file is complete or not there: it is written beside, synced, and moved into place. It survives a power cut.
- The name of a file is the domain's A-label form, which has no slash and never begins with a dot: it cannot escape the
  directory, nor be taken for one of our temporary files, which do begin with one.
- Several processes may share the directory: the last one to fetch wins, and nobody removes what another has just
  written.
- What is in a file is not trusted: something else than a plain file of a modest size with a valid entry for the domain
  of its name is dropped with a `CacheFault`.
- An entry that cannot be written (disk full, read-only, no rights, too many files) is kept in memory instead, and
  written at the next opportunity; the policy is never lost while the process lives.

All disk access is done in threads. What it never does: follow a symbolic link, or wait for a lock.
"""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mailrider.errors import InvalidValue
from mailrider.files import error_text, make_folder, read_regular, write_new
from mailrider.model.domain import Domain, owner_of
from mailrider.policy.holding_map import SHARES
from mailrider.policy.sts.cache import (
    MAX_ENTRY,
    CachedPolicy,
    PolicyStore,
    decode_entry,
    encode_entry,
    is_from_future,
)
from mailrider.policy.sts.events import CacheFault

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from mailrider.clock import Clock
    from mailrider.model.event import Emit

MAX_FILES = (
    100_000  # 400 MB of 4 KiB blocks; past that, or an owner's share, newcomers stay in memory and push nobody out
)
MAX_FILES_OF_ONE = MAX_FILES // SHARES  # an owner's share
STALE_TEMPORARY = 3600.0  # seconds: a temporary file that old belongs to a process that died

_TEMPORARY = ".tmp-"


@dataclass(frozen=True, slots=True)
class _Damage:
    """Why what stands at a path is no entry."""

    reason: str


class FSStore(PolicyStore):
    """Entries in files of `directory`, which is made when the first is saved; in memory what could not be written."""

    def __init__(self, directory: Path, clock: Clock, emit: Emit) -> None:
        super().__init__(clock)
        self._directory = directory
        self._clock = clock
        self._emit = emit
        self._files: Counter[str] = Counter()  # by owner; as of the last listing, and what we added since

    async def load(self, domain: Domain) -> CachedPolicy | None:
        """The latest entry, from memory if it could not be written."""
        unwritten = self._entries.get(domain)
        try:
            found = await asyncio.to_thread(self._read, domain)
        except OSError as error:
            self._fault(domain.ascii, f"cannot be read: {error_text(error)}", "treated as not there")
            return unwritten
        if isinstance(found, _Damage):
            self._fault(domain.ascii, found.reason, "dropped")
            return unwritten
        if found is None or unwritten is None:
            return found or unwritten
        # What could not be written is newer than the file, unless another process has written that since.
        is_newer = found.fetched > unwritten.fetched and not is_from_future(found, self._clock.now())
        return found if is_newer else unwritten

    async def save(self, entry: CachedPolicy) -> None:
        """Write the entry; returns when it is durable, or kept in memory."""
        await super().save(entry)  # readable at once
        try:
            await asyncio.to_thread(self._write, entry)
        except OSError as error:
            self._fault(entry.domain.ascii, f"cannot be written: {error_text(error)}", "kept in memory")
        else:
            if self._entries.get(entry.domain) is entry:
                self._entries.pop(entry.domain)

    async def discard(self, entry: CachedPolicy) -> None:
        """Remove the file if it holds exactly this entry."""
        await super().discard(entry)
        try:
            await asyncio.to_thread(self._remove, entry.domain, lambda found: found == entry)
        except OSError as error:
            self._fault(entry.domain.ascii, f"cannot be removed: {error_text(error)}", "left there")

    async def domains(self) -> Sequence[Domain]:
        """The domains that have a file, and those whose entries could not be written, which is tried again."""
        for entry in self._entries.values():
            await self.save(entry)
        try:
            names = await asyncio.to_thread(self._list, self._clock.now().timestamp())
        except OSError as error:
            self._fault(
                str(self._directory), f"cannot be listed: {error_text(error)}", "background refresh sees memory only"
            )
            names = []
        return list({*names, *self._entries.keys()})

    def _fault(self, subject: str, reason: str, consequence: str) -> None:
        self._emit(CacheFault(subject, reason, consequence))

    # --- In a thread from here on ---------------------------------------------------------------

    def _read(self, domain: Domain) -> CachedPolicy | _Damage | None:
        """The entry in the domain's file; what is damaged is removed on the way."""
        found = _examine(self._path(domain), domain)
        if isinstance(found, _Damage):
            self._remove(domain, lambda now: isinstance(now, _Damage))
        return found

    def _write(self, entry: CachedPolicy) -> None:
        make_folder(self._directory)
        path = self._path(entry.domain)
        is_new = not os.path.lexists(path)
        owner = owner_of(entry.domain)
        if is_new and self._files.total() >= MAX_FILES:
            raise OSError(errno.ENOSPC, f"the cache holds {self._files.total()} policies already")
        if is_new and self._files[owner] >= MAX_FILES_OF_ONE:
            raise OSError(errno.ENOSPC, f"the cache holds {self._files[owner]} policies of {owner} already")
        temporary = self._temporary()
        try:
            write_new(temporary, encode_entry(entry))
            os.replace(temporary, path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        self._files[owner] += is_new
        self._sync_directory()

    def _remove(self, domain: Domain, unwanted: Callable[[CachedPolicy | _Damage | None], bool]) -> None:
        """Remove the domain's file if it is unwanted, and never what another process puts there meanwhile.

        An unwanted file is taken away first and looked at again then, for nobody can replace it any more; if it is
        another one by now it is put back, unless there is a newer one yet.
        """
        path, temporary = self._path(domain), self._temporary()
        if not unwanted(_examine(path, domain)):
            return
        try:
            os.rename(path, temporary)
        except FileNotFoundError:
            return
        keep = True
        try:
            keep = not unwanted(_examine(temporary, domain))
        finally:
            if keep:
                _put_back(temporary, path)
            _delete(temporary)

    def _list(self, now: float) -> list[Domain]:
        names = []
        try:
            with os.scandir(self._directory) as entries:
                for entry in entries:
                    if entry.name.startswith(_TEMPORARY):
                        self._sweep(entry, now)
                    elif (domain := _domain_of(entry.name)) is not None:
                        names.append(domain)
        except FileNotFoundError:
            pass
        self._files = Counter(map(owner_of, names))
        return names

    def _sweep(self, entry: os.DirEntry[str], now: float) -> None:
        try:
            age = _age(entry, now)
        except FileNotFoundError:  # its owner was faster
            return
        if age > STALE_TEMPORARY:
            _delete(self._directory / entry.name)

    def _sync_directory(self) -> None:
        descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _path(self, domain: Domain) -> Path:
        return self._directory / domain.ascii

    def _temporary(self) -> Path:
        return self._directory / f"{_TEMPORARY}{secrets.token_hex(12)}"


def _examine(path: Path, domain: Domain) -> CachedPolicy | _Damage | None:
    """What stands at the path: the domain's entry, something else, or nothing. Raises `OSError`."""
    try:
        data, _ = read_regular(path, MAX_ENTRY + 1, follow=False)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ELOOP, errno.ENXIO):  # ENXIO: a socket
            return _Damage("not a plain file")
        raise
    try:
        entry = decode_entry(data)
    except InvalidValue as error:
        return _Damage(str(error))
    if entry.domain != domain:
        return _Damage(f"holds the policy of {entry.domain}")
    return entry


def _put_back(temporary: Path, path: Path) -> None:
    """Give a file its name again, unless that has been given to another."""
    try:
        os.link(temporary, path, follow_symlinks=False)
    except FileExistsError:
        pass
    except OSError:  # a file system without hard links
        os.rename(temporary, path)


def _delete(path: Path) -> None:
    """Remove what stands there if possible; the next listing tries again, for it is a temporary name."""
    try:
        path.unlink(missing_ok=True)
    except OSError:  # a directory
        try:
            path.rmdir()
        except OSError:
            pass


def _age(entry: os.DirEntry[str], now: float) -> float:
    return abs(now - entry.stat(follow_symlinks=False).st_mtime)


def _domain_of(name: str) -> Domain | None:
    try:
        return Domain(name)
    except InvalidValue:
        return None
