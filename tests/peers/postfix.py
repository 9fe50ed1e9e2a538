"""Debian's Postfix, a whole instance in a folder of its own, on a loopback address: a receiver, or (`relay_to`) a
client that passes on what it gets.

The system's own Postfix is neither read nor touched: configuration, queue, data, log and mailboxes
are in one temporary folder, and `master` runs in the foreground under us. Every recipient of the
given domains exists; mail lands in one `Maildir`. Header fields are left as they came.

Offers PIPELINING, SIZE, ETRN, STARTTLS (with a certificate), ENHANCEDSTATUSCODES, 8BITMIME, DSN,
SMTPUTF8, CHUNKING.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.peers.maildir import Maildir
from tests.peers.process import accepts, private_directory, running
from tests.support.loopback import new_address

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.peers.certificate import Certificate

DAEMONS = "/usr/lib/postfix/sbin"
_QUEUE_FOLDERS = (
    *("active", "bounce", "corrupt", "defer", "deferred", "flush"),
    *("hold", "incoming", "private", "saved", "trace"),
)
SERVICES = """\
pickup   unix n - n 60   1 pickup
cleanup  unix n - n -    0 cleanup
qmgr     unix n - n 300  1 qmgr
tlsmgr   unix - - n 1000? 1 tlsmgr
rewrite  unix - - n -    - trivial-rewrite
bounce   unix - - n -    0 bounce
defer    unix - - n -    0 bounce
trace    unix - - n -    0 bounce
verify   unix - - n -    1 verify
flush    unix n - n 1000? 0 flush
proxymap unix - - n -    - proxymap
error    unix - - n -    - error
retry    unix - - n -    - error
discard  unix - - n -    - discard
smtp     unix - - n -    - smtp
virtual  unix - n n -    - virtual
anvil    unix - - n -    1 anvil
scache   unix - - n -    1 scache
tlsproxy unix - - n -    0 tlsproxy
postlog  unix-dgram n - n - 1 postlogd
"""
"""What master.cf has besides those who listen."""


@dataclass(frozen=True)
class PostfixSettings:
    """`parameters` go into main.cf last, so they win.

    `listeners`: further addresses, each with a certificate of its own, or without STARTTLS.
    """

    domains: tuple[str, ...] = ("example.net",)
    certificate: Certificate | None = None
    message_size_limit: int = 64 * 1024 * 1024
    recipient_limit: int = 1000
    address: str = field(default_factory=new_address)
    port: int = 2525
    hostname: str = "postfix.example.net"
    parameters: Mapping[str, str] = field(default_factory=dict)
    listeners: Mapping[str, Certificate | None] = field(default_factory=dict)


def relay_to(address: str, port: int, **parameters: str) -> PostfixSettings:
    """One that passes on all mail from this machine to that server, as it is."""
    return PostfixSettings(
        domains=(),
        hostname="relay.example.org",
        parameters={
            "mynetworks": "127.0.0.0/8",
            "smtpd_relay_restrictions": "permit_mynetworks, reject",
            "default_transport": "smtp",
            "relayhost": f"[{address}]:{port}",
            "smtp_host_lookup": "native",
            "smtp_line_length_limit": "0",  # it would fold longer lines
            **parameters,
        },
    )


@dataclass(frozen=True)
class Postfix:
    """A running one."""

    settings: PostfixSettings
    mailbox: Maildir

    @property
    def address(self) -> str:
        return self.settings.address

    @property
    def port(self) -> int:
        return self.settings.port


@contextlib.contextmanager
def start_postfix(settings: PostfixSettings) -> Iterator[Postfix]:
    """A Postfix that listens while the block lasts. Needs root."""
    with private_directory() as home:
        _write_home(home, settings)
        with running(
            [f"{DAEMONS}/master", "-c", str(home / "etc"), "-d"],
            log=home / "master.log",
            ready=lambda: accepts(settings.address, settings.port),
            environment={"MAIL_CONFIG": str(home / "etc")},
        ):
            yield Postfix(settings, Maildir(home / "mail/all", home / "mail.log"))


def make_folders(home: Path) -> None:
    """The folders of an instance, owned as `master` wants them."""
    postfix, postdrop = pwd.getpwnam("postfix").pw_uid, grp.getgrnam("postdrop").gr_gid
    for name in ("etc", "queue", "data", "queue/pid"):
        (home / name).mkdir()
    for name in _QUEUE_FOLDERS:
        (home / "queue" / name).mkdir(mode=0o700)
        os.chown(home / "queue" / name, postfix, -1)
    for name, mode in (("maildrop", 0o730), ("public", 0o710)):
        (home / "queue" / name).mkdir()
        os.chown(home / "queue" / name, postfix, postdrop)
        (home / "queue" / name).chmod(mode)
    os.chown(home / "data", postfix, -1)


def _write_home(home: Path, settings: PostfixSettings) -> None:
    make_folders(home)
    nobody = pwd.getpwnam("nobody")
    (home / "mail").mkdir()
    os.chown(home / "mail", nobody.pw_uid, nobody.pw_gid)
    parameters = _main_cf(home, settings, nobody)
    write_main_cf(home / "etc", parameters)
    more = (_service(address, settings.port, each) for address, each in settings.listeners.items())
    write_master_cf(home / "etc", listener(settings.address, settings.port), *more)


def write_main_cf(folder: Path, parameters: Mapping[str, str | int]) -> None:
    """Postfix's settings. Dated back: its programs wait until a file has not been changed for two seconds."""
    file = folder / "main.cf"
    file.write_text("".join(f"{name} = {value}\n" for name, value in parameters.items()))
    os.utime(file, (0, 0))


