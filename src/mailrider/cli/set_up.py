"""`mailrider setup DOMAIN`: a configuration, DKIM keys, the records for the zone, and the service if it is wanted."""

from __future__ import annotations

import os
import pwd
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mailrider.app.check.addresses import source_addresses
from mailrider.app.check.local import unreadable
from mailrider.app.dkim import keys_in_use
from mailrider.app.setup.service import USER, ServiceInstaller, adapted_units, hidden
from mailrider.app.setup.texts import configuration_text, first_selectors, zone_fragment
from mailrider.cli.arguments import DOMAIN, ParsedType
from mailrider.cli.say import say
from mailrider.clock import SystemClock
from mailrider.config import load
from mailrider.config.loader import find_config, own_name
from mailrider.config.settings import SYSTEM_CONFIG, SYSTEM_RUNTIME_DIR, default_runtime_dir
from mailrider.delivery.settings import RemoteSettings
from mailrider.errors import ConfigError, InvalidValue
from mailrider.files import PRIVATE_FOLDER, make_folder
from mailrider.model.domain import Domain
from mailrider.model.event import discard
from mailrider.report.lines import print_commented
from mailrider.settings.socket_address import SENDMAIL_SOCKET
from mailrider.settings.types import IP_ADDRESS
from mailrider.signing.keys import dns_record, open_key

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mailrider.config import Configuration
    from mailrider.settings.types import IPAddress

IP = ParsedType("ip", IP_ADDRESS.accept)
FIRST_FREE_PORT = 1024  # below it only root, or systemd for us, may listen


@click.command()
@click.argument("domain", type=DOMAIN)
@click.option("--hostname", type=DOMAIN, help="Our name; default: that of this machine, or mx.DOMAIN.")
@click.option("--address", "own", type=IP, multiple=True, help="An address that others see us come from.")
@click.option(
    "--service", is_flag=True, help="Install and start the daemon: user, systemd units, sendmail. Needs root."
)
@click.pass_obj
def setup(
    config: str | None, domain: Domain, hostname: Domain | None, own: tuple[IPAddress, ...], service: bool
) -> int:
    """Make this machine ready to send mail of DOMAIN.

    Writes a configuration (that of -c; for root /etc/mailrider/mailrider.conf, else ./mailrider.conf), makes DKIM keys
    (RSA 2048 and Ed25519), and prints the records that belong into the zone of DOMAIN. What is there already is left as
    it is, so it may be called again.
    """
    if service and os.geteuid() != 0:
        raise click.UsageError("--service needs root: it makes a user and writes to /etc and /usr/sbin")
    path = Path(config) if config else SYSTEM_CONFIG if os.geteuid() == 0 else Path("mailrider.conf")
    path = path.absolute()
    _write_configuration(path, domain, hostname or _own_name(domain))
    configuration = load(path)
    installer = ServiceInstaller()
    if service:
        _tell(installer.make_user(configuration.globals.state_dir))
    make_folder(configuration.globals.state_dir, PRIVATE_FOLDER)
    records = _make_keys(configuration, domain)
    if service:
        _install(installer, configuration, path)
    ours = own or _addresses(configuration)
    print_commented(zone_fragment(domain, _hostname(configuration), ours, records), ";")
    found = find_config()
    command = "mailrider"
    if found is None or not found.samefile(path):
        command += f" -c {shlex.quote(str(path))}"
    say(f"then: {command} check {domain.ascii}" + ("" if service else f"; {command} run"))
    return os.EX_OK


def _tell(lines: Iterable[str]) -> None:
    for line in lines:
        say(line)


def _own_name(domain: Domain) -> Domain:
    """What this machine calls itself, if that is a name for the world."""
    try:
        name = Domain.parse(own_name())
    except InvalidValue:
        name = domain
    if "." in name.ascii and not name.ascii.endswith((".localdomain", ".local", ".internal", ".lan")):
        return name
    return Domain(f"mx.{domain.ascii}")


def _hostname(configuration: Configuration) -> Domain:
    if configuration.globals.hostname is None:
        raise ConfigError("hostname is required: the name that we greet other servers with (EHLO)")
    return configuration.globals.hostname


def _write_configuration(path: Path, domain: Domain, hostname: Domain) -> None:
    if path.exists():
        say(f"{path} is there, and is left as it is")
        return
    is_root = os.geteuid() == 0
    runtime_dir = SYSTEM_RUNTIME_DIR if path == SYSTEM_CONFIG else default_runtime_dir()
    port = 587 if is_root else 2587
    addresses = [f"tcp://127.0.0.1:{port}", f"unix://{runtime_dir / SENDMAIL_SOCKET}"]
    text = configuration_text(domain, hostname, first_selectors(SystemClock().now()), addresses)
    make_folder(path.parent, 0o755)
    with path.open("x", encoding="utf-8") as file:  # somebody may have been faster
        file.write(text)
    path.chmod(0o644)
    say(f"wrote {path}")


def _make_keys(configuration: Configuration, domain: Domain) -> list[str]:
    """The records of the keys that sign for the domain, made if they are not there."""
    keys = keys_in_use(configuration, domain)
    if not keys and any(isinstance(each.settings, RemoteSettings) for each in configuration.targets.values()):
        where = configuration.path or "the configuration"
        say(f"{where} signs nothing for {domain}: mailrider dkim new {domain} makes keys, and says what to write")
    records: list[str] = []
    for each in keys:
        was_there = each.path.exists()
        key = open_key(each.path, each.given.options.newkey_algo, each.domain, each.selector, discard)
        say(f"{'the key' if was_there else 'made the key'} {each.path}{' is there' if was_there else ''}")
        records.append(dns_record(each.domain, each.selector, key))
    return records


def _addresses(configuration: Configuration) -> list[IPAddress]:
    """What others see us come from, as far as this machine can tell."""
    settings = [each.settings for each in configuration.targets.values() if isinstance(each.settings, RemoteSettings)]
    sources = [source for each in settings for source in source_addresses(each)]
    for each in sources:
        if not each.is_sure:
            say(f"{each.address} is a private address; give the one that others see with --address")
    return list(dict.fromkeys(each.address for each in sources if each.is_sure))


def _install(installer: ServiceInstaller, configuration: Configuration, path: Path) -> None:
    program = Path(sys.argv[0]).absolute()
    program = program if program.name == "mailrider" else Path(sys.executable).with_name("mailrider")
    fault = hidden(program.resolve())
    if fault:
        raise ConfigError(fault)
    _tell(installer.give_away(configuration.globals.state_dir))
    units = adapted_units(program, path, _privileged_ports(configuration))
    _tell(installer.write_units(units))
    _tell(installer.link_sendmail(beside(program, "mailrider-sendmail")))
    faults = unreadable(configuration, keys_in_use(configuration), pwd.getpwnam(USER)) if installer.has_user() else []
    _tell(f"{each.text}: {each.cure}" for each in faults)
    _tell(installer.start(list(units), now=not faults))


def beside(program: Path, name: str) -> Path:
    """Another program of this installation: where ours is called by, or where that link leads to."""
    near = program.with_name(name)
    return near if near.exists() else program.resolve().with_name(name)


def _privileged_ports(configuration: Configuration) -> list[str]:
    """What systemd has to open for a daemon without root, as its units write it."""
    found: list[str] = []
    for each in configuration.endpoints:
        for address in each.settings.listen:
            if address.ip is not None and address.port < FIRST_FREE_PORT:
                host = f"[{address.ip}]" if address.ip.version == 6 else str(address.ip)
                found.append(f"{host}:{address.port}")
    return found
