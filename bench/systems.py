"""The mail systems that are measured: each accepts over SMTP, queues durably, and relays by MX.

mailrider beside Debian's Postfix (as it comes, and tuned for this job), OpenSMTPD and Exim. Each runs in a temporary
folder and a control group of its own, on a loopback address of its own; what the machine itself has installed is
neither read nor touched. `configuration` is what stands in the report.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

from bench.footprint import confined, counting_syncs
from bench.peers import MissingError, find_program
from tests.peers import opensmtpd, postfix
from tests.peers.process import accepts, private_directory
from tests.support.loopback import new_address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from bench.footprint import ControlGroup
    from bench.network import Network

PORT = 2525
RESOLV_CONF, PASSWD, GROUP = Path("/etc/resolv.conf"), Path("/etc/passwd"), Path("/etc/group")
VAR_LIB = Path("/var/lib")
READY = b" daemon_ready "
"""What mailrider's log says once all of its workers serve."""
EXIM = Path(__file__).parents[1] / ".peers/exim"
_EXIM_UID = 64010


@dataclass(frozen=True, slots=True)
class Relay:
    """A running system; `home` is its folder."""

    address: str
    port: int
    group: ControlGroup
    home: Path


@dataclass(frozen=True, slots=True)
class Launch:
    """How a system is run: its command, what its environment has besides, and what it sees instead of these files.

    `ready`: whether it serves, where that is more than that its port accepts.
    """

    command: list[str]
    environment: Mapping[str, str] | None = None
    files: Mapping[Path, Path] | None = None
    ready: Callable[[], bool] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class System(ABC):
    """What can be measured. `capacity`: messages that a round should have, so that it takes some seconds."""

    name: str
    capacity: int

    @property
    @abstractmethod
    def configuration(self) -> str: ...

    @abstractmethod
    def _furnish(self, home: Path, address: str, network: Network) -> Launch:
        """Write its configuration."""

    @contextlib.contextmanager
    def start(self, network: Network, *, syncs: Path | None = None) -> Iterator[Relay]:
        """It runs while the block lasts. `syncs`: a file for what strace counts, complete at the end."""
        address = new_address()
        with private_directory() as home:
            launch = self._furnish(home, address, network)
            with confined(
                counting_syncs(launch.command, syncs) if syncs else launch.command,
                name=type(self).__name__.lower(),
                log=home / "log",
                ready=launch.ready or (lambda: accepts(address, PORT)),
                environment=launch.environment,
                files=launch.files,
            ) as group:
                yield Relay(address, PORT, group, home)


def _resolv_conf(home: Path, network: Network) -> Path:
    path = home / "resolv.conf"
    path.write_text(f"nameserver {network.resolver}\noptions trust-ad\n")
    return path


def _find(program: Path) -> None:
    """Raises `MissingError` for one that was not unpacked."""
    if not program.exists():
        raise MissingError(f"{program.name} is not in {program.parents[2]}; scripts/debian-bench unpacks it")


# --- mailrider -----------------------------------------------------------------------------------

