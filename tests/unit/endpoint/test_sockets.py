"""Listening sockets that outlive those who serve them."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from mailrider.endpoint.sockets import Sockets, inherited_sockets
from mailrider.errors import LocalError
from mailrider.model.socket_address import SocketAddress

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
