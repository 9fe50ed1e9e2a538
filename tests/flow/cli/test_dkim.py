"""`mailrider dkim`: list, new, check, rotate; DNS is the lab's."""

from __future__ import annotations

import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from mailrider.lab.dns import LabDNS
from mailrider.model.domain import Domain
from mailrider.model.event import discard
from mailrider.signing.open import open_signers
from mailrider.signing.rotation import rotation_path, selector_in_use
from mailrider.signing.settings import DKIMSettings
from tests.support.commands import Ran, run
from tests.support.loopback import new_address

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

EXAMPLE = Domain("example.test")


class Site:
    """A configuration that signs for example.test, and a zone."""

    def __init__(self, folder: Path, dns: LabDNS) -> None:
        self.keys = folder / "state" / "dkim_keys"
        self.zones = dns.zones
        self.file = folder / "mailrider.conf"
        self.file.write_text(
            f"hostname mx.example.test\nstate_dir {folder}/state\n"
            f"dns {{\nserver {dns.server}\ntimeout 50s\nattempts 1\n}}\n"
            "target.remote outbound {\nmx_auth off\n}\n"
            "target.queue q {\ntarget &outbound\nexpire 5d\n"
            "modify {\ndkim example.test s1 {\nnewkey_algo ed25519\n}\n}\n}\n"
        )
        open_signers(DKIMSettings.of(["example.test"], "s1"), folder / "state", discard)

    async def dkim(self, *arguments: str) -> Ran:
        return await run("-c", self.file, "dkim", *arguments)

    def publish(self, line: str) -> None:
        """A line of a zone file, put into the zone."""
        name, _, rest = line.partition(". IN TXT ")
        self.zones[name] = {"TXT": "".join(re.findall(r'"([^"]*)"', rest))}

    def publish_file(self, selector: str) -> None:
        self.publish((self.keys / f"example.test_{selector}.dns").read_text())


@asynccontextmanager
async def site(folder: Path) -> AsyncIterator[Site]:
    async with LabDNS({"example.test": {"A": "192.0.2.1"}}, new_address()) as dns:
        yield Site(folder, dns)


def records(ran: Ran) -> list[str]:
    return [line for line in ran.out.splitlines() if " IN TXT " in line]


async def test_a_record_that_is_that_of_the_key_is_right_and_others_are_69_with_what_it_has_to_be(
    tmp_path: Path,
) -> None:
    async with site(tmp_path) as at:
        missing = await at.dkim("check", "example.test")
        assert (missing.code, "s1._domainkey.example.test: there is no such record" in missing.out) == (69, True)
        at.publish_file("s1")
        right = await at.dkim("check")
        assert (right.code, right.out) == (0, "s1._domainkey.example.test: the record is that of the key\n")
        at.publish('s1._domainkey.example.test. IN TXT "v=DKIM1; k=rsa; p=MTE="')
        wrong = await at.dkim("check", "example.test")
    assert (wrong.code, "is of another key" in wrong.out) == (69, True)
    assert (at.keys / "example.test_s1.dns").read_text().strip() in wrong.out


async def test_a_resolver_that_does_not_answer_is_75(tmp_path: Path) -> None:
    async with site(tmp_path) as at:
        text = at.file.read_text()
    at.file.write_text(re.sub(r"server .*", "server 127.0.0.1:9", text))
    ran = await at.dkim("check", "example.test")
    assert (ran.code, "lookup of s1._domainkey.example.test failed" in ran.out) == (75, True)


async def test_new_makes_a_key_of_each_kind_and_prints_a_zone_fragment(tmp_path: Path) -> None:
    async with site(tmp_path) as at:
        ran = await at.dkim("new", "other.test")
        rsa, ed25519 = records(ran)
        assert re.match(r"s\d{8}r\._domainkey\.other\.test\. IN TXT \( \"v=DKIM1; k=rsa; p=", rsa)
        assert re.match(r"s\d{8}e\._domainkey\.other\.test\. IN TXT \"v=DKIM1; k=ed25519; s=email:tlsrpt; p=", ed25519)
        assert all(line.startswith(";") for line in ran.out.splitlines() if " IN TXT " not in line)
        named = await at.dkim("new", "other.test", "mine", "--algorithm", "ed25519")
        again = await at.dkim("new", "other.test", "mine", "--algorithm", "rsa2048")
        assert records(named) == records(again), "a key that is there is never replaced"
        assert (await at.dkim("new", "other.test", "no selector")).code == 64
        listed = await at.dkim("list", "--json")
    assert {(each["domain"], each["selector"], each["state"]) for each in listed.objects} >= {
        ("example.test", "s1", "signs"),
        ("other.test", "mine", "the configuration does not use it"),
    }


