"""Workers that accept from one socket: here in one process, each with a descriptor and a slot of its own."""

from __future__ import annotations

import asyncio
import errno
import socket
from contextlib import AsyncExitStack, asynccontextmanager
from ipaddress import IPv4Address, ip_network
from typing import TYPE_CHECKING, Any

import pytest

from mailrider.clock import SystemClock
from mailrider.net import accept_turns as turns_module
from mailrider.net.accept_turns import MOST, Page, Turns
from mailrider.net.channel import Channel
from mailrider.net.listen import Listener, Proxies, tcp_socket, unix_socket
from mailrider.net.peer import peer_credentials
from tests.support.channels import Recorder
from tests.support.loops import LOOPS, eventually, run_clean
from tests.support.patient_clock import PatientClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


CLOCK = SystemClock()
LOOPBACK = IPv4Address("127.0.0.1")

both_loops = pytest.mark.parametrize("loop", LOOPS)


class Worker:
    """A listener, and the channels that it accepted."""

    def __init__(self, page: Page, slot: int, proxies: Proxies | None = None) -> None:
        self.turns = Turns(page, slot)
        self.channels = list[Channel]()
        # Who leaves a connection to others does so for a second of the event loop, not of a busy machine.
        self.listener = Listener(PatientClock(), self._accept, proxies)

    def _accept(self, channel: Channel) -> Recorder:
        self.channels.append(channel)
        return Recorder(channel)


@asynccontextmanager
async def workers(count: int, bound: socket.socket, **options: Any) -> AsyncIterator[list[Worker]]:
    page = Page.create()
    page.announce(count)
    made = [Worker(page, slot, **options) for slot in range(count)]
    async with AsyncExitStack() as stack:
        stack.callback(page.close)
        stack.callback(bound.close)
        for each in made:
            await each.listener.open_socket(bound.dup(), each.turns)
            stack.push_async_callback(each.listener.close)
            each.turns.come()
        yield made


async def connect(bound: socket.socket, count: int = 1) -> list[asyncio.StreamWriter]:
    port = bound.getsockname()[1]
    opened = await asyncio.gather(*(asyncio.open_connection("127.0.0.1", port) for _ in range(count)))
    return [writer for _, writer in opened]


def hang_up(clients: list[asyncio.StreamWriter]) -> None:
    for each in clients:
        each.transport.abort()


@both_loops
def test_twenty_at_once_are_shared_by_four_workers(loop: str) -> None:
    async def scenario() -> None:
        bound = tcp_socket(LOOPBACK, 0)
        async with workers(4, bound) as them:
            clients = await connect(bound, 20)
            await eventually(lambda: sum(each.turns.sessions for each in them) == 20)
            assert all(2 <= each.turns.sessions <= 9 for each in them)
            hang_up(clients)
            await eventually(lambda: [each.turns.sessions for each in them] == [0, 0, 0, 0])

    run_clean(loop, scenario())


@both_loops
def test_who_has_more_sessions_leaves_the_next_to_others_and_takes_it_if_nobody_does(loop: str) -> None:
    async def scenario() -> None:
        bound = tcp_socket(LOOPBACK, 0)
        async with workers(2, bound) as (first, hanging):
            hanging.listener.stop()  # it still says that it takes
            begun = CLOCK.monotonic()
            clients = []
            for number in range(1, 4):
                clients += await connect(bound)
                await eventually(lambda most=number: first.turns.sessions == most)  # type: ignore[misc]
            assert CLOCK.monotonic() - begun >= 0.003 - 0.0005
            assert first.turns.pause() == pytest.approx(0.003)
            assert first.turns.pause() <= MOST
            hang_up(clients)
            await eventually(lambda: not first.turns.sessions)

    run_clean(loop, scenario())


@both_loops
def test_who_cannot_take_mail_leaves_the_socket_to_one_who_can(loop: str) -> None:
    async def scenario() -> None:
        bound = tcp_socket(LOOPBACK, 0)
        async with workers(2, bound) as (short, other):
            short.turns.refuse(True)
            clients = await connect(bound, 5)
            await eventually(lambda: other.turns.sessions == 5)
            assert short.turns.sessions == 0
            other.turns.refuse(True)
            other.listener.stop()
            clients += await connect(bound)
            await eventually(lambda: short.turns.sessions == 1)
            hang_up(clients)
            await eventually(lambda: not short.turns.sessions + other.turns.sessions)

    run_clean(loop, scenario())


