"""The listening sockets of a daemon: its own, or those that it was started with (socket activation).

They outlive the endpoints that serve them: while a configuration is replaced nobody is refused, new connections wait in
the kernel. `take` gives a duplicate for an endpoint; the original is kept until `keep_only`, `go_back` or `close`.

A dual-stack socket, as systemd's `ListenStream=25` makes one, serves `[::]` and `0.0.0.0` alike.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from mailrider.errors import LocalError
from mailrider.net.listen import tcp_socket, unix_socket
from mailrider.settings.socket_address import Scheme

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from mailrider.settings.socket_address import SocketAddress

MODE: Final = 0o666  # of a unix socket: who may reach it is a matter of its directory
FIRST: Final = 3  # the descriptor that sd_listen_fds(3) begins with

ANY_IPV4: Final = "0.0.0.0"  # noqa: S104 # what others may bind to
ANY_IPV6: Final = "::"

_NOWHERE: Final = (-1, -1)  # no file is known by this

_Key = tuple[str, int] | str


def inherited_sockets(environment: Mapping[str, str], pid: int) -> list[socket.socket]:
    """The sockets that systemd has opened for us (sd_listen_fds(3)); none if it has not, or for somebody else.

    Raises `LocalError` for what cannot serve mail.
    """
    if environment.get("LISTEN_PID") != str(pid):
        return []
    try:
        count = int(environment.get("LISTEN_FDS", "0"))
    except ValueError:
        return []
    return [_inherited(descriptor) for descriptor in range(FIRST, FIRST + count)]


def _inherited(descriptor: int) -> socket.socket:
    try:
        os.set_inheritable(descriptor, False)
        opened = socket.socket(fileno=descriptor)
    except OSError as error:
        raise LocalError(f"the service manager gave us descriptor {descriptor}, which is no socket") from error
    if opened.type != socket.SOCK_STREAM or opened.family not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
        kind = "a UDP socket" if opened.type == socket.SOCK_DGRAM else f"a socket of type {opened.type}"
        where = opened.getsockname()
        opened.close()
        raise LocalError(
            f"the service manager gave us {kind} ({_show(where[:2] if isinstance(where, tuple) else str(where))}): "
            "mail needs ListenStream=, not ListenDatagram="
        )
    return opened


class Sockets:
    """Sockets by the address at which they listen. Not to be used after `close`."""

    def __init__(self, inherited: Iterable[socket.socket] = ()) -> None:
        self._open: dict[_Key, socket.socket] = {_key_of_socket(each): each for each in inherited}
        self._inherited = set(self._open)
        self._files: dict[_Key, tuple[int, int]] = {}  # those of our unix sockets, so that we know others' from them
        self._replaced: dict[_Key, tuple[socket.socket, tuple[int, int]]] = {}  # see `bind`; with their files
        self._dual = set(filter(_is_dual_stack, self._open.values()))

    def take(self, address: SocketAddress) -> socket.socket:
        """A socket that listens at that address, for its caller to close. Raises `LocalError`."""
        self.bind(address)
        try:
            return self._open[self._find(address)].dup()
        except OSError as error:
            raise LocalError(f"cannot listen on {address}: {error.strerror}") from error

    def bind(self, address: SocketAddress) -> None:
        """Have a socket at that address, if there is none. Raises `LocalError`.

        A unix socket whose file was removed meanwhile is bound anew: nobody can reach the old one any more. It is kept
        until it is known whether anybody serves the new one: `keep_only`, or `go_back`.
        """
        key = self._find(address)
        is_removed = key in self._files and not self._has_file(key)
        if key in self._open and not is_removed:
            return
        opened = bind_socket(address)
        if is_removed:
            self._set_aside(key)
        self._open[key] = opened
        if isinstance(key, str):
            self._files[key] = _identity(key) or _NOWHERE

    def _set_aside(self, key: _Key) -> None:
        old = self._open.pop(key), self._files.pop(key)
        if self._replaced.setdefault(key, old) is not old:  # its file was removed twice: the first one is served
            old[0].close()

    def _has_file(self, key: _Key) -> bool:
        file = self._files.get(key)
        return file is not None and _identity(str(key)) == file

    def _find(self, address: SocketAddress) -> _Key:
        """The key of the socket that serves an address; its own if there is none yet."""
        key = _key(address)
        if key not in self._open and key[0] == ANY_IPV4:
            both = (ANY_IPV6, address.port)
            if self._open.get(both) in self._dual:
                return both
        return key

    def at(self, addresses: Iterable[SocketAddress]) -> list[socket.socket]:
        """Those that listen at these addresses, as far as they are open: for workers to inherit."""
        keys = dict.fromkeys(map(self._find, addresses))
        return [self._open[key] for key in keys if key in self._open]

    def keep_only(self, addresses: Iterable[SocketAddress]) -> list[str]:
        """Close what listens at other addresses, and what was replaced; returns what we were started with and do not
        use."""
        for old, _ in self._replaced.values():
            old.close()
        self._replaced.clear()
        wanted = set(map(self._find, addresses))
        unused = []
        for key in [key for key in self._open if key not in wanted]:
            if key in self._inherited:
                unused.append(_show(key))
            self._forget(key)
        return unused

    def go_back(self, addresses: Iterable[SocketAddress]) -> None:
        """The configuration in force, which has these addresses, stays: so do the sockets that it serves.

        The file of one that was bound anew goes: clients would be refused there, as long as nobody listens.
        """
        for key, (old, file) in self._replaced.items():
            self._forget(key)
            self._open[key], self._files[key] = old, file
        self._replaced.clear()
        self.keep_only(addresses)

    def _forget(self, key: _Key) -> None:
        """Close one. Its file goes first: no client finds a file where nobody listens, and once the socket is closed,
        a file that another program makes may get the same inode."""
        if self._has_file(key):
            with suppress(OSError):  # somebody else removed it, or we may not; the next start replaces it
                os.unlink(str(key))
        self._files.pop(key, None)
        self._open.pop(key).close()

    def close(self) -> None:
        """Close them all."""
        self.keep_only(())


def _identity(path: str) -> tuple[int, int] | None:
    """What the file of a socket is known by, whatever its name; None if there is none.

    Device and inode are enough while the socket is open: until then the kernel keeps its inode, and gives it to no
    other file. The times of a file say less: whoever changes its owner or mode changes them.
    """
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _key(address: SocketAddress) -> _Key:
    if address.path is not None:
        return str(address.path)
    return str(address.ip), address.port


def _key_of_socket(opened: socket.socket) -> _Key:
    name = opened.getsockname()
    return str(name) if isinstance(name, str) else (str(ip_address(name[0])), name[1])


def _is_dual_stack(opened: socket.socket) -> bool:
    if opened.family != socket.AF_INET6 or opened.getsockname()[0] != ANY_IPV6:
        return False
    return not opened.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)


def _show(key: _Key) -> str:
    return key if isinstance(key, str) else f"{key[0]} port {key[1]}"


def bind_socket(address: SocketAddress) -> socket.socket:
    """A socket that is bound to the address. Raises `LocalError`."""
    if address.scheme is Scheme.UNIX and address.path is not None:
        _make_directory(address.path.parent)
        return unix_socket(address.path, MODE)
    if address.ip is None:
        raise LocalError(f"cannot listen on {address}: expected an IP address, not a name")
    return tcp_socket(address.ip, address.port)


def _make_directory(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as error:
        raise LocalError(f"cannot make the directory {directory}: {error.strerror}") from error
