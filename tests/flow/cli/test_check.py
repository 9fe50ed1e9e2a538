"""`mailrider check` against the lab's resolver (spec section 12)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mailrider.lab.zones import Fault, ZoneTable, signed
from tests.flow.delivery.internet import internet
from tests.support.commands import Ran, run

if TYPE_CHECKING:
    from pathlib import Path

ZONES: ZoneTable = {
    "good.test": signed({"MX": "10 mx.good.test"}),
    "bad.test": Fault.BOGUS,
    "plain.test": {"MX": "10 mx.plain.test"},
}
STRONG = """
target.remote {
    requiretls_override no
    mx_auth {
        mtasts {
            cache ram
        }
        dane
        dnssec
        local_policy
    }
}
"""


async def check(folder: Path, *arguments: str, more: str = STRONG, signed_name: str = "good.test") -> Ran:
    async with internet({}, ZONES) as net:
        file = folder / "mailrider.conf"
        file.write_text(f"hostname client.test\nstate_dir {folder}\ndns {{ server {net.dns.server} }}\n{more}")
        return await run("-c", file, "check", "--signed", signed_name, "--bogus", "bad.test", *arguments)


async def test_a_machine_that_is_fit_to_send(tmp_path: Path) -> None:
    ran = await check(tmp_path)
    assert ran.out.splitlines() == [
        f"ok       configuration: {tmp_path}/mailrider.conf is right",
        "ok       resolver: it validates: good.test is authentic, bad.test is refused",
    ]
    assert (ran.code, ran.err) == (0, "")


async def test_warnings_are_no_failure_and_come_with_a_cure(tmp_path: Path) -> None:
    ran = await check(tmp_path, signed_name="plain.test", more="target.remote { }\n")
    assert ran.code == 0
    assert "warning  resolver: plain.test is signed, but came without AD" in ran.out
    assert "warning  target.remote remote: without mx_auth nothing is enforced" in ran.out
    assert "         mx_auth { mtasts  dane  dnssec  local_policy }" in ran.out


async def test_programs_get_an_object_a_finding_and_nothing_else(tmp_path: Path) -> None:
    ran = await check(tmp_path, "--json")
    assert [(each["level"], each["subject"]) for each in ran.objects] == [("ok", "configuration"), ("ok", "resolver")]
    assert {frozenset(each) for each in ran.objects} == {frozenset(("level", "subject", "text", "cure"))}


async def test_a_resolver_that_is_not_on_loopback_turns_dnssec_off_and_is_not_even_asked(tmp_path: Path) -> None:
    file = tmp_path / "mailrider.conf"
    file.write_text(f"hostname client.test\nstate_dir {tmp_path}\ndns {{ server 198.51.100.1 }}\n{STRONG}")
    ran = await run("-c", file, "check")
    assert (ran.code, "DNSSEC and DANE are off" in ran.out) == (0, True)
    assert "dane and dnssec are listed, but the resolver cannot support them" in ran.out


async def test_a_wrong_configuration_is_78_with_every_error_at_its_place(tmp_path: Path) -> None:
    ran = await check(tmp_path, "--json", more="target.remote { prot 25 }\nhostnme x\n")
    assert (ran.code, ran.out) == (78, "")
    assert "mailrider.conf:4:" in ran.err
    assert "mailrider.conf:5:" in ran.err


async def test_what_only_loading_shows_is_78_too(tmp_path: Path) -> None:
    ran = await check(tmp_path, more="tls_client { ciphers NO-SUCH-CIPHER }\ntarget.remote { }\n")
    assert (ran.code, "NO-SUCH-CIPHER" in ran.err) == (78, True)


BROKEN = """
target.remote {
    tls_client { root_ca /nowhere/root.pem }
}
target.queue q {
    target remote {
        tls_client { ciphers NO-SUCH-CIPHER }
    }
}
target.smtp s {
    host tls://smtp.test:465
    tls_client { ciphers NONE-EITHER }
}
smtp tcp://127.0.0.1:2525 {
    tls /nowhere/cert.pem /nowhere/key.pem
}
submission tcp://127.0.0.1:2587 {
    auth missing
    deliver_to &q
}
"""


async def test_everything_that_only_loading_shows_is_told_with_the_place_of_its_block(tmp_path: Path) -> None:
    ran = await check(tmp_path, more=BROKEN)
    assert (ran.code, ran.out) == (78, "")
    told = [line for line in ran.err.splitlines() if "mailrider.conf:" in line]
    expected = {
        5: "/nowhere/root.pem",
        8: "NO-SUCH-CIPHER",
        13: "NONE-EITHER",
        17: "/nowhere/cert.pem",
        20: "cannot read the password file",
    }
    assert [int(line.split("mailrider.conf:")[1].split(":")[0]) for line in told] == list(expected)
    assert all(words in line for words, line in zip(expected.values(), told, strict=True))


async def test_servers_beside_one_on_loopback_are_not_asked_and_that_is_told(tmp_path: Path) -> None:
    async with internet({}, ZONES) as net:
        file = tmp_path / "mailrider.conf"
        server = net.dns.server
        file.write_text(f"hostname client.test\nstate_dir {tmp_path}\ndns {{ server {server} 192.0.2.53 }}\n{STRONG}")
        ran = await run("-c", file, "check", "--signed", "good.test", "--bogus", "bad.test")
    assert f"ok       resolver: only {server} is asked; 192.0.2.53:53 is not" in ran.out
    assert "it validates: good.test is authentic" in ran.out


async def test_a_name_that_is_none_is_a_mistake_of_usage(tmp_path: Path) -> None:
    ran = await check(tmp_path, signed_name="a..b")
    assert (ran.code, ran.out) == (64, "")