def write_master_cf(folder: Path, *listeners: str) -> None:
    """Postfix's services: what it always has, and those who listen."""
    (folder / "master.cf").write_text("".join(listeners) + SERVICES)


def listener(address: str, port: int, processes: str = "-") -> str:
    """Accepts SMTP there. `processes`: how many, at most; `-`: as main.cf says."""
    return f"{address}:{port} inet n - n - {processes} smtpd\n"


def _service(address: str, port: int, certificate: Certificate | None) -> str:
    options = {"smtpd_tls_security_level": "none"}
    if certificate is not None:
        options = {
            "smtpd_tls_security_level": "may",
            "smtpd_tls_cert_file": str(certificate.chain),
            "smtpd_tls_key_file": str(certificate.key),
        }
    written = "".join(f"\n  -o {name}={value}" for name, value in options.items())
    return f"{listener(address, port).rstrip()}{written}\n"


def _main_cf(home: Path, settings: PostfixSettings, owner: pwd.struct_passwd) -> dict[str, str | int]:
    return {
        "compatibility_level": "3.6",
        "queue_directory": f"{home}/queue",
        "data_directory": f"{home}/data",
        "maillog_file": f"{home}/mail.log",
        "maillog_file_prefixes": str(home),
        "myhostname": settings.hostname,
        "mydestination": "",
        "mynetworks": "",
        "inet_interfaces": "127.0.0.1",  # must be known to the system; master.cf has ours
        "inet_protocols": "ipv4",
        "alias_maps": "",
        "smtputf8_enable": "yes",
        "virtual_mailbox_domains": " ".join(settings.domains),
        "virtual_mailbox_base": f"{home}/mail",
        "virtual_mailbox_maps": "static:all/",
        "virtual_uid_maps": f"static:{owner.pw_uid}",
        "virtual_gid_maps": f"static:{owner.pw_gid}",
        "virtual_mailbox_limit": settings.message_size_limit,
        "message_size_limit": settings.message_size_limit,
        "smtpd_recipient_limit": settings.recipient_limit,
        "smtpd_recipient_overshoot_limit": settings.recipient_limit,
        "smtpd_relay_restrictions": "reject_unauth_destination",
        # Nobody but the sender writes the header; nobody slows the sender down.
        "local_header_rewrite_clients": "",
        "smtpd_peername_lookup": "no",
        "smtpd_error_sleep_time": "0",
        "smtpd_client_connection_count_limit": 0,
        "in_flow_delay": "0",
        "default_transport": "error:this instance only receives",
        **_tls(settings),
        **settings.parameters,
    }


def _tls(settings: PostfixSettings) -> dict[str, str | int]:
    if settings.certificate is None:
        return {"smtpd_tls_security_level": "none"}
    return {
        "smtpd_tls_security_level": "may",
        "smtpd_tls_cert_file": str(settings.certificate.chain),
        "smtpd_tls_key_file": str(settings.certificate.key),
        "smtpd_tls_received_header": "yes",
        "smtpd_tls_loglevel": 1,
    }
