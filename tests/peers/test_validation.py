"""Our own validation against zones that are signed and broken in all ways, with a root of our own.

Debian's `delv` is asked the same; the two must agree on what is secure, insecure and bogus. Then come attacks: servers
that lie, strip and forge.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import signal
import ssl
import subprocess
import sys
import time
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import mailrider
from mailrider.clock import SystemClock
from mailrider.dns.answer import Answer, LookupFailed, LookupFailure, RecordType
from mailrider.dns.caching import CachingResolver
from mailrider.dns.opening import open_resolver
from mailrider.dns.settings import DNSSettings
from mailrider.errors import ConfigError
from mailrider.model.domain import Domain
from mailrider.model.event import (
    DNSSECValidationFails,
    DNSSECValidationWorks,
    DNSServerUnfit,
    Event,
    SecurityUnavailable,
)
from mailrider.x509.describe import describe_chain
from tests.flow.app.running import running as running_daemon
from tests.peers import keytrap
from tests.peers.hierarchy import Hierarchy, SignedZone, start_hierarchy
from tests.peers.liar import forged, honest, silent, start_liar, stripped, with_ad
from tests.support.commands import run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from mailrider.dns.resolver import Resolver
    from tests.peers.certificate import Authority, Certificate
    from tests.peers.liar import Change
    from tests.peers.postfix import Postfix

HOST = {
    "@": ["MX 10 mx"],
    "mx": ["A 127.9.9.9"],
    "_25._tcp.mx": [f"TLSA 3 1 1 {'ab' * 32}"],
    "*.wild": ["MX 10 mx"],
    "alias": ["CNAME mx.unsigned.test."],
    "signed-alias": ["CNAME mx.rsa.test."],
    "bogus-alias": ["CNAME mx.bogus.test."],
}
ZONES = (
    SignedZone("."),
    SignedZone("test", options=("-n",)),
    SignedZone("org"),
    SignedZone("iana.org", HOST),
    SignedZone("dnssec-failed.org", {"@": ["A 127.9.9.8"]}, altered=(r"127\.9\.9\.8", "127.9.9.7")),
    SignedZone("rsa.test", HOST, "RSASHA256"),
    SignedZone("rsa512.test", HOST, "RSASHA512"),
    SignedZone("ecdsa.test", HOST),
    SignedZone("ecdsa384.test", HOST, "ECDSAP384SHA384"),
    SignedZone("ed25519.test", HOST, "ED25519"),
    SignedZone("unsigned.test", HOST, None),
    SignedZone("nsec3.test", HOST, options=("-n", "-s", "abcd", "-t", "1")),
    SignedZone("optout.test", HOST, options=("-n", "-p")),
    SignedZone("below.optout.test", HOST, None),
    SignedZone("bogus.test", HOST, altered=(r"127\.9\.9\.9", "127.9.9.6")),
    SignedZone("expired.test", HOST, options=("-i", "20200101", "-e", "20200201")),
    SignedZone("early.test", HOST, options=("-i", "20350101", "-e", "20360101")),
    SignedZone("nods.test", HOST, ds=False),
    SignedZone("wrongds.test", HOST, ds=f"1 13 2 {'00' * 32}"),
    SignedZone("stripped.test", HOST, altered=(r"(?m)^.*\tRRSIG\t.*\n", "")),
    SignedZone("unknown.test", HOST, None, ds=f"12345 200 2 {'00' * 32}"),
    SignedZone("iterations.test", HOST, options=("-n", "-t", "2000", "-s", "abcd")),
    SignedZone("corp.test", HOST, None, delegated=False),
    SignedZone("internal", HOST, None, delegated=False),
    keytrap.keytrap_zone(),
)

QUEUE = """
target.queue q {
    target remote { }
}
submission tcp://127.0.0.1:0 {
    deliver_to &q
}
"""
MAX_KEYTRAP = 0.2  # seconds of a processor
SECURE, INSECURE, BOGUS = "secure", "insecure", "bogus"
TABLE = [
    *((name, "MX", SECURE) for name in ("rsa.test", "rsa512.test", "ecdsa.test", "ecdsa384.test", "ed25519.test")),
    *((name, "MX", SECURE) for name in ("nsec3.test", "optout.test", "iterations.test", "iana.org")),
    ("_25._tcp.mx.ecdsa.test", "TLSA", SECURE),
    ("nobody.ecdsa.test", "MX", SECURE),
    ("nobody.nsec3.test", "MX", SECURE),
    ("mx.ecdsa.test", "MX", SECURE),
    ("mx.nsec3.test", "TXT", SECURE),
    ("a.wild.ecdsa.test", "MX", SECURE),
    ("a.wild.nsec3.test", "MX", SECURE),
    ("a.wild.nsec3.test", "A", SECURE),
    ("signed-alias.ecdsa.test", "A", SECURE),
    ("unsigned.test", "MX", INSECURE),
    ("nobody.unsigned.test", "MX", INSECURE),
    ("nods.test", "MX", INSECURE),
    ("below.optout.test", "MX", INSECURE),
    ("unknown.test", "MX", INSECURE),
    ("alias.ecdsa.test", "A", INSECURE),
    ("nobody.iterations.test", "MX", INSECURE),
    ("mx.bogus.test", "A", BOGUS),
    ("bogus-alias.ecdsa.test", "A", BOGUS),
    ("expired.test", "MX", BOGUS),
    ("nobody.expired.test", "MX", BOGUS),
    ("early.test", "MX", BOGUS),
    ("wrongds.test", "MX", BOGUS),
    ("stripped.test", "MX", BOGUS),
    ("corp.test", "MX", BOGUS),  # a split horizon: the parent proves that there is no such zone
    ("dnssec-failed.org", "A", BOGUS),
]


@pytest.fixture(scope="module")
def root() -> Iterator[Hierarchy]:
    with start_hierarchy(ZONES) as hierarchy:
        yield hierarchy


@asynccontextmanager
async def resolver(
    root: Hierarchy, server: str | None = None, events: list[Event] | None = None, *, tls_roots: str = "", **more: Any
) -> AsyncIterator[Resolver]:
    settings = {"validate": "yes", "trust_anchor": [root.anchor], "timeout": 30, "attempts": 2, **more}
    dns = DNSSettings(server=[server or root.forwarder], **settings)
    emit = (events if events is not None else []).append
    opened = open_resolver(dns, SystemClock(), random.SystemRandom(), emit, tls_roots=tls_roots)
    async with opened as resolver:
        yield resolver


async def ask(resolver: Resolver, name: str, kind: str, *, fresh: bool = False) -> Answer[Any] | LookupFailed:
    try:
        return await resolver.lookup(Domain(name), RecordType(kind), fresh=fresh)
    except LookupFailed as error:
        return error


async def status(resolver: Resolver, name: str, kind: str, *, fresh: bool = False) -> str:
    outcome = await ask(resolver, name, kind, fresh=fresh)
    if isinstance(outcome, LookupFailed):
        return BOGUS if outcome.failure is LookupFailure.BOGUS else str(outcome.failure)
    return SECURE if outcome.authentic else INSECURE


def delv(root: Hierarchy, name: str, kind: str) -> str:
    """What Debian's delv (BIND) finds."""
    command = ["delv", f"@{root.forwarder}", "-a", str(root.bind_anchor), "+root=.", name, kind]
    said = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    if "resolution failed" in said.stderr and "resolution failed: ncache" not in said.stderr:
        return BOGUS
    words = re.findall(r"^; (?:negative response, )?(fully validated|unsigned answer)", said.stdout, re.MULTILINE)
    assert words, said
    return SECURE if set(words) == {"fully validated"} else INSECURE


