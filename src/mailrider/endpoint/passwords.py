"""The password file: who may log in, and how passwords are kept and checked (RFC 4954, RFC 9106).

A line a user, `NAME:HASH`, the hash in the text form of argon2id; `#` begins a comment. `mailrider auth` writes it, and
whoever can write a file can manage it. What always holds:

- the file is read again when it has changed, so that a new password needs no reload; one that cannot be read refuses
  nobody for good: the answer is temporary;
- a password that is wrong costs the same as one for a user that is not known, so that nobody learns who exists;
- hashing needs memory and time (that is its purpose), so it is done in threads, few at once, and who would have to wait
  too long is asked to come again: logins cannot starve mail.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import argon2

from mailrider.endpoint.user_names import check_name, composed, login_name
from mailrider.errors import ConfigError
from mailrider.files import FileStamp, follow_owner, make_folder, read_regular
from mailrider.model.reply import Reply

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mailrider.smtp.sasl import Credentials

MAX_FILE: Final = 16 << 20  # octets of the password file: some 100,000 users
THREADS: Final = 2  # hashes at once: 64 MiB and some 50 ms each
MAX_WAITING: Final = 50  # logins that wait for them: a few seconds

UNAVAILABLE: Final = Reply.make(454, "4.7.0", "Authentication is not possible now, try again later")  # RFC 4954 4

# RFC 9106 4, second recommendation.
HASHER: Final = argon2.PasswordHasher(time_cost=3, memory_cost=65536, parallelism=4)


class PasswordFileError(ConfigError):
    """The password file, which the configuration names, cannot be read or written, or is none."""


def parse_passwords(text: str, where: str) -> dict[str, str]:
    """The hash of each user in a file, by `login_name`. Raises `PasswordFileError`, which names the line."""
    users: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, colon, hashed = line.strip().partition(":")
        if not colon or not name or not hashed.startswith("$argon2"):
            raise PasswordFileError(f"{where}:{number}: expected NAME:HASH, as mailrider auth writes it")
        if login_name(name) in users:
            raise PasswordFileError(f"{where}:{number}: the user {name[:100]!r} is there twice")
        users[login_name(name)] = hashed
    return users


def hash_password(password: str) -> str:
    """The text that is kept of a password; slow on purpose."""
    return HASHER.hash(composed(password))


def is_right(hashed: str, password: str) -> bool:
    """True if that is the password; slow on purpose. A hash that cannot be read fits nothing."""
    # As it was given it is tried for hashes that were made of it so.
    return any(_fits(hashed, each) for each in dict.fromkeys((composed(password), password)))


def _fits(hashed: str, password: str) -> bool:
    try:
        return HASHER.verify(hashed, password.encode("utf-8", "surrogateescape"))
    except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
        return False


def read_passwords(path: Path) -> dict[str, str]:
    """The users in a file. Raises `PasswordFileError`."""
    try:
        octets, _ = read_regular(path, MAX_FILE + 1)
    except OSError as error:
        hint = "; mailrider auth add USER makes it" if isinstance(error, FileNotFoundError) else ""
        raise PasswordFileError(f"cannot read the password file {path}: {error.strerror}{hint}") from error
    if len(octets) > MAX_FILE:
        raise PasswordFileError(f"the password file {path} is larger than {MAX_FILE} octets")
    try:
        return parse_passwords(octets.decode("utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise PasswordFileError(f"the password file {path} is not UTF-8 text") from error


def write_passwords(path: Path, users: Mapping[str, str], state_dir: Path | None = None) -> None:
    """Replace the file, as a whole or not at all; its owner and permissions stay, but that everybody may read it.

    A new one is its owner's only: the daemon's user, to whom its directory belongs, or `state_dir` if the directory is
    root's.

    Its directory is made if there is none: users may be added before the daemon has ever run.
    """
    lines = "".join(f"{check_name(name)}:{hashed}\n" for name, hashed in users.items())
    try:
        make_folder(path.parent)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(lines)
                file.flush()
                _keep_owner(file.fileno(), path, state_dir)
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise PasswordFileError(f"cannot write the password file {path}: {error.strerror}") from error


def _keep_owner(handle: int, path: Path, state_dir: Path | None) -> None:
    try:
        known = path.stat()
    except FileNotFoundError:
        is_roots = path.parent.stat().st_uid == 0
        follow_owner(handle, state_dir if is_roots and state_dir is not None and state_dir.is_dir() else path.parent)
        return
    os.fchmod(handle, known.st_mode & 0o770)
    if (known.st_uid, known.st_gid) != (os.geteuid(), os.getegid()):
        os.fchown(handle, known.st_uid, known.st_gid)


class PasswordFile:
    """An `Authenticator` over a password file, open while it is entered."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._version: FileStamp | None = None
        self._users: dict[str, str] = {}
        self._waiting = 0
        self._threads: ThreadPoolExecutor | None = None
        self._nobody = ""  # the hash that unknown users are compared with

    async def __aenter__(self) -> Self:
        """Raises `PasswordFileError` if the file is no good."""
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="passwords")
        try:
            loop = asyncio.get_running_loop()
            self._nobody = await loop.run_in_executor(self._threads, hash_password, secrets.token_urlsafe())
            self._read_again()
        except BaseException:
            self._threads.shutdown(wait=False)
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = None

    async def verify(self, credentials: Credentials) -> bool | Reply:
        """See `Authenticator`. Acting for somebody else is nobody's right."""
        if self._threads is None or self._waiting >= MAX_WAITING:
            return UNAVAILABLE
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._verify, credentials)
        except PasswordFileError:
            return UNAVAILABLE
        finally:
            self._waiting -= 1

    def _verify(self, credentials: Credentials) -> bool:
        self._read_again()
        user = login_name(credentials.user)
        known = self._users.get(user)
        right = is_right(known or self._nobody, credentials.password)
        return right and known is not None and login_name(credentials.acting_for) in ("", user)

    def _read_again(self) -> None:
        try:
            version = FileStamp.of(self._path.stat())
        except OSError as error:
            raise PasswordFileError(f"cannot read the password file {self._path}: {error.strerror}") from error
        if version != self._version:
            self._users = read_passwords(self._path)
            self._version = version
