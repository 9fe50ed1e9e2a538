"""`mailrider setup`: a configuration that loads, keys, a zone fragment that a DNS server takes, and the service."""

from __future__ import annotations

import pwd
import re
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import dns.zone
import pytest

from mailrider.app.setup.service import USER, ServiceInstaller, adapted_units, hidden, run_command
from mailrider.cli import set_up
from mailrider.config import load
from mailrider.delivery.settings import RemoteSettings
from mailrider.errors import LocalError
from mailrider.lab.dns import LabDNS
from tests.support.commands import Ran, run
from tests.support.loopback import new_address

if TYPE_CHECKING:
    from collections.abc import Sequence

ADDRESSES = ("--address", "192.0.2.25", "--address", "2001:db8::25")


async def setup(folder: Path, *arguments: str) -> Ran:
    """State stays in the folder too: what is written says nothing of it."""
    return await run("-c", folder / "etc" / "mailrider.conf", "setup", "example.org", *arguments)


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailrider.config.loader.default_state_dir", lambda *, system=False: tmp_path / "state")
    monkeypatch.setattr("mailrider.cli.set_up.default_runtime_dir", lambda: tmp_path / "run")


async def test_the_configuration_loads_and_is_safe(tmp_path: Path) -> None:
    ran = await setup(tmp_path, "--hostname", "mx.example.org", *ADDRESSES)
    assert ran.code == 0
    configuration = load(tmp_path / "etc" / "mailrider.conf")
    settings = configuration.target("outbound").settings
    assert isinstance(settings, RemoteSettings)
    assert [type(each).__name__ for each in settings.mx_auth.policies] == ["MTASTS", "Dane", "DNSSEC"]
    assert str(configuration.globals.origin) == "example.org"
    assert stat.S_IMODE((tmp_path / "etc" / "mailrider.conf").stat().st_mode) == 0o644


async def test_keys_of_both_kinds_are_made_for_nobody_else_to_read(tmp_path: Path) -> None:
    await setup(tmp_path, "--hostname", "mx.example.org", *ADDRESSES)
    keys = sorted((tmp_path / "state" / "dkim_keys").glob("*.key"))
    assert [bool(re.fullmatch(r"example\.org_s\d{6}[er]\.key", each.name)) for each in keys] == [True, True]
    assert {stat.S_IMODE(each.stat().st_mode) for each in keys} == {0o600}
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700


async def test_standard_output_is_a_zone_fragment(tmp_path: Path) -> None:
    ran = await setup(tmp_path, "--hostname", "mx.example.org", *ADDRESSES)
    head = "@ 3600 IN SOA ns.example.org. postmaster.example.org. 1 3600 600 86400 300\n@ 3600 IN NS ns.example.net.\n"
    zone = dns.zone.from_text(f"$TTL 300\n{head}{ran.out}", origin="example.org.", relativize=False)
    texts = {
        f"{name}".removesuffix("."): b"".join(getattr(rdata, "strings", ())).decode()
        for name, _, rdata in zone.iterate_rdatas("TXT")
    }
    assert texts["example.org"] == "v=spf1 ip4:192.0.2.25 ip6:2001:db8::25 -all"
    assert texts["mx.example.org"] == "v=spf1 a -all"
    assert texts["_dmarc.example.org"].startswith("v=DMARC1; p=quarantine; rua=mailto:")
    assert texts["_smtp._tls.example.org"] == "v=TLSRPTv1; rua=mailto:postmaster@example.org"
    kinds = sorted(text.split(";")[1].strip() for name, text in texts.items() if "_domainkey" in name)
    assert kinds == ["k=ed25519", "k=rsa"]
    # The RSA key is for all services, since not everybody knows a list of them; the other names TLS reports.
    named = [text.split(";")[1].strip() for text in texts.values() if "; s=email:tlsrpt; p=" in text]
    assert named == ["k=ed25519"]
    assert "; 25.2.0.192.in-addr.arpa. IN PTR mx.example.org." in ran.out
    assert f"{zone.find_rdataset('mx.example.org.', 'A')[0]}" == "192.0.2.25"


async def test_the_commands_that_come_next_name_the_configuration_where_it_is_not_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "with space"
    folder.mkdir()
    monkeypatch.chdir(folder)
    elsewhere = await run("-c", folder / "other.conf", "setup", "example.org", *ADDRESSES)
    command = f"mailrider -c '{folder}/other.conf'"
    assert elsewhere.err.endswith(f"then: {command} check example.org; {command} run\n")
    here = await run("-c", "mailrider.conf", "setup", "example.org", *ADDRESSES)
    assert here.err.endswith("then: mailrider check example.org; mailrider run\n")