@both_loops
def test_without_descriptors_it_rests_and_goes_on(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns_module, "REST", 0.01)
    faults = [OSError(errno.EMFILE, "Too many open files"), OSError(errno.EIO, "strange")]
    accept = socket.socket.accept

    def failing(listening: socket.socket) -> Any:
        if faults:
            raise faults.pop(0)
        return accept(listening)

    async def scenario() -> None:
        told = list[str]()
        bound = tcp_socket(LOOPBACK, 0)
        async with workers(1, bound) as (worker,):
            asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["message"]))
            monkeypatch.setattr(socket.socket, "accept", failing)
            clients = await connect(bound)
            await eventually(lambda: worker.turns.sessions == 1)
            assert told == ["a listening socket fails"]
            hang_up(clients)
            await eventually(lambda: not worker.turns.sessions)

    run_clean(loop, scenario())


@both_loops
def test_who_is_at_a_unix_socket_is_known(loop: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        path = tmp_path / "socket"
        bound = unix_socket(path, 0o666)
        async with workers(1, bound) as (worker,):
            _, writer = await asyncio.open_unix_connection(path)
            await eventually(lambda: worker.channels)
            found = peer_credentials(worker.channels[0])
            assert found is not None
            assert worker.channels[0].peer_address == ""
            hang_up([writer])
            await eventually(lambda: not worker.turns.sessions)

    run_clean(loop, scenario())


@both_loops
def test_a_small_write_is_sent_at_once(loop: str) -> None:
    async def scenario() -> None:
        bound = tcp_socket(LOOPBACK, 0)
        async with workers(1, bound) as (worker,):
            clients = await connect(bound)
            await eventually(lambda: worker.channels)
            # An option of a socket can only be read from the socket.
            fileno = worker.channels[0]._transport.get_extra_info("socket").fileno()
            with socket.socket(fileno=socket.dup(fileno)) as same:
                assert same.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            hang_up(clients)
            await eventually(lambda: not worker.turns.sessions)

    run_clean(loop, scenario())


@both_loops
def test_a_proxy_announces_its_client_and_counts_before_it_does(loop: str) -> None:
    async def scenario() -> None:
        refused = list[str]()
        proxies = Proxies([ip_network("127.0.0.1/32")], lambda _, reason: refused.append(reason))
        bound = tcp_socket(LOOPBACK, 0)
        async with workers(1, bound, proxies=proxies) as (worker,):
            first, second, third = await connect(bound, 3)
            await eventually(lambda: worker.turns.sessions == 3)
            first.write(b"PROXY TCP4 192.0.2.1 198.51.100.1 12345 25\r\n")
            await eventually(lambda: worker.channels)
            assert worker.channels[0].peer_address == "192.0.2.1"
            second.write(b"no proxy\r\n")
            await eventually(lambda: refused)
            third.transport.abort()
            await eventually(lambda: worker.turns.sessions == 1)
            hang_up([first])
            await eventually(lambda: worker.turns.sessions == 0)
            second.close()

    run_clean(loop, scenario())


def test_a_connection_that_is_gone_before_it_began_counts_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async def fail(*_: object) -> None:
            raise OSError(errno.ENOTCONN, "gone")

        bound = tcp_socket(LOOPBACK, 0)
        async with workers(1, bound) as (worker,):
            monkeypatch.setattr(asyncio.get_running_loop(), "connect_accepted_socket", fail)
            begun = list[int]()
            end = worker.turns.end

            def ended() -> None:
                begun.append(worker.turns.sessions)
                end()

            monkeypatch.setattr(worker.turns, "end", ended)
            clients = await connect(bound)
            await eventually(lambda: begun == [1])
            assert worker.turns.sessions == 0
            hang_up(clients)

    run_clean("asyncio", scenario())