@pytest.mark.parametrize("fresh", [False, True], ids=["cached", "fresh"])
async def test_we_find_what_is_so(root: Hierarchy, fresh: bool) -> None:
    async with resolver(root) as ours:
        found = {(name, kind): await status(ours, name, kind, fresh=fresh) for name, kind, _ in TABLE}
    assert found == {(name, kind): expected for name, kind, expected in TABLE}


def test_and_delv_agrees_on_every_name(root: Hierarchy) -> None:
    assert {(name, kind): delv(root, name, kind) for name, kind, _ in TABLE} == {
        (name, kind): expected for name, kind, expected in TABLE
    }


async def test_why_it_is_bogus_is_said(root: Hierarchy) -> None:
    async with resolver(root) as ours:
        failed = await ask(ours, "expired.test", "MX")
    assert isinstance(failed, LookupFailed)
    assert "signature expired" in failed.detail


async def test_a_split_horizon_is_insecure_where_it_is_named_and_internal_names_are_so_by_default(
    root: Hierarchy,
) -> None:
    async with resolver(root) as ours:
        assert await status(ours, "internal", "MX") == INSECURE
    async with resolver(root, insecure=["corp.test"]) as ours:
        assert await status(ours, "corp.test", "MX") == INSECURE
        assert await status(ours, "mx.corp.test", "A") == INSECURE
        assert await status(ours, "ecdsa.test", "MX") == SECURE
        assert await status(ours, "internal", "MX") == BOGUS


