"""`mailrider check` against the lab's resolver."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from mailrider.errors import ConfigError
from mailrider.lab.zones import Fault, ZoneTable, signed
from mailrider.model.event import discard
from mailrider.signing.keys import examine_key
from mailrider.signing.open import open_signers
from mailrider.signing.settings import DKIMOptions, DKIMSettings
from tests.flow.delivery.internet import internet
from tests.support.certificates import rsa_key
from tests.support.commands import Ran, run

if TYPE_CHECKING:
    from collections.abc import Callable

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


async def test_a_configuration_that_is_right(tmp_path: Path) -> None:
    ran = await check(tmp_path, "--local")
    first, *others = ran.out.splitlines()
    assert first == f"ok       configuration: {tmp_path}/mailrider.conf is right"
    assert [each.split(":")[0] for each in others if not each.startswith(" ")] == ["note     TLS reports"]
    assert (ran.code, ran.err) == (0, "")


async def test_a_resolver_that_validates(tmp_path: Path) -> None:
    ran = await check(tmp_path, more="")
    assert ran.out.splitlines()[1] == "ok       resolver: it validates: good.test is authentic, bad.test is refused"
    assert (ran.code, ran.err) == (0, "")


async def test_warnings_are_no_failure_and_come_with_a_cure(tmp_path: Path) -> None:
    ran = await check(tmp_path, signed_name="plain.test", more="target.remote { }\n")
    assert "warning  resolver: plain.test is signed, but came without AD" in ran.out
    assert "warning  target.remote remote: without mx_auth nothing is enforced" in ran.out
    assert (
        "         mx_auth { mtasts  dane  dnssec  local_policy }, each on a line of its own, or mx_auth off" in ran.out
    )


async def test_programs_get_an_object_a_finding_and_nothing_else(tmp_path: Path) -> None:
    ran = await check(tmp_path, "--json", more="")
    assert [(each["level"], each["subject"]) for each in ran.objects] == [
        ("ok", "configuration"),
        ("ok", "resolver"),
        ("note", "domains"),
    ]
    assert {frozenset(each) for each in ran.objects} == {frozenset(("level", "subject", "text", "cure"))}


@pytest.mark.parametrize(("validate", "known"), [("auto", False), ("yes", False), ("no", True)])
async def test_local_checks_do_not_say_what_only_a_question_could_tell(
    tmp_path: Path, validate: str, known: bool
) -> None:
    file = tmp_path / "mailrider.conf"
    dns = f"dns {{\nserver 198.51.100.1\nvalidate {validate}\ntimeout 50ms\nattempts 1\n}}"
    file.write_text(f"hostname client.test\nstate_dir {tmp_path}\n{dns}\n{STRONG}")
    ran = await run("-c", file, "check", "--local")
    assert ("the resolver cannot support them" in ran.out) == known


async def test_a_resolver_that_is_not_on_loopback_turns_dnssec_off_and_is_not_even_asked(tmp_path: Path) -> None:
    file = tmp_path / "mailrider.conf"
    file.write_text(
        f"hostname client.test\nstate_dir {tmp_path}\n"
        f"dns {{\nserver 198.51.100.1\ntimeout 50ms\nattempts 1\n}}\n{STRONG}"
    )
    ran = await run("-c", file, "check")
    assert "DNSSEC and DANE are off" in ran.out
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
        tls_client { root_ca /nowhere/other.pem }
    }
}
target.smtp s {
    host tls://smtp.test:465
    tls_client { root_ca /nowhere/third.pem }
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
    expected = [
        (5, "/nowhere/root.pem"),
        (8, "/nowhere/other.pem"),
        (13, "/nowhere/third.pem"),
        (18, "/nowhere/cert.pem"),
        (18, "/nowhere/key.pem"),
        (20, "cannot read the password file"),
    ]
    assert [int(line.split("mailrider.conf:")[1].split(":")[0]) for line in told] == [line for line, _ in expected]
    assert all(words in line for (_, words), line in zip(expected, told, strict=True))


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


# --- Keys of DKIM -------------------------------------------------------------------------------

_QUEUE = "target.queue q {{\n target remote {{ }}\n}}"
PLACES = {
    "an endpoint": "smtp tcp://127.0.0.1:2525 {{\n modify {{\n  {dkim}\n }}\n reject\n}}",
    "a destination": "smtp tcp://127.0.0.1:2525 {{\n destination a.test {{\n  deliver_to &q\n  modify {{\n   {dkim}\n"
    "  }}\n }}\n default_destination {{\n  reject\n }}\n}}\n" + _QUEUE,
    "a source": "smtp tcp://127.0.0.1:2525 {{\n source a.test {{\n  modify {{\n   {dkim}\n  }}\n"
    "  destination a.test {{\n   deliver_to &q\n  }}\n  default_destination {{\n   reject\n  }}\n }}\n"
    " default_source {{\n  reject\n }}\n}}\n" + _QUEUE,
    "a queue": "target.queue q {{\n target remote {{ }}\n bounce {{\n  modify {{\n   {dkim}\n  }}\n }}\n}}",
    "a bounce's destination": "target.queue q {{\n target remote {{ }}\n bounce {{\n  default_destination {{\n"
    "   deliver_to &q\n   modify {{\n    {dkim}\n   }}\n  }}\n }}\n}}",
}


def _key(path: Path, octets: bytes, mode: int = 0o600) -> None:
    path.write_bytes(octets)
    path.chmod(mode)


def _pem(key: Any, password: bytes | None = None) -> bytes:
    encryption = NoEncryption() if password is None else BestAvailableEncryption(password)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)  # type: ignore[no-any-return] # of any kind


def _good() -> bytes:
    return _pem(ed25519.Ed25519PrivateKey.generate())


def _below_a_file(path: Path) -> None:
    path.parent.rmdir()
    path.parent.touch()


def _below_a_dangling_link(path: Path) -> None:
    path.parent.rmdir()
    path.parent.symlink_to("gone")


BAD_KEYS: dict[str, tuple[Callable[[Path], object], str]] = {
    "garbage": (lambda path: _key(path, b"precious\n"), "cannot be used: not an unencrypted private key in PEM"),
    "empty": (lambda path: _key(path, b""), "cannot be used: not an unencrypted private key in PEM"),
    "another algorithm": (
        lambda path: _key(path, _pem(ec.generate_private_key(ec.SECP256R1()))),
        "cannot be used: neither an RSA nor an Ed25519 key",
    ),
    "encrypted": (
        lambda path: _key(path, _pem(ed25519.Ed25519PrivateKey.generate(), b"secret")),
        "cannot be used: not an unencrypted private key in PEM",
    ),
    "a public key": (
        lambda path: _key(
            path,
            ed25519.Ed25519PrivateKey.generate()
            .public_key()
            .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        ),
        "cannot be used: not an unencrypted private key in PEM",
    ),
    "readable by others": (lambda path: _key(path, _good(), 0o644), "everybody can read the key"),
    "a folder": (Path.mkdir, "cannot be read: it is not a regular file"),
    "a dangling link": (lambda path: path.symlink_to("gone.key"), "is a link to gone.key, which does not exist"),
    "below a file": (_below_a_file, "is no folder"),
    "below a dangling link": (_below_a_dangling_link, "is no folder"),
}


@pytest.mark.parametrize("name", BAD_KEYS)
async def test_a_key_that_run_would_refuse_is_found_at_its_line(tmp_path: Path, name: str) -> None:
    damage, words = BAD_KEYS[name]
    (tmp_path / "keys").mkdir()
    _key(tmp_path / "good.key", _good())
    damage(tmp_path / "keys" / "bad.key")
    before = sorted(tmp_path.rglob("*"))
    block = PLACES["an endpoint"].format(
        dkim="dkim a.test s {\n key_path good.key\n}\ndkim b.test s {\n key_path keys/bad.key\n}"
    )
    ran = await check(tmp_path, more=block)
    lines = (tmp_path / "mailrider.conf").read_text().split("\n")
    line = next(number for number, line in enumerate(lines, 1) if "b.test" in line)
    assert ran.code == 78
    assert f"mailrider.conf:{line}:" in ran.err
    assert words in ran.err
    assert sorted(tmp_path.rglob("*")) == sorted([*before, tmp_path / "mailrider.conf"])
    with pytest.raises(ConfigError):  # as `run` does
        open_signers(
            DKIMSettings.of(["b.test"], "s", DKIMOptions(key_path=tmp_path / "keys" / "bad.key")), tmp_path, discard
        )


@pytest.mark.parametrize("place", PLACES)
async def test_keys_are_found_wherever_something_is_signed(tmp_path: Path, place: str) -> None:
    (tmp_path / "dkim_keys").mkdir()
    for domain in ("a.test", "b.test"):
        _key(tmp_path / "dkim_keys" / f"{domain}_s.key", b"garbage")
    ran = await check(tmp_path, more=PLACES[place].format(dkim="dkim a.test b.test s"))
    assert ran.code == 78
    assert "a.test_s.key cannot be used" in ran.err
    assert "b.test_s.key cannot be used" in ran.err


async def test_a_certificate_that_all_endpoints_share_is_told_once_if_it_cannot_be_read(tmp_path: Path) -> None:
    endpoints = "".join(f"submission unix://{tmp_path}/{name} {{ reject }}\n" for name in ("one", "two"))
    ran = await check(tmp_path, "--local", more=f"tls absent.pem absent.key\n{endpoints}")
    assert ran.code == 78
    assert (ran.err.count("absent.pem cannot be read"), ran.err.count("absent.key cannot be read")) == (1, 1)


async def test_a_folder_in_which_nothing_can_be_written_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)  # root may write everywhere
    with pytest.raises(ConfigError, match="nothing can be written in"):
        examine_key(tmp_path / "dkim_keys" / "a.key")


async def test_a_key_that_is_still_to_be_made_is_no_fault_and_is_not_made(tmp_path: Path) -> None:
    ran = await check(tmp_path, more=PLACES["an endpoint"].format(dkim="dkim a.test s"))
    assert ran.code == 0
    assert not (tmp_path / "dkim_keys").exists()


async def test_a_short_rsa_key_is_warned_of(tmp_path: Path) -> None:
    (tmp_path / "dkim_keys").mkdir()
    for selector, bits in (("short", 1024), ("long", 2048)):
        _key(tmp_path / "dkim_keys" / f"a.test_{selector}.key", _pem(rsa_key(bits)))
    ran = await check(
        tmp_path, "--local", more=PLACES["an endpoint"].format(dkim="dkim a.test short\n dkim a.test long")
    )
    assert ran.code == 0
    (warning,) = [line for line in ran.out.splitlines() if "dkim:" in line]
    assert warning.startswith("warning")
    assert "a.test_short.key is RSA with less than 2048 bits" in warning


async def test_files_that_others_can_use_are_named_with_a_cure(tmp_path: Path) -> None:
    more = STRONG.replace("target.remote {", "target.remote out {") + (
        "target.queue mail { target &out }\nsubmission tcp://127.0.0.1:0 {\n    auth users\n    deliver_to &mail\n}\n"
    )
    location, users = tmp_path / "mail", tmp_path / "users"
    location.mkdir(mode=0o700)
    (location / "queue.db").touch(mode=0o644)
    users.touch(mode=0o640)
    ran = await check(tmp_path, "--local", more=more)
    assert "others can use" not in ran.out  # a closed folder protects what is in it, and a group may read
    location.chmod(0o755)
    users.chmod(0o644)
    ran = await check(tmp_path, "--local", more=more)
    assert ran.code == 0
    for path, kind, right, cure in ((location, "folder", 755, 700), (users, "file", 644, 600)):
        assert f"others can use the {kind} {path}, which holds" in ran.out
        assert f"(its rights are {right})\n         chmod {cure} {path}" in ran.out
    assert f"others can use the file {location / 'queue.db'}, which holds mail" in ran.out
