"""What a tarpit with many names takes away from other mail: the engine in the lab, with real sockets.

    python -m bench.tarpit
    python -m bench.tarpit --names 1000 --messages 5000

A thousand domains have one mail server, which answers each command just before `command_timeout` (here 10 s). First
other mail alone, to a hundred domains on ten servers; then the same while a message to each of the thousand waits in
the queue; then while one message with a thousand recipients at one such domain does. The other servers take a third of
a second for each message, so it is the sixteen places of the queue that bound the speed, and not the machine: the
figures say little, their ratio is what counts. 0.9 is promised.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

from mailrider.app.library import Queue
from mailrider.delivery.settings import RemoteSettings
from mailrider.dns.settings import DNSSettings
from mailrider.lab.dns import LabDNS
from mailrider.lab.mx import LabMX
from mailrider.lab.mx_script import DelayedReply, MXScript, Stage
from mailrider.model.queue_event import RecipientDone

if TYPE_CHECKING:
    from mailrider.lab.zones import ZoneTable
    from mailrider.model.event import Event

PORT, DNS_PORT = 2525, 5300
COMMAND_TIMEOUT = 10.0
TAKING = 0.33  # seconds
SERVERS, DOMAINS = 10, 100
MESSAGE = b"From: a@sender.test\r\nSubject: bench\r\n\r\n" + b"x" * 1000 + b"\r\n"
PROMISED = 0.9
SETTLED = 5.0  # seconds in which each message to the tarpit has its first attempt: that work is not what is measured


@dataclass(slots=True)
class Tally:
    """Counts the messages that were delivered, until there are enough."""

    delivered: int = 0
    wanted: int = 0
    reached: asyncio.Event | None = None

    def __call__(self, event: Event) -> None:
        if isinstance(event, RecipientDone) and event.is_over:
            self.delivered += 1
            if self.reached is not None and self.delivered >= self.wanted:
                self.reached.set()

    async def wait(self, more: int) -> None:
        """Until so many more are delivered."""
        self.wanted, self.reached = self.delivered + more, asyncio.Event()
        await self.reached.wait()


def zones(names: int) -> ZoneTable:
    """The tarpit's domains, and the others."""
    table: ZoneTable = {"mx.evil.test": {"A": "127.0.2.1"}}
    for number in range(names):
        table[f"d{number}.evil.test"] = {"MX": "10 mx.evil.test"}
    for number in range(SERVERS):
        table[f"mx{number}.good.test"] = {"A": f"127.0.2.{number + 10}"}
    for number in range(DOMAINS):
        table[f"d{number}.good.test"] = {"MX": f"10 mx{number % SERVERS}.good.test"}
    return table


async def send_other_mail(queue: Queue, tally: Tally, messages: int) -> float:
    """Messages a second."""
    began = time.monotonic()
    arrived = asyncio.create_task(tally.wait(messages))
    await asyncio.sleep(0)
    for number in range(messages):
        await queue.submit(MESSAGE, "a@sender.test", [f"b@d{number % DOMAINS}.good.test"])
    await arrived
    return messages / (time.monotonic() - began)


async def measure(case: str, names: int, messages: int) -> float:
    """One case, in a queue of its own."""
    late = DelayedReply(COMMAND_TIMEOUT - 0.5)
    tarpit = MXScript(replies={Stage.MAIL: late, Stage.RCPT: late, Stage.DATA: late})
    tally = Tally()
    async with AsyncExitStack() as stack:
        dns = await stack.enter_async_context(LabDNS(zones(names), "127.0.2.53", DNS_PORT))
        await stack.enter_async_context(LabMX(tarpit, "127.0.2.1", PORT))
        for number in range(SERVERS):
            takes = MXScript(replies={Stage.END: DelayedReply(TAKING)})
            await stack.enter_async_context(LabMX(takes, f"127.0.2.{number + 10}", PORT))
        settings = RemoteSettings(
            hostname="sender.test",
            port=PORT,
            prohibited_addresses="none",
            command_timeout=COMMAND_TIMEOUT,
            mx_auth=None,
            dns=DNSSettings(server=[dns.server]),
        )
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        queue = Queue(target=settings, location=folder / "queue", on_event=tally)
        await stack.enter_async_context(queue)
        if case == "names":
            for number in range(names):
                await queue.submit(MESSAGE, "a@sender.test", [f"b@d{number}.evil.test"])
        elif case == "recipients":
            await queue.submit(MESSAGE, "a@sender.test", [f"u{number}@d0.evil.test" for number in range(names)])
        await asyncio.sleep(SETTLED if case != "alone" else 0)
        return await send_other_mail(queue, tally, messages)


def main() -> int:
    """All cases; 1 if other mail lost more than is promised."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--names", type=int, default=1000)
    parser.add_argument("--messages", type=int, default=800)
    parser.add_argument("--rounds", type=int, default=1)
    given = parser.parse_args()
    cases = ("alone", "names", "recipients")
    best = dict.fromkeys(cases, 0.0)
    for _ in range(given.rounds):
        for case in cases:
            best[case] = max(best[case], uvloop.run(measure(case, given.names, given.messages)))
    for case in cases:
        print(f"{case:12} {best[case]:8.0f} messages/s  {best[case] / best['alone']:.2f} of alone")
    return 0 if min(best.values()) >= PROMISED * best["alone"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