async def test_to_repeat_it_changes_nothing(tmp_path: Path) -> None:
    first = await setup(tmp_path, "--hostname", "mx.example.org", *ADDRESSES)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    second = await setup(tmp_path, "--hostname", "other.example.org", *ADDRESSES)
    assert second.out == first.out, "what is there decides: the host name is that of the configuration"
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert "is there, and is left as it is" in second.err


async def test_a_configuration_that_does_not_sign_is_left_and_it_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    file = tmp_path / "etc" / "mailrider.conf"
    file.write_text(f"hostname mx.example.org\nstate_dir {tmp_path}/state\ntarget.remote {{\nmx_auth off\n}}\n")
    ran = await setup(tmp_path, *ADDRESSES)
    assert (ran.code, "signs nothing for example.org: mailrider dkim new example.org" in ran.err) == (0, True)
    assert "_domainkey" not in ran.out
    assert "The keys that sign" not in ran.out, "a heading with nothing below it"


async def test_check_is_content_with_what_setup_prints(tmp_path: Path) -> None:
    address = new_address()
    ran = await setup(tmp_path, "--hostname", "mx.example.org", "--address", address)
    zones: dict[str, dict[str, str]] = {}
    for line in (line.removeprefix("; ") for line in ran.out.splitlines()):
        if match := re.fullmatch(r"(\S+)\. IN (A|TXT|PTR) (.*)", line):
            text = "".join(re.findall(r'"([^"]*)"', match[3])) if match[2] == "TXT" else match[3]
            zones.setdefault(match[1], {})[match[2]] = text
    async with LabDNS(dict(zones), new_address()) as lab:
        file = tmp_path / "etc" / "mailrider.conf"
        text = file.read_text().replace(
            "target.remote outbound {", f"target.remote outbound {{\n    local_ip {address}"
        )
        file.write_text(text.replace("dns {", f"dns {{\n    server {lab.server}"))
        found = (await run("-c", file, "check", "example.org", "--json", "--against", "nobody.test")).objects
    about = {each["subject"]: each["level"] for each in found if each["subject"].endswith("of example.org")}
    assert about == {"SPF of example.org": "ok", "DKIM of example.org": "ok", "DMARC of example.org": "ok"}
    assert f"{address} is mx.example.org, by PTR and back" in [each["text"] for each in found]


async def test_addresses_that_are_none_and_a_service_without_root_are_mistakes_of_usage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await setup(tmp_path, "--address", "mx.example.org")).code == 64
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    refused = await setup(tmp_path, "--service")
    assert (refused.code, "--service needs root" in refused.err) == (64, True)
    assert list(tmp_path.iterdir()) == []


# The service ----------------------------------------------------------------------------------------------------------

PROGRAM = Path("/opt/mailrider/bin/mailrider")
CONFIGURATION = Path("/etc/mailrider/mailrider.conf")