_MAILRIDER = """\
hostname client.bench.test
{workers}
state_dir {home}/state
dns {{
    server {resolver}
}}
log stderr
target.remote world {{
    prohibited_addresses none
    {authentication}
    {remote}
}}
target.queue outgoing {{
    target &world
    {queue}
}}
smtp tcp://{address}:{port} {{
    deliver_to &outgoing
}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mailrider(System):
    """This checkout's daemon. `remote`, `queue`: directives that differ from the defaults.

    `policy_root`: what certifies the policy hosts of MTA-STS, which is on if this is given.
    """

    name: str = "mailrider"
    remote: str = ""
    queue: str = ""
    dane: bool = False
    policy_root: str = ""
    workers: int = 1
    capacity: int = 20_000

    def with_workers(self, workers: int) -> Mailrider:
        """The same with so many workers."""
        return replace(self, name=f"{self.name}, {workers} workers", workers=workers)

    def without_reuse(self) -> Mailrider:
        """The same with a new connection for each message."""
        return replace(self, name=f"{self.name}, new connections", remote="conn_reuse_limit 1")

    @property
    def configuration(self) -> str:
        given = "; ".join(filter(None, (self.remote, self.queue))).replace("\n", "; ")
        policies = " ".join(["dane"] * self.dane + ["mtasts"] * bool(self.policy_root))
        processes = "one process" if self.workers == 1 else f"{self.workers} workers"
        return f"{processes}, {given or 'as it comes'}; mx_auth {policies or 'none'}"

    def _authentication(self) -> str:
        policies = ["dane"] * self.dane
        if self.policy_root:
            policies.append(f"mtasts {{\n root_ca {self.policy_root}\n }}")
        return "\n".join(["mx_auth {", *policies, "}"]) if policies else ""

    def _furnish(self, home: Path, address: str, network: Network) -> Launch:
        text = _MAILRIDER.format(
            home=home,
            workers=f"workers {self.workers}" if self.workers > 1 else "",
            resolver=network.resolver,
            address=address,
            port=PORT,
            remote=self.remote,
            queue=self.queue,
            authentication=self._authentication(),
        )
        (home / "mailrider.conf").write_text(text)
        # Its port is open before all workers are there, and the first one would get all of the load.
        log = home / "log"
        return Launch([*_mailrider(home), "run"], ready=lambda: READY in log.read_bytes())

    def flush(self, relay: Relay) -> tuple[list[str], dict[str, str]]:
        """The command that has it try everything now, and its environment."""
        return [*_mailrider(relay.home), "queue", "retry", "--all"], {}


def _mailrider(home: Path) -> list[str]:
    return [sys.executable, "-m", "mailrider", "-c", str(home / "mailrider.conf")]


MAILRIDER_TUNED = Mailrider(
    name="mailrider, tuned",
    remote="conn_reuse_limit 1000\n    conn_max_idle_count 50",
    queue="max_parallelism 50",
)

WORKERS: Final = tuple(each for each in (2, 4) if each <= max(2, len(os.sched_getaffinity(0))))
"""How many workers are compared with one process: 2, and 4 where there are as many processors."""
MAILRIDERS: Final = (Mailrider(), MAILRIDER_TUNED, *(MAILRIDER_TUNED.with_workers(each) for each in WORKERS))

# --- Postfix -------------------------------------------------------------------------------------

_POSTFIX = {
    "compatibility_level": "3.6",
    "myhostname": "client.bench.test",
    "mydestination": "",
    "mynetworks": "127.0.0.0/8",
    "inet_interfaces": "127.0.0.1",  # must be known to the system; master.cf has ours
    "inet_protocols": "ipv4",
    "alias_maps": "",
    "smtpd_relay_restrictions": "permit_mynetworks, reject",
    "smtp_host_lookup": "dns",
}
# What its documents (TUNING_README, QSHAPE_README, CONNECTION_CACHE_README) name for a busy relay, and what two
# processors like: fewer processes, no counting of clients, many messages at a time to one destination.
_POSTFIX_TUNED = {
    "default_process_limit": "40",
    "max_use": "10000",
    "smtpd_client_connection_count_limit": "0",
    "smtpd_client_port_logging": "no",
    "smtpd_peername_lookup": "no",
    "in_flow_delay": "0",
    "local_header_rewrite_clients": "",
    "enable_original_recipient": "no",
    "default_destination_concurrency_limit": "40",
    "initial_destination_concurrency": "20",
    "smtp_connection_cache_destinations": "bench.test",
    "smtp_tls_connection_reuse": "yes",
    "parent_domain_matches_subdomains": "smtp_connection_cache_destinations",
    "qmgr_message_active_limit": "100000",
    "qmgr_message_recipient_limit": "100000",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Postfix(System):
    """Debian's. `parameters` beyond what makes it a relay; `receivers`: processes that accept, at most (master(5))."""

    parameters: Mapping[str, str] = field(default_factory=dict)
    receivers: str = "-"
    dane: bool = False
    capacity: int = 6_000

    def without_reuse(self) -> Postfix:
        """The same with a new connection for each message."""
        never = {
            "smtp_connection_cache_on_demand": "no",
            "smtp_connection_cache_destinations": "",
            "smtp_tls_connection_reuse": "no",
        }
        return replace(self, name=f"{self.name}, new connections", parameters={**self.parameters, **never})

    @property
    def configuration(self) -> str:
        given = ", ".join(f"{name} = {value}" for name, value in self._all().items())
        return given or "as it comes"

    def _all(self) -> dict[str, str]:
        secure = {"smtp_dns_support_level": "dnssec", "smtp_tls_security_level": "dane"} if self.dane else {}
        return {**self.parameters, **secure}

    def _furnish(self, home: Path, address: str, network: Network) -> Launch:
        postfix.make_folders(home)
        places = {
            "queue_directory": f"{home}/queue",
            "data_directory": f"{home}/data",
            "maillog_file": f"{home}/mail.log",
            "maillog_file_prefixes": str(home),
        }
        postfix.write_main_cf(home / "etc", {**_POSTFIX, **places, **self._all()})
        postfix.write_master_cf(home / "etc", postfix.listener(address, PORT, self.receivers))
        command = [f"{postfix.DAEMONS}/master", "-c", str(home / "etc"), "-d"]
        files = {RESOLV_CONF: _resolv_conf(home, network)}
        return Launch(command, {"MAIL_CONFIG": str(home / "etc")}, files)

    def flush(self, relay: Relay) -> tuple[list[str], dict[str, str]]:
        """The command that has it try everything now, and its environment."""
        return [find_program("postqueue"), "-f"], {"MAIL_CONFIG": str(relay.home / "etc")}


