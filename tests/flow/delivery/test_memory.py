"""A large message to many domains at once takes the memory of one message, not of one a domain: below 150 MB."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest

from mailrider.lab.ca import CA
from mailrider.lab.mx import LabMX
from mailrider.lab.mx_script import MXTLS, MXScript
from mailrider.smtp.capabilities import FULL_OFFER
from tests.flow.delivery.internet import internet
from tests.support.loopback import new_address

if TYPE_CHECKING:
    from pathlib import Path

DOMAINS = 20
SIZE = 50 * 1024 * 1024
MAX_RESIDENT = 150_000  # kB

CONFIGURATION = """
hostname client.test
dns {{ server {dns} }}
target.remote {{
    port {port}
    prohibited_addresses none
}}
deliver_to &remote
"""

# The high-water mark of its own memory is the last thing that a process of ours says.
REPORT = """
import atexit, sys
def report():
    with open("/proc/self/status") as status:
        (peak,) = (line.split()[1] for line in status if line.startswith("VmHWM"))
    print(f"peak {peak}", file=sys.stderr)
atexit.register(report)
"""
COMMAND = REPORT + "from mailrider.cli import main; main()"
PROGRAM = (
    REPORT
    + """
import asyncio, mailrider
from pathlib import Path
async def run(configuration, file, *recipients):
    async with mailrider.load(configuration).target("remote") as remote:
        report = await remote.send(Path(file).read_bytes(), "a@client.test", recipients)
        sys.exit(any(result.status != "delivered" for result in report))
asyncio.run(run(*sys.argv[1:]))
"""
)


@dataclass(frozen=True, slots=True)
class Case:
    """How the message is given, what its lines are, and what the servers offer."""

    given: str
    line: bytes
    chunking: bool
    tls: bool = False


CASES = {
    "a file, in chunks": Case("file", b"x" * 78 + b"\r\n", chunking=True),
    "standard input, dots to be stuffed": Case("standard input", b"." + b"x" * 997 + b"\r\n", chunking=False),
    "bytes, lines to be mended, over TLS": Case("bytes", b"x" * 998 + b"\n", chunking=False, tls=True),
}

# Each costs a gigabyte of sending: one is enough for every day.
FIRST, *OTHERS = CASES.values()
WAYS = [FIRST, *(pytest.param(case, marks=pytest.mark.long) for case in OTHERS)]


@pytest.mark.parametrize("case", WAYS, ids=CASES)
async def test_fifty_megabytes_to_twenty_domains(case: Case, tmp_path: Path) -> None:
    offer = replace(FULL_OFFER, chunking=case.chunking)
    script = MXScript(offer=offer, tls=MXTLS(CA().issue(["mx.test"])) if case.tls else None)
    peak = await deliver(case, script, tmp_path)
    assert peak < MAX_RESIDENT, f"{peak} kB"


async def deliver(case: Case, script: MXScript, folder: Path) -> int:
    """The peak of the memory of the process that delivered, in kB."""
    file, configuration = folder / "message", folder / "mailrider.conf"
    file.write_bytes(b"Subject: large\r\n\r\n" + case.line * (SIZE // len(case.line)))
    recipients = [f"x@d{number}.test" for number in range(DOMAINS)]
    async with internet({}) as net:
        servers = [await net.enter(LabMX(script, new_address(), net.port, keeps_content=False)) for _ in recipients]
        for number, server in enumerate(servers):
            net.dns.zones[f"d{number}.test"] = {"A": server.address}
        configuration.write_text(CONFIGURATION.format(dns=net.dns.server, port=net.port))
        to = [f"--to={each}" for each in recipients]
        command = ["-c", COMMAND, "-c", str(configuration), "send", "--from=a@client.test", *to]
        arguments = {
            "file": [*command, str(file)],
            "standard input": command,
            "bytes": ["-c", PROGRAM, str(configuration), str(file), *recipients],
        }[case.given]
        with file.open("rb") as stdin:
            process = await asyncio.create_subprocess_exec(
                sys.executable, *arguments, stdin=stdin, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
            )
            output, errors = await process.communicate()
        assert process.returncode == 0, output + errors
        assert [server.accepted for server in servers] == [1] * DOMAINS
        assert len({server.messages[0].sha256 for server in servers}) == 1
    return int(errors.split()[-1])
