"""Listening sockets that outlive those who serve them."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from mailrider.endpoint import sockets as module
from mailrider.endpoint.sockets import Sockets, inherited_sockets
from mailrider.errors import LocalError
from mailrider.settings.socket_address import SocketAddress

if TYPE_CHECKING:
    from pathlib import Path


def address(text: str) -> SocketAddress:
    return SocketAddress.parse(text)


def test_a_socket_is_bound_once_and_given_out_again(tmp_path: Path) -> None:
    where = address(f"unix://{tmp_path}/run/x")
    sockets = Sockets()
    first, second = sockets.take(where), sockets.take(where)
    with first, second:
        assert first.getsockname() == second.getsockname() == f"{tmp_path}/run/x"
        assert first.fileno() != second.fileno()
    assert (tmp_path / "run/x").stat().st_mode & 0o777 == 0o666
    assert sockets.keep_only([where]) == []
    assert (tmp_path / "run/x").exists()
    sockets.close()
    assert not (tmp_path / "run/x").exists()


def test_a_unix_socket_whose_file_was_removed_is_bound_anew(tmp_path: Path) -> None:
    where, path = address(f"unix://{tmp_path}/x"), tmp_path / "x"
    sockets = Sockets()
    sockets.bind(where)
    path.unlink()
    with sockets.take(where) as taken, socket.socket(socket.AF_UNIX) as client:
        taken.listen()
        client.connect(str(path))
    sockets.close()
    assert not path.exists()


@pytest.mark.parametrize("times", [1, 2])
def test_a_unix_socket_that_is_bound_anew_for_nobody_leaves_no_file_that_refuses_clients(
    tmp_path: Path, times: int
) -> None:
    where, path = address(f"unix://{tmp_path}/x"), tmp_path / "x"
    sockets = Sockets()
    with sockets.take(where) as served:
        for _ in range(times):
            path.unlink()
            sockets.bind(where)
        sockets.go_back([where])
        assert not path.exists()
        (kept,) = sockets.at([where])
        assert os.fstat(kept.fileno()).st_ino == os.fstat(served.fileno()).st_ino
    sockets.bind(where)
    assert path.is_socket()
    sockets.close()
    assert not path.exists()


def test_a_unix_socket_that_was_replaced_is_closed_once_the_new_one_is_kept(tmp_path: Path) -> None:
    where = address(f"unix://{tmp_path}/x")
    sockets = Sockets()
    sockets.bind(where)
    (old,) = sockets.at([where])
    (tmp_path / "x").unlink()
    sockets.bind(where)
    assert old.fileno() >= 0
    sockets.keep_only([where])
    assert old.fileno() == -1
    assert (tmp_path / "x").is_socket()
    sockets.close()


def test_a_file_of_somebody_else_at_the_place_of_our_socket_stays_and_so_does_the_socket(tmp_path: Path) -> None:
    where, path = address(f"unix://{tmp_path}/x"), tmp_path / "x"
    sockets = Sockets()
    sockets.bind(where)
    path.unlink()
    path.write_text("another's")
    with pytest.raises(LocalError, match="Address already in use"):
        sockets.bind(where)
    assert len(sockets.at([where])) == 1
    sockets.close()
    assert path.read_text() == "another's"


def test_the_file_goes_while_the_socket_is_open_so_that_it_is_our_own_and_refuses_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A closed socket's inode is free for a file that another program makes at this place."""
    where, path = address(f"unix://{tmp_path}/x"), tmp_path / "x"
    sockets = Sockets()
    with sockets.take(where) as taken:
        taken.listen()
    reached: list[int] = []
    real = os.unlink

    def unlink(name: str) -> None:
        with socket.socket(socket.AF_UNIX) as client:
            reached.append(client.connect_ex(name))
        real(name)

    monkeypatch.setattr(os, "unlink", unlink)
    sockets.close()
    assert reached == [0]
    assert not path.exists()


def test_no_other_file_has_the_inode_of_a_socket_that_is_open_and_its_mode_is_nothing_to_us(tmp_path: Path) -> None:
    where, path = address(f"unix://{tmp_path}/x"), tmp_path / "x"
    sockets = Sockets()
    sockets.bind(where)
    path.chmod(0o600)
    sockets.bind(where)
    assert path.stat().st_mode & 0o777 == 0o600, "it was not bound anew"
    path.unlink()
    for _ in range(20):
        path.touch()
        sockets.close()
        assert path.exists()
        path.unlink()
        sockets = Sockets()
        sockets.bind(where)
        path.unlink()
    sockets.close()