async def test_a_rotation_publishes_waits_and_switches(tmp_path: Path) -> None:
    async with site(tmp_path) as at:
        begun = await at.dkim("rotate", "example.test", "--settle", "0")
        (record,) = records(begun)
        selector = record.partition(".")[0]
        assert (begun.code, "publish this record" in begun.out) == (75, True)
        assert selector_in_use(at.keys, EXAMPLE, "s1") == "s1", "a key without a record does not sign"
        waiting = await at.dkim("rotate", "example.test", "--settle", "0")
        assert (waiting.code, records(waiting)) == (75, [record]), "to begin again makes no other key"
        at.publish(record)
        seen = await at.dkim("rotate", "example.test", "--settle", "1h")
        assert (seen.code, f"the record of {selector} is in DNS" in seen.out) == (75, True)
        assert selector_in_use(at.keys, EXAMPLE, "s1") == "s1", "other servers of the zone may not have it yet"
        done = await at.dkim("rotate", "example.test", "--settle", "0")
        assert (done.code, f"{selector} signs for example.test in place of s1: reload" in done.out) == (0, True)
        (signer,) = open_signers(DKIMSettings.of(["example.test"], "s1"), tmp_path / "state", discard)
        assert signer.selector == selector
        assert (await at.dkim("check", "example.test")).out.startswith(
            f"{selector}._domainkey.example.test: the record is"
        )
        listed = await at.dkim("list", "example.test", "--json")
    states = {each["selector"]: each["state"] for each in listed.objects}
    assert states.keys() == {"s1", selector}
    assert states[selector] == "signs"
    assert f"{selector} signs in its place since " in states["s1"]


async def test_a_record_that_is_lost_again_begins_to_count_anew(tmp_path: Path) -> None:
    async with site(tmp_path) as at:
        (record,) = records(await at.dkim("rotate", "example.test"))
        at.publish(record)
        await at.dkim("rotate", "example.test")
        del at.zones[record.partition(". IN TXT")[0]]
        lost = await at.dkim("rotate", "example.test", "--settle", "0")
    assert (lost.code, "publish this record" in lost.out) == (75, True)
    assert selector_in_use(at.keys, EXAMPLE, "s1") == "s1"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"selector": "x"}', '{"selector": "x", "made": "2026-01-01"}'])
async def test_a_damaged_note_is_an_error_and_no_step_back_to_an_old_key(tmp_path: Path, text: str) -> None:
    async with site(tmp_path) as at:
        rotation_path(at.keys, EXAMPLE, "s1").write_text(text)
        ran = await at.dkim("list")
    assert (ran.code, "example.test_s1.next" in ran.err) == (78, True)


async def test_notes_that_lead_in_a_circle_are_an_error(tmp_path: Path) -> None:
    async with site(tmp_path) as at:
        note = '{"selector": "s1", "made": "2026-01-01T00:00:00+00:00", "signs": "2026-01-02T00:00:00+00:00"}'
        rotation_path(at.keys, EXAMPLE, "s1").write_text(note)
        ran = await at.dkim("check")
    assert (ran.code, "without end" in ran.err) == (78, True)


async def test_a_domain_that_the_configuration_does_not_sign_for_is_78(tmp_path: Path) -> None:
    async with site(tmp_path) as at:
        for command in ("check", "rotate"):
            ran = await at.dkim(command, "other.test")
            assert (ran.code, "signs nothing for other.test" in ran.err) == (78, True)


async def test_a_key_at_a_place_of_its_own_is_not_rotated(tmp_path: Path) -> None:
    async with site(tmp_path) as at:
        key = at.keys / "example.test_s1.key"
        at.file.write_text(at.file.read_text().replace("newkey_algo ed25519", f"key_path {key}"))
        ran = await at.dkim("rotate", "example.test")
    assert (ran.code, "name another selector and another key_path" in ran.err) == (78, True)