class System:
    """A machine below a folder, and the commands that were run on it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.commands: list[list[str]] = []
        self.service = ServiceInstaller(self.run, root)

    def run(self, command: Sequence[str]) -> None:
        self.commands.append(list(command))


@pytest.fixture
def system(tmp_path: Path) -> System:
    return System(tmp_path / "root")


def test_the_units_are_those_that_are_shipped_for_this_installation(system: System) -> None:
    units = adapted_units(PROGRAM, CONFIGURATION, ["127.0.0.1:587"])
    assert "ExecStart=/opt/mailrider/bin/mailrider -c /etc/mailrider/mailrider.conf run\n" in units["mailrider.service"]
    assert re.findall("^ListenStream=.*$", units["mailrider.socket"], re.MULTILINE) == ["ListenStream=127.0.0.1:587"]
    assert list(adapted_units(PROGRAM, CONFIGURATION, [])) == ["mailrider.service"]
    alone = adapted_units(PROGRAM, CONFIGURATION, [])["mailrider.service"]
    assert not re.findall("^(?:Wants|After)=.*socket", alone, re.MULTILINE)
    folder = system.root / "etc/systemd/system"
    assert list(system.service.write_units(units)) == [f"wrote {folder}/{name}" for name in units]
    assert list(system.service.write_units(units)) == [f"{folder}/{name} is there" for name in units]
    (folder / "mailrider.service").write_text("# mine\n")
    assert "is left as it is" in next(system.service.write_units(units))
    assert (folder / "mailrider.service").read_text() == "# mine\n"


def test_sendmail_is_that_of_the_installation_though_the_command_is_a_link(tmp_path: Path) -> None:
    installed, called = tmp_path / "opt", tmp_path / "bin"
    for folder in (installed, called):
        folder.mkdir()
    for name in ("mailrider", "mailrider-sendmail"):
        (installed / name).touch()
    (called / "mailrider").symlink_to(installed / "mailrider")
    assert set_up.beside(called / "mailrider", "mailrider-sendmail") == installed / "mailrider-sendmail"
    (called / "mailrider-sendmail").symlink_to(installed / "mailrider-sendmail")
    assert set_up.beside(called / "mailrider", "mailrider-sendmail") == called / "mailrider-sendmail"


def test_sendmail_is_linked_unless_it_belongs_to_another_mail_system(system: System) -> None:
    program = PROGRAM.with_name("mailrider-sendmail")
    link = system.root / "usr/sbin/sendmail"
    assert list(system.service.link_sendmail(program)) == [f"linked {link} to {program}"]
    assert list(system.service.link_sendmail(program)) == [f"{link} is there"]
    link.unlink()
    link.write_text("postfix")
    assert "belongs to another mail system" in next(system.service.link_sendmail(program))
    assert link.read_text() == "postfix"


def test_the_user_is_made_once(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system.service, "has_user", lambda: False)
    assert list(system.service.make_user(Path("/var/lib/mailrider"))) == [f"made the user {USER}"]
    assert system.commands[0][:2] == ["useradd", "--system"]
    monkeypatch.setattr(system.service, "has_user", lambda: True)
    assert list(system.service.make_user(Path("/var/lib/mailrider"))) == [f"the user {USER} is there"]
    assert len(system.commands) == 1


def test_the_service_is_started_where_systemd_runs_and_only_enabled_elsewhere(system: System) -> None:
    assert "is not started" in next(system.service.start(["mailrider.service"]))
    assert system.commands == [["systemctl", "enable", "mailrider.service"]]
    (system.root / "run/systemd/system").mkdir(parents=True)
    assert list(system.service.start(["mailrider.service"])) == ["the service is enabled, and runs"]
    assert system.commands[-2:] == [
        ["systemctl", "daemon-reload"],
        ["systemctl", "enable", "--now", "mailrider.service"],
    ]


def test_a_command_that_fails_is_told_in_its_own_words() -> None:
    with pytest.raises(LocalError, match="no such file"):
        run_command(["sh", "-c", "echo no such file >&2; exit 3"])
    with pytest.raises(LocalError, match="cannot be run"):
        run_command(["/nowhere/at/all"])
    run_command(["true"])


def test_a_program_that_the_service_cannot_see_is_refused() -> None:
    assert "/opt/mailrider" in hidden(Path("/root/venv/bin/mailrider"))
    assert hidden(PROGRAM) == ""


async def test_setup_installs_the_service_in_one_go(
    tmp_path: Path, system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("os.chown", lambda *_, **__: None)
    monkeypatch.setattr(set_up, "ServiceInstaller", lambda: system.service)
    monkeypatch.setattr(set_up, "hidden", lambda _: "")
    monkeypatch.setattr(system.service, "has_user", lambda: False)
    ran = await setup(tmp_path, "--hostname", "mx.example.org", "--service", *ADDRESSES)
    assert ran.code == 0, ran.err
    assert [command[0] for command in system.commands] == ["useradd", "chown", "systemctl"]
    unit = (system.root / "etc/systemd/system/mailrider.service").read_text()
    assert f" -c {tmp_path}/etc/mailrider.conf run\n" in unit
    assert "ListenStream=127.0.0.1:587\n" in (system.root / "etc/systemd/system/mailrider.socket").read_text()
    assert (system.root / "usr/sbin/sendmail").is_symlink()


async def test_what_its_user_cannot_read_is_told_and_the_service_not_started(
    tmp_path: Path, system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("os.chown", lambda *_, **__: None)
    monkeypatch.setattr(set_up, "ServiceInstaller", lambda: system.service)
    monkeypatch.setattr(set_up, "hidden", lambda _: "")
    monkeypatch.setattr(system.service, "has_user", lambda: True)
    monkeypatch.setattr(set_up, "pwd", SimpleNamespace(getpwnam=lambda _: pwd.getpwnam("nobody")))
    monkeypatch.setattr("mailrider.app.check.local.may_read", lambda path, *_: path.name != "smtp_password")
    (system.root / "run/systemd/system").mkdir(parents=True)
    (tmp_path / "etc").mkdir()
    password = tmp_path / "etc" / "smtp_password"
    password.write_text("hunter2\n")
    password.chmod(0o600)
    (tmp_path / "etc" / "mailrider.conf").write_text(
        f"hostname mx.example.org\nstate_dir {tmp_path}/state\n"
        "target.smtp company {\nhost tls://mail.example.org:465\nauth plain web1 {file:smtp_password}\n}\n"
        f"submission unix://{tmp_path}/sock {{\ndeliver_to &company\n}}\n"
    )
    ran = await setup(tmp_path, "--service", *ADDRESSES)
    assert ran.code == 0, ran.err
    assert f"{password} cannot be read by nobody, as whom the daemon runs: chgrp nobody {password}" in ran.err
    assert "once that is mended: systemctl start mailrider.service" in ran.err
    assert system.commands[-1] == ["systemctl", "enable", "mailrider.service"]