def test_a_file_that_cannot_be_removed_does_not_keep_the_others_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deny(_: str) -> None:
        raise PermissionError

    places = [address(f"unix://{tmp_path}/x"), address(f"unix://{tmp_path}/y")]
    sockets = Sockets()
    for each in places:
        sockets.bind(each)
    opened = sockets.at(places)
    monkeypatch.setattr(os, "unlink", deny)
    sockets.close()
    monkeypatch.undo()
    assert [each.fileno() for each in opened] == [-1, -1]


def test_an_address_that_is_taken_says_so() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        sockets = Sockets()
        with pytest.raises(LocalError, match="cannot listen on"):
            sockets.take(address(f"tcp://127.0.0.1:{other.getsockname()[1]}"))
        with pytest.raises(LocalError, match="not a name"):
            sockets.take(address("tcp://localhost:25"))
        sockets.close()


def test_what_we_were_started_with_is_used_and_the_rest_is_named() -> None:
    used, unused = socket.socket(), socket.socket(socket.AF_INET6)
    used.bind(("127.0.0.1", 0))
    unused.bind(("::1", 0))
    port, other = used.getsockname()[1], unused.getsockname()[1]
    sockets = Sockets([used, unused])
    where = address(f"tcp://127.0.0.1:{port}")
    with sockets.take(where) as taken:
        assert taken.getsockname() == ("127.0.0.1", port)
    assert sockets.keep_only([where]) == [f"::1 port {other}"]
    assert unused.fileno() == -1
    sockets.close()


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"LISTEN_PID": "1", "LISTEN_FDS": "1"},
        {"LISTEN_FDS": "1"},
        {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "x"},
    ],
)
def test_sockets_for_somebody_else_are_left_alone(environment: dict[str, str]) -> None:
    assert inherited_sockets(environment, os.getpid()) == []


def handed_over(opened: socket.socket | int, monkeypatch: pytest.MonkeyPatch) -> list[socket.socket]:
    """What becomes of a descriptor that the service manager gives us."""
    descriptor = opened if isinstance(opened, int) else opened.detach()
    monkeypatch.setattr(module, "FIRST", descriptor)
    return inherited_sockets({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}, os.getpid())


@pytest.mark.parametrize("text", ["tcp://[::]:{}", "tcp://0.0.0.0:{}"])
def test_a_dual_stack_socket_of_the_service_manager_serves_both(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    port = opened.getsockname()[1]
    sockets = Sockets(handed_over(opened, monkeypatch))
    both = [address(f"tcp://[::]:{port}"), address(f"tcp://0.0.0.0:{port}")]
    for where in both:
        with sockets.take(where) as taken:
            assert taken.getsockname()[:2] == ("::", port)
    assert sockets.keep_only([address(text.format(port))]) == []
    with sockets.take(both[1]) as taken:
        assert taken.getsockname()[1] == port
    sockets.close()


def test_one_for_ipv6_alone_does_not_serve_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = socket.create_server(("::", 0), family=socket.AF_INET6)
    port = opened.getsockname()[1]
    sockets = Sockets(handed_over(opened, monkeypatch))
    with sockets.take(address(f"tcp://0.0.0.0:{port}")) as taken:
        assert taken.family == socket.AF_INET
    sockets.close()


@pytest.mark.parametrize(
    ("kind", "words"), [(socket.SOCK_DGRAM, "a UDP socket"), (socket.SOCK_SEQPACKET, "a socket of type")]
)
def test_a_socket_that_cannot_serve_mail_is_named(
    kind: socket.SocketKind, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = socket.socket(socket.AF_INET if kind == socket.SOCK_DGRAM else socket.AF_UNIX, kind)
    with pytest.raises(LocalError, match=f"{words} .*: mail needs ListenStream="):
        handed_over(opened, monkeypatch)


def test_a_descriptor_that_is_no_socket_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    with pytest.raises(LocalError, match=f"descriptor {reader}, which is no socket"):
        handed_over(reader, monkeypatch)
    os.close(reader)
    os.close(writer)


def test_workers_inherit_what_listens_at_their_addresses_and_nothing_else(tmp_path: Path) -> None:
    both = socket.socket(socket.AF_INET6)
    both.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    both.bind(("::", 0))
    port = both.getsockname()[1]
    sockets = Sockets([both])
    local, other = address(f"unix://{tmp_path}/x"), address(f"unix://{tmp_path}/y")
    sockets.bind(local)
    sockets.bind(other)
    wanted = [local, address(f"tcp://[::]:{port}"), address(f"tcp://0.0.0.0:{port}"), address("tcp://[::1]:9")]
    found = sockets.at(wanted)
    assert [each.getsockname() for each in found] == [f"{tmp_path}/x", both.getsockname()]
    sockets.close()