# Servers that lie -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", [None, "127.0.0.11"], ids=["a forwarder", "Docker's DNS"])
async def test_a_forwarder_that_lies_about_ad_changes_nothing(root: Hierarchy, address: str | None) -> None:
    with start_liar(root.forwarder, with_ad, address=address) as liar:
        async with resolver(root, liar.address, validate="auto" if address else "yes") as ours:
            found = {(name, kind): await status(ours, name, kind) for name, kind, _ in TABLE}
        assert found == {(name, kind): expected for name, kind, expected in TABLE}
        assert liar.asked


async def test_without_validation_a_fake_docker_dns_is_not_believed(root: Hierarchy) -> None:
    with start_liar(root.forwarder, with_ad, address="127.0.0.11"):
        async with resolver(root, "127.0.0.11", validate="no") as ours:
            assert await status(ours, "ecdsa.test", "MX") == INSECURE
            assert "127.0.0.11:53 is Docker's DNS" in ours.dnssec_off


@pytest.mark.parametrize(
    ("change", "name", "expected"),
    [
        (forged, "mx.ecdsa.test", BOGUS),
        (forged, "mx.unsigned.test", INSECURE),  # as it is in an unsigned zone: anybody may say so
        (stripped, "mx.ecdsa.test", BOGUS),
        (stripped, "nobody.ecdsa.test", BOGUS),
        (stripped, "mx.nods.test", BOGUS),  # the proof that there is no DS is gone
        (silent, "mx.ecdsa.test", "time-out"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
async def test_a_server_that_turns_bad_later_turns_nothing_off(
    root: Hierarchy, change: Change, name: str, expected: str
) -> None:
    events: list[Event] = []
    with start_liar(root.forwarder, honest) as liar:
        async with resolver(
            root, liar.address, events, validate="yes", timeout=1 if change is silent else 30, attempts=3
        ) as ours:
            while (found := await status(ours, "rsa.test", "MX")) == "time-out":
                pass  # a busy machine
            assert found == SECURE
            liar.change = change
            assert await status(ours, name, "A") in (expected, "time-out")
            assert ours.validates
            liar.change = honest
    assert SecurityUnavailable not in map(type, events)


@pytest.mark.parametrize("validate", ["yes", "auto"])
async def test_signatures_that_are_stripped_from_the_start(root: Hierarchy, validate: str) -> None:
    events: list[Event] = []
    with start_liar(root.forwarder, stripped, address="127.0.0.11") as liar:
        async with resolver(root, liar.address, events, validate=validate) as ours:
            found = await status(ours, "mx.ecdsa.test", "A")
            assert isinstance(ours, CachingResolver)
            assert ours.validated_by == ""
    assert DNSServerUnfit in map(type, events)
    if validate == "yes":
        assert found == "no resolver answers"
        assert DNSSECValidationFails in map(type, events)
    else:
        assert found == INSECURE
        assert SecurityUnavailable in map(type, events)


@pytest.mark.parametrize("validate", ["yes", "auto"])
async def test_a_root_whose_keys_we_do_not_have_fails_and_is_never_taken_for_no_dnssec(
    root: Hierarchy, validate: str
) -> None:
    events: list[Event] = []
    with start_liar(root.forwarder, honest, address="127.0.0.11") as liar:
        async with resolver(root, liar.address, events, validate=validate, trust_anchor=[]) as ours:
            failed = await ask(ours, "ecdsa.test", "MX")
    assert isinstance(failed, LookupFailed)
    assert "its keys of the root fit no trust anchor" in failed.detail
    assert SecurityUnavailable not in map(type, events)


async def test_of_two_servers_the_one_that_strips_is_dropped(root: Hierarchy) -> None:
    events: list[Event] = []
    with start_liar(root.forwarder, stripped) as liar:
        async with resolver(root, f"{liar.address} {root.forwarder}", events) as ours:
            assert {await status(ours, name, kind) for name, kind, wanted in TABLE if wanted == SECURE} == {SECURE}
    works = next(event for event in events if isinstance(event, DNSSECValidationWorks))
    assert works.servers == f"{root.forwarder}:53"


async def test_a_validating_forwarder_does_no_harm() -> None:
    with start_hierarchy(ZONES, validates=True) as root:
        async with resolver(root) as ours:
            assert await status(ours, "ecdsa.test", "MX") == SECURE
            assert await status(ours, "expired.test", "MX") == BOGUS


# Other ways to ask ----------------------------------------------------------------------------------------------------


async def test_debian_s_library_cannot_ask_over_tls_and_says_so(root: Hierarchy, authority: Authority) -> None:
    server = f"tls://{root.forwarder}#dns.example.net"
    with pytest.raises(ConfigError, match=r"cannot ask over TLS .*: Debian's is built without it"):
        async with resolver(root, server, tls_roots=str(authority.root)):
            pass
    with pytest.raises(ConfigError, match="no file with the system's trusted certificates"):
        async with resolver(root, server):
            pass


def test_recursion_from_the_root() -> None:
    """In a network of its own, where the addresses of the root's servers are ours."""
    command = ["unshare", "-n", sys.executable, "-m", "tests.peers.recursion"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=200, check=False, cwd=Path(__file__).parents[2]
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"ecdsa.test": SECURE, "unsigned.test": INSECURE, "expired.test": BOGUS}


async def test_check_says_who_validates(root: Hierarchy, tmp_path: Path) -> None:
    file = tmp_path / "mailrider.conf"
    dns = f"dns {{\n server {root.forwarder}\n validate yes\n trust_anchor {root.anchor}\n}}\n"
    file.write_text(f"hostname client.test\nstate_dir {tmp_path}\n{dns}")
    ran = await run("-c", file, "check")
    assert "it validates: iana.org is authentic, dnssec-failed.org is refused; validated here by libunbound" in ran.out
    assert f"from what {root.forwarder}:53 says" in ran.out


async def test_a_zone_that_makes_validators_work_is_bounded(root: Hierarchy) -> None:
    async with resolver(root) as ours:
        assert await status(ours, "ecdsa.test", "MX") == SECURE
        before = time.process_time()  # of all threads, the library's own included
        assert await status(ours, keytrap.NAME, "MX") == BOGUS
        assert time.process_time() - before < MAX_KEYTRAP
        assert await status(ours, f"mx.{keytrap.NAME}", "A") == SECURE


# In the whole of mailrider --------------------------------------------------------------------------------------------


def mail_zones(postfix: Postfix, certificate: Certificate) -> list[SignedZone]:
    """example.net with DANE, and the same with a wrong signature below bogus.example.net."""
    leaf, end, _ = certificate.chain.read_text().partition("-----END CERTIFICATE-----\n")
    tlsa = f"TLSA 3 1 1 {describe_chain([ssl.PEM_cert_to_DER_cert(leaf + end)])[0].spki_sha256}"
    records = {"@": ["MX 10 mx"], "mx": [f"A {postfix.address}"], f"_{postfix.port}._tcp.mx": [tlsa]}
    bogus = SignedZone("bogus.example.net", records, altered=(r"(?m)\tMX\t10 mx", "\tMX\t11 mx"))
    return [*ZONES, SignedZone("net"), SignedZone("example.net", records), bogus]


async def test_mail_is_delivered_with_dane_and_what_is_bogus_waits(
    postfix: Postfix, certificate: Certificate, recipient: str
) -> None:
    with start_hierarchy(mail_zones(postfix, certificate)) as root:
        remote = mailrider.Remote(
            hostname="client.test",
            port=postfix.port,
            prohibited_addresses="none",
            dns=mailrider.DNSSettings(server=[root.forwarder], validate="yes", trust_anchor=[root.anchor]),
            mx_auth=[mailrider.Dane(), mailrider.DNSSEC()],
        )
        message = b"Subject: x\r\n\r\nIt travels.\r\n"
        async with remote:
            recipients = [recipient, "x@bogus.example.net"]
            delivered, waits = await remote.send(message, sender="a@client.test", recipients=recipients)
    assert delivered.status is mailrider.Status.DELIVERED, delivered.reply
    assert delivered.security.mx_level is mailrider.MXLevel.DNSSEC
    assert (delivered.security.tls_level, delivered.security.authenticated_by) == (
        mailrider.TLSLevel.AUTHENTICATED,
        "dane",
    )
    assert waits.status is mailrider.Status.DEFERRED
    assert "DNSSEC bogus (validation failure" in waits.reply.text
    assert root.forwarder not in waits.reply.text


async def test_a_reload_opens_another_context_and_turns_nothing_off(root: Hierarchy, tmp_path: Path) -> None:
    with start_liar(root.forwarder, honest, address="127.0.0.11") as liar:
        file = tmp_path / "mailrider.conf"
        dns = f"dns {{\n server {liar.address}\n validate auto\n timeout 10s\n trust_anchor {root.anchor}\n}}\n"
        file.write_text(f"hostname client.test\nstate_dir {tmp_path}\nruntime_dir {tmp_path}\n{dns}{QUEUE}")
        async with running_daemon(file) as daemon:
            while not any("dnssec_validation_works" in line for line in daemon.lines):
                await daemon.line("")
            for change in (honest, stripped):
                liar.change = change
                before = len(daemon.lines)
                daemon.process.send_signal(signal.SIGHUP)
                for word in ("reloaded", "dnssec_validation_works"):  # in either order
                    while not any(word in line for line in daemon.lines[before:]):
                        await daemon.line("")
            assert await daemon.stop() == 0
    assert not [line for line in daemon.lines if "dnssec_and_dane_off" in line]


# Its life -------------------------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_killed_and_started_again_a_hundred_times_it_leaves_nothing_behind(root: Hierarchy) -> None:
    program = Path(__file__).with_name("lookups.py")
    before = _files_of_the_library()
    for _ in range(100):
        process = await asyncio.create_subprocess_exec(
            sys.executable, program, root.forwarder, str(root.anchor), stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        assert await process.stdout.readline() == b"secure\n"
        process.kill()
        await process.wait()
    assert _files_of_the_library() <= before
    command = f"{program} {root.forwarder}"
    assert not [line for line in _command_lines() if command in line]


def _files_of_the_library() -> set[Path]:
    """Those that others have there, and may take away at any time, have other names."""
    return {*Path("/dev/shm").glob("*unbound*"), *Path("/tmp").glob("*unbound*")}


def _command_lines() -> Iterator[str]:
    """Of all processes; any of them may end meanwhile."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(FileNotFoundError, ProcessLookupError):
            yield path.read_bytes().replace(b"\0", b" ").decode(errors="replace")


def test_a_forked_child_leaves_the_library_alone(root: Hierarchy) -> None:
    program = Path(__file__).with_name("lookups.py")
    command = [sys.executable, str(program), root.forwarder, str(root.anchor), "fork"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (
        0,
        "secure\nthe child hears: the validator is closed\nsecure\n",
        "",
    )
