"""The aliases of this machine, as aliases(5) describes them: who gets mail for `root`.

`parse_aliases` and `parse_included` are pure, `Aliases` reads the files and follows an alias to its addresses. What
always holds:

- a line that is wrong makes its own alias unusable, and no other: mail for it is deferred, and the log says why;
- pipes and files (`|command`, `/path`) are refused by name: nothing is run here, and nothing is written;
- only files are read that root or our own user owns, and that nobody else can write to: whoever can write them decides
  who reads the mail. They are read again when they have changed;
- a file has at most `MAX_FILE` octets, an alias at most `MAX_ADDRESSES` addresses and `MAX_LEVELS` aliases one behind
  the other, and one that leads back to itself leads nowhere (RFC 5321 6.3).
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mailrider.errors import ConfigError, InvalidValue
from mailrider.files import FileStamp, read_regular
from mailrider.header.addresses import parse_addresses
from mailrider.model.address import Mailbox, ReversePath
from mailrider.model.reply import Reply
from mailrider.model.text import logical_lines, without_case
from mailrider.model.value import value

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mailrider.model.domain import Domain

MAX_FILE: Final = 1 << 20  # octets of the file, and of each included one: some 20,000 aliases, read in milliseconds
MAX_ADDRESSES: Final = 1000
MAX_LEVELS: Final = 10
MAX_FAULTS: Final = 20  # lines that the log names at the start

LOOP: Final = Reply.make(554, "5.4.6", "The aliases of this address lead in a circle")
TOO_DEEP: Final = Reply.make(554, "5.4.6", f"The aliases of this address are more than {MAX_LEVELS} levels deep")
TOO_MANY: Final = Reply.make(554, "5.4.6", f"The alias has more than {MAX_ADDRESSES} addresses")
UNUSABLE: Final = Reply.make(451, "4.3.5", "The alias cannot be used now: the postmaster has to correct it")

_INCLUDE: Final = ":include:"
_OWNER: Final = "owner-"
_NAME = re.compile(r'[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s:"#|/][^:"]*?))[ \t]*:')
_ITEM = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*")+')
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')


class AliasFault(InvalidValue):
    """An alias that cannot be followed: `reply` is for the client, the text for us."""

    def __init__(self, reply: Reply, reason: str) -> None:
        super().__init__(reason)
        self.reply = reply


@value
class AliasMember:
    """An address that an alias leads to. `owner`: who hears of what fails there, if the list has somebody for it."""

    mailbox: Mailbox
    owner: ReversePath | None = None


@dataclass(frozen=True, slots=True)
class AliasEntry:
    """What stands behind the name of an alias. `fault`: why it cannot be used, empty if it can."""

    number: int
    text: str
    fault: str = ""


# Texts ---------------------------------------------------------------------------------------------------------------


def parse_aliases(text: str) -> dict[str, AliasEntry]:
    """The aliases of a file by their names, in lower case. What stands behind a name is read when it is asked for."""
    found: dict[str, AliasEntry] = {}
    for number, line in logical_lines(text):
        match = _NAME.match(line)
        if match is None:
            # Nobody can ask for it; its own number keeps it among the faults.
            found[f"\0{number}"] = AliasEntry(number, line, "expected NAME: ADDRESS, ...")
            continue
        name = without_case(match[1] if match[1] is not None else match[2])
        if "@" in name:
            found[name] = AliasEntry(number, "", "expected a name without a domain: aliases are those of origin")
        elif name in found:
            found[name] = AliasEntry(number, "", f"the alias stands there twice, first in line {found[name].number}")
        else:
            found[name] = AliasEntry(number, line[match.end() :])
    return found


def items_of(text: str) -> list[str]:
    """What stands between the commas. Raises `InvalidValue`."""
    items: list[str] = []
    end = 0
    for match in _ITEM.finditer(text):
        if text[end : match.start()].strip(", \t"):
            break
        end = match.end()
        if item := match[0].strip():
            items.append(item)
    if text[end:].strip(", \t"):
        raise InvalidValue("a quote is not closed")
    return items


def parse_item(item: str) -> Mailbox | Path:
    """An address; or the path of an included file. Raises `InvalidValue`, which names what is refused."""
    quoted = _QUOTED.fullmatch(item)
    bare = quoted[1] if quoted else item
    if bare.startswith("|"):
        raise InvalidValue(f"mail is not given to programs: {bare[:100]!r}")
    if bare.startswith("/"):
        raise InvalidValue(f"mail is not written to files: {bare[:100]!r}")
    if bare.lower().startswith(_INCLUDE):
        path = bare[len(_INCLUDE) :].strip()
        if not path.startswith("/") or "\0" in path:
            raise InvalidValue(f"expected :include: and an absolute path, not {path[:100]!r}")
        return Path(path)
    return _address(item)


def _address(item: str) -> Mailbox:
    found = parse_addresses(item)
    if len(found) != 1:
        raise InvalidValue(f"expected one address, not {item[:100]!r}")
    return Mailbox.parse(found[0].text)


def parse_included(text: str) -> list[Mailbox]:
    """The addresses of an included file: lists with commas, on any number of lines. Raises `InvalidValue`."""
    found: list[Mailbox] = []
    for number, line in enumerate(text.split("\n"), 1):
        bare = line.strip()
        if not bare or bare.startswith("#"):
            continue
        try:
            for item in items_of(bare):
                mailbox = parse_item(item.removeprefix("\\"))
                if isinstance(mailbox, Path):
                    raise InvalidValue("an included file includes no other")
                found.append(mailbox)
        except InvalidValue as error:
            raise InvalidValue(f"line {number}: {error}") from None
        if len(found) > MAX_ADDRESSES:
            raise AliasFault(TOO_MANY, f"more than {MAX_ADDRESSES} addresses")
    return found


# Files ---------------------------------------------------------------------------------------------------------------


class UnsafeFile(ConfigError):
    """A file of aliases that cannot be read, or that must not be believed."""


def read_safe(path: Path) -> tuple[str, FileStamp]:
    """The text of a file that only its owner, root or we, can write to. Raises `UnsafeFile`."""
    try:
        octets, info = read_regular(path, MAX_FILE + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UnsafeFile(f"cannot read {path}: {reason}") from error
    if info.st_uid not in (0, os.geteuid()):
        raise UnsafeFile(f"{path} belongs to user {info.st_uid}: expected root, or the user that mailrider runs as")
    if info.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise UnsafeFile(f"others than its owner may write to {path} (chmod go-w)")
    if len(octets) > MAX_FILE:
        raise UnsafeFile(f"{path} is larger than {MAX_FILE} octets")
    try:
        return octets.decode("utf-8-sig").replace("\r\n", "\n"), FileStamp.of(info)
    except UnicodeDecodeError as error:
        raise UnsafeFile(f"{path} is not UTF-8 text") from error


class Aliases:
    """The aliases in a file, for the addresses of `origin`."""

    def __init__(self, path: Path, origin: Domain) -> None:
        self._path = path
        self._origin = origin
        self._stamp: FileStamp | None = None
        self._lines: Mapping[str, AliasEntry] = {}
        self._included: dict[Path, tuple[FileStamp, list[Mailbox]]] = {}

    def load(self) -> list[str]:
        """Read the file now; returns what is wrong in it, line by line. Raises `UnsafeFile`."""
        self._refresh()
        faults: list[str] = []
        for name, line in self._lines.items():
            try:
                if line.fault:
                    raise InvalidValue(line.fault)
                self._own_items(line)
            except InvalidValue as error:
                faults.append(f"{self._path}:{line.number}: {'' if name[0] == chr(0) else f'{name}: '}{error}")
        done: dict[str, dict[Mailbox, AliasMember]] = {}
        for name, line in self._lines.items():
            try:
                self._follow(name, (), done)
            except AliasFault as fault:
                if fault.reply is not UNUSABLE:  # what is wrong with single lines is told already
                    faults.append(f"{self._path}:{line.number}: {name}: {fault}")
        return faults[:MAX_FAULTS]

    def members(self, mailbox: Mailbox) -> tuple[AliasMember, ...] | None:
        """Whom mail for an address goes to; None if it is no alias. Raises `AliasFault`."""
        if not self._is_ours(mailbox):
            return None
        try:
            self._refresh()
        except UnsafeFile as error:
            raise AliasFault(UNUSABLE, str(error)) from error
        name = _name(mailbox)
        if name not in self._lines:
            return None
        return tuple(self._follow(name, (), {}).values())

    def _is_ours(self, mailbox: Mailbox) -> bool:
        return mailbox.domain is None or mailbox.domain == self._origin

    def _refresh(self) -> None:
        try:
            is_same = self._stamp is not None and FileStamp.of(os.stat(self._path)) == self._stamp
        except OSError:
            is_same = False  # reading it says why
        if not is_same:
            self._stamp = None
            text, stamp = read_safe(self._path)
            self._lines, self._stamp = parse_aliases(text), stamp

    def _follow(
        self, name: str, chain: tuple[str, ...], done: dict[str, dict[Mailbox, AliasMember]]
    ) -> dict[Mailbox, AliasMember]:
        """The members of an alias, each once. `chain` are the aliases that led here, `done` those that are known."""
        if name in done:
            return done[name]
        if name in chain:
            raise AliasFault(LOOP, f"these aliases lead in a circle: {' -> '.join((*chain, name))}")
        if len(chain) == MAX_LEVELS:
            raise AliasFault(TOO_DEEP, f"more than {MAX_LEVELS} levels: {' -> '.join((*chain, name))}")
        line = self._lines[name]
        found: dict[Mailbox, AliasMember] = {}
        for mailbox, is_final in self._items(name, line):
            next_name = _name(mailbox)
            # An alias that names itself means the mailbox behind it: `root: root, ann@example.org` keeps a copy.
            if is_final or next_name == name or not self._is_ours(mailbox) or next_name not in self._lines:
                complete = mailbox if mailbox.domain is not None else Mailbox(mailbox.local_part, self._origin)
                found.setdefault(complete, AliasMember(complete))
            else:
                for address, member in self._follow(next_name, (*chain, name), done).items():
                    found.setdefault(address, member)
            if len(found) > MAX_ADDRESSES:
                raise AliasFault(TOO_MANY, f"{name}: more than {MAX_ADDRESSES} addresses")
        owner = self._owner(name) if len(found) > 1 else None
        if owner is not None:
            found = {key: member if member.owner else AliasMember(key, owner) for key, member in found.items()}
        done[name] = found
        return found

    def _owner(self, name: str) -> ReversePath | None:
        """Who hears of failures instead of the sender (RFC 3461 5.2.7.1): the address of `owner-NAME`.

        If it has several, or is one for more, its own name is the address.
        """
        owner = f"{_OWNER}{name}"
        if name.startswith(_OWNER) or owner not in self._lines:
            return None
        members = list(self._follow(owner, (), {}).values())
        return ReversePath(members[0].mailbox if len(members) == 1 else Mailbox(owner, self._origin))

    def _items(self, name: str, line: AliasEntry) -> list[tuple[Mailbox, bool]]:
        """The addresses that stand behind a name; True with one that is not looked up again (`\\root`)."""
        where = f"{self._path}:{line.number}: {name}"
        try:
            if line.fault:
                raise InvalidValue(line.fault)
            return self._own_items(line)
        except AliasFault as fault:
            raise AliasFault(fault.reply, f"{where}: {fault}") from None
        except InvalidValue as error:
            raise AliasFault(UNUSABLE, f"{where}: {error}") from error

    def _own_items(self, line: AliasEntry) -> list[tuple[Mailbox, bool]]:
        found: list[tuple[Mailbox, bool]] = []
        for item in items_of(line.text):
            parsed = parse_item(item.removeprefix("\\"))
            if isinstance(parsed, Path):
                found += [(mailbox, False) for mailbox in self._include(parsed)]
            else:
                found.append((parsed, item.startswith("\\")))
            if len(found) > MAX_ADDRESSES:
                raise AliasFault(TOO_MANY, f"more than {MAX_ADDRESSES} addresses")
        if not found:
            raise InvalidValue("it leads to nobody")
        return found

    def _include(self, path: Path) -> list[Mailbox]:
        known = self._included.get(path)
        try:
            if known is not None and FileStamp.of(os.stat(path)) == known[0]:
                return known[1]
        except OSError:
            pass  # reading it says why
        try:
            text, stamp = read_safe(path)
            mailboxes = parse_included(text)
        except AliasFault as fault:
            raise AliasFault(fault.reply, f"{path}: {fault}") from None
        except UnsafeFile as error:
            raise InvalidValue(str(error)) from error
        except InvalidValue as error:
            raise InvalidValue(f"{path}: {error}") from error
        if len(self._included) > MAX_ADDRESSES:  # files that are named no more
            self._included.clear()
        self._included[path] = stamp, mailboxes
        return mailboxes


def _name(mailbox: Mailbox) -> str:
    """What an address is looked up by; the names of aliases have no case."""
    return without_case(mailbox.local_part)