POSTFIX = Postfix(name="Postfix, as it comes")
POSTFIX_TUNED = Postfix(name="Postfix, tuned", parameters=_POSTFIX_TUNED)

# --- OpenSMTPD -----------------------------------------------------------------------------------

# As it comes it ends a session after 100 messages with a 452, which ends smtp-source, and opens a connection to a
# destination every five seconds, each of which carries 100 messages: some 15 a second. So its limits are raised.
_OPENSMTPD_LIMITS = (
    "smtp limit max-mails 100000",
    "mta limit max-conn-per-host 50 max-conn-per-route 50 max-conn-per-source 1000 max-conn-per-connector 50",
    "mta limit conn-delay-route 0 conn-delay-relay 0 reconn-delay-route 0 session-mail-max 1000",
    "mta limit task-hiwat 5000 task-lowat 3000 task-release 1000",
)
_OPENSMTPD = """\
{limits}
listen on {address} port {port} hostname client.bench.test
action "out" relay helo client.bench.test
match from any for any action "out"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSMTPD(System):
    """Debian's, in a root folder of its own."""

    name: str = "OpenSMTPD"
    capacity: int = 1_000
    configuration: ClassVar[str] = "; ".join(_OPENSMTPD_LIMITS)

    def _furnish(self, home: Path, address: str, network: Network) -> Launch:
        _find(opensmtpd.UNPACKED / "usr/sbin/smtpd")
        opensmtpd.furnish(home)
        text = _OPENSMTPD.format(limits="\n".join(_OPENSMTPD_LIMITS), address=address, port=PORT)
        (home / "etc/smtpd.conf").write_text(text)
        (home / "etc/smtpd.conf").chmod(0o600)
        shutil.copyfile(_resolv_conf(home, network), home / "etc/resolv.conf")
        return Launch(["/usr/sbin/chroot", str(home), "/usr/sbin/smtpd", "-d"])


# --- Exim ----------------------------------------------------------------------------------------

# Specification, "Running Exim without privilege": a gateway delivers without root, and so needs no new exec for each
# message; "message_logs": none on a busy system. By default a connection has 1000 messages at most, as a session of
# smtp-source has; and a destination that once refused a connection would rest for a quarter of an hour.
_EXIM_TUNED = {
    "smtp_accept_max": "200",
    "smtp_accept_queue_per_connection": "0",
    "smtp_accept_max_per_connection": "0",
    "deliver_drop_privilege": "true",
    "message_logs": "false",
    "split_spool_directory": "true",
}
_EXIM_RETRY = "* * F,2h,10s"
_EXIM = """\
primary_hostname = client.bench.test
spool_directory = {home}/spool
log_file_path = {home}/%slog
local_interfaces = {address}
daemon_smtp_ports = {port}
acl_smtp_rcpt = accept
hosts_treat_as_local =
tls_advertise_hosts =
keep_environment =
disable_ipv6
exim_path = {program}
{tuned}
begin routers
dns:
  driver = dnslookup
  transport = smtp
  self = send
begin transports
smtp:
  driver = smtp
  allow_localhost
begin retry
{retry}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exim(System):
    """Debian's exim4-daemon-light, unpacked beside the system."""

    name: str = "Exim"
    capacity: int = 1_500
    configuration: ClassVar[str] = f"{', '.join(f'{n} = {value}' for n, value in _EXIM_TUNED.items())}; {_EXIM_RETRY}"

    def _furnish(self, home: Path, address: str, network: Network) -> Launch:
        program = EXIM / "usr/sbin/exim4"
        _find(program)
        text = _EXIM.format(
            home=home,
            address=address,
            port=PORT,
            program=program,
            tuned="\n".join(f"{name} = {value}" for name, value in _EXIM_TUNED.items()),
            retry=_EXIM_RETRY,
        )
        # Where it looks itself: with -C it gives up its privileges, and execs itself with -C for each message.
        (home / "lib/exim4").mkdir(parents=True)
        (home / "lib/exim4/config.autogenerated").write_text(text)
        for name in ("spool", "."):
            (home / name).mkdir(exist_ok=True)
            os.chown(home / name, _EXIM_UID, _EXIM_UID)
        files = {
            VAR_LIB: home / "lib",
            RESOLV_CONF: _resolv_conf(home, network),
            PASSWD: _with_line(home, PASSWD, f"Debian-exim:x:{_EXIM_UID}:{_EXIM_UID}::{home}:/bin/false"),
            GROUP: _with_line(home, GROUP, f"Debian-exim:x:{_EXIM_UID}:"),
        }
        return Launch([str(program), "-bdf", "-q30s"], files=files)


def _with_line(home: Path, file: Path, line: str) -> Path:
    path = home / file.name
    path.write_text(f"{file.read_text()}{line}\n")
    path.chmod(0o644)
    return path
