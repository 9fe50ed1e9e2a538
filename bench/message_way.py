"""The way of one warm message through our modules, from the endpoint to its settlement: how many, and in which order.

    scripts/message-way                # `N modules, M changes of module`, and the modules in their order
    scripts/message-way --policies     # a target with MTA-STS, DANE and DNSSEC; the usual one has none of them
    scripts/message-way --calls        # and every call

Warm: the client's connection and the one to the mail server are kept, and all DNS answers, policies and certificates
are known. The daemon runs in this process, with an endpoint, a queue in SQLite and a target. The lab, which is DNS and
the mail server, runs in another one. Calls are seen by `sys.setprofile` in every thread; a module counts if a function
of it was called or went on. Modules of events are no stops: they say what others tell of. Of several messages the one
is shown that passed the fewest: what a timer does in the midst of another is no part of its way.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import signal
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

import mailrider
from mailrider.app.daemon import Daemon
from mailrider.clock import SystemClock, after
from mailrider.config import loads
from mailrider.lab.internet import Internet
from mailrider.model.queue_event import RecipientDone

if TYPE_CHECKING:
    from collections.abc import Iterable
    from multiprocessing.connection import Connection
    from types import FrameType

    from mailrider.model.event import Event

ROOT = str(Path(mailrider.__file__).parent)
EVENTS = ("/event.py", "/events.py", "_event.py")
WARMING = 5  # messages that go the same way before
TRACED = 5  # messages of which the one with the shortest way is shown
DOMAIN = "dane.test"
LAB_PORT = 2525
PATIENCE = 120.0  # seconds for anything
MESSAGE = (
    b"From: a@sender.test\r\nMessage-ID: <1@sender.test>\r\nDate: Mon, 30 Nov 2026 09:00:00 +0000\r\n\r\nhello\r\n.\r\n"
)
ENVELOPE = f"MAIL FROM:<a@sender.test>\r\nRCPT TO:<b@{DOMAIN}>\r\nDATA\r\n".encode()

CONFIGURATION = """
target.queue local {{
    location {folder}/queue
    target &{target}
}}
target.remote plain {{
    port {port}
    prohibited_addresses none
    mx_auth {{
    }}
}}
smtp tcp://127.0.0.1:0 {{
    deliver_to &local
}}
"""


class Trace:
    """The calls of our functions, in every thread, while it is on: the module and the function of each."""

    def __init__(self) -> None:
        self.is_on = False
        self.calls: list[tuple[int, str, str]] = []
        self.shortest: list[tuple[int, str, str]] = []

    def begin(self) -> None:
        """A message sets out."""
        self.calls = []
        self.is_on = True

    def end(self) -> None:
        """It has arrived; of the others that did the one with the shortest way is `shortest`."""
        self.is_on = False
        if not self.shortest or len(_modules(self.calls)) < len(self.modules):
            self.shortest = self.calls

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event != "call" or not self.is_on or code.co_filename.endswith(EVENTS):
            return
        if code.co_filename.startswith(ROOT):
            self.calls.append((threading.get_ident(), _module_of(code.co_filename), code.co_qualname))

    @property
    def modules(self) -> list[str]:
        """In the order of their first call."""
        return _modules(self.shortest)

    @property
    def changes(self) -> int:
        """How often a call is in another module than the one before it in the same thread."""
        last: dict[int, str] = {}
        changes = 0
        for thread, module, _ in self.shortest:
            changes += last.get(thread, module) != module
            last[thread] = module
        return changes


def _modules(calls: Iterable[tuple[int, str, str]]) -> list[str]:
    return list(dict.fromkeys(module for _, module, _ in calls))


def _module_of(filename: str) -> str:
    return filename.removeprefix(ROOT).removeprefix("/").removesuffix(".py").replace("/", ".")


def serve(folder: Path, pipe: Connection) -> None:
    """The lab's process: says its configuration, and ends when the pipe does."""

    async def run() -> None:
        async with Internet(folder, port=LAB_PORT, dns_port=0, https_port=0) as internet:
            pipe.send(internet.configuration)
            await asyncio.to_thread(pipe.poll, None)

    asyncio.run(run())


async def send(port: int, done: asyncio.Queue[Event], trace: Trace) -> None:
    """The client: sends its messages on one connection, the last of them traced."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await _reply(reader)
    writer.write(b"EHLO client.test\r\n")
    await _reply(reader)
    for number in range(WARMING + TRACED):
        if number >= WARMING:
            trace.begin()
        writer.write(ENVELOPE)
        for _ in range(3):
            await _reply(reader)
        writer.write(MESSAGE)
        await _reply(reader)
        event = await done.get()
        if number >= WARMING:
            trace.end()
        if not (isinstance(event, RecipientDone) and event.is_over and event.outcome.status.value == "delivered"):
            raise RuntimeError(f"the message was not delivered: {event}")
        await asyncio.sleep(0.05)  # for what the last message has left to do
    writer.close()


async def _reply(reader: asyncio.StreamReader) -> None:
    while (line := await reader.readline())[3:4] == b"-":
        pass
    if line[:1] not in b"23":
        raise RuntimeError(f"the endpoint said: {line.decode()}")


async def trace_one(configuration: str, folder: Path, target: str) -> Trace:
    """The calls of one warm message."""
    trace = Trace()
    done: asyncio.Queue[Event] = asyncio.Queue()

    def emit(event: Event) -> None:
        if isinstance(event, RecipientDone):
            done.put_nowait(event)

    ours = CONFIGURATION.format(folder=folder, target=target, port=LAB_PORT)
    settings = loads(configuration.replace("deliver_to &lab", "") + ours)
    daemon = Daemon(lambda: settings, emit)
    threading.setprofile(trace)  # for threads that are started from here on: the store's
    sys.setprofile(trace)
    running = asyncio.create_task(daemon.run(settings))
    try:
        async with after(SystemClock(), PATIENCE):
            while not daemon.endpoints or not daemon.endpoints[0].ports:
                await asyncio.sleep(0.01)
                if running.done():
                    running.result()
            await send(daemon.endpoints[0].ports[0], done, trace)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
        signal.raise_signal(signal.SIGTERM)
        await running
    return trace


def print_trace(trace: Trace, *, calls: bool) -> None:
    """What was found."""
    print(f"{len(trace.modules)} modules, {trace.changes} changes of module")
    counted = [module for _, module, _ in trace.shortest]
    for module in trace.modules:
        print(f"    {counted.count(module):4} calls  {module}")
    for line in _lines(trace) if calls else ():
        print(line)


def _lines(trace: Trace) -> Iterable[str]:
    main = threading.get_ident()
    return (f"{'' if thread == main else '  (thread) '}{module}: {name}" for thread, module, name in trace.shortest)


def main() -> None:
    parser = argparse.ArgumentParser(prog="message-way", description=__doc__)
    parser.add_argument("--calls", action="store_true", help="print each call as well")
    parser.add_argument("--policies", action="store_true", help="a target with MTA-STS, DANE and DNSSEC")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mailrider-way-") as name:
        folder = Path(name)
        ours, theirs = multiprocessing.Pipe()
        lab = multiprocessing.get_context("spawn").Process(target=serve, args=(folder, theirs))
        lab.start()
        theirs.close()
        try:
            if not ours.poll(PATIENCE):
                raise RuntimeError("the lab did not open")
            trace = uvloop.run(trace_one(ours.recv(), folder, "lab" if options.policies else "plain"))
        finally:
            ours.close()
            lab.join(PATIENCE)
    print_trace(trace, calls=options.calls)


if __name__ == "__main__":
    main()
