"""Debian's OpenSMTPD as a receiver: in a root folder of its own, on a loopback address.

As a package it conflicts with Postfix, and its paths and users are compiled in. So it is unpacked
beside the system (`scripts/debian-peers`), and each instance runs under chroot in a copy that holds
the libraries it needs, two users, its configuration, spool and mail. The system's own files are
neither read nor touched. Every recipient of the given domains exists.

Offers 8BITMIME, ENHANCEDSTATUSCODES, SIZE, DSN, STARTTLS (with a certificate), and that is all: no
PIPELINING, SMTPUTF8 or CHUNKING. The other kind of peer than Postfix.

STARTTLS is offered but never succeeds: Debian 12's OpenSMTPD 6.8 cannot find its private key under
OpenSSL 3 (OpenSMTPD issues 1171, 1239) and answers every handshake with an alert. So with a
certificate this is a peer as the opportunistic fallback was made for, found in the wild.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.peers.maildir import Maildir
from tests.peers.process import accepts, private_directory, running
from tests.support.loopback import new_address

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.peers.certificate import Certificate

UNPACKED = Path(__file__).parents[2] / ".peers/opensmtpd"
_PROGRAMS = ("/usr/sbin/smtpd", "/usr/libexec/opensmtpd/mail.maildir")
_SHELL = "/bin/sh"  # runs the delivery agent
_MAIL_UID = 64003
_PASSWD = f"""\
root:x:0:0:root:/:/bin/sh
opensmtpd:x:64001:64001::/var/lib/opensmtpd/empty:/bin/false
opensmtpq:x:64002:64002::/var/lib/opensmtpd/empty:/bin/false
vmail:x:{_MAIL_UID}:{_MAIL_UID}::/mail:/bin/sh
"""
_GROUP = f"""\
root:x:0:
opensmtpd:x:64001:
opensmtpq:x:64002:
vmail:x:{_MAIL_UID}:
"""


@dataclass(frozen=True)
class OpenSMTPDSettings:
    """What can be varied."""

    domains: tuple[str, ...] = ("example.net",)
    certificate: Certificate | None = None
    message_size_limit: int = 64 * 1024 * 1024
    recipient_limit: int = 1000
    address: str = field(default_factory=new_address)
    port: int = 2525
    hostname: str = "opensmtpd.example.net"


@dataclass(frozen=True)
class OpenSMTPD:
    """A running receiver."""

    settings: OpenSMTPDSettings
    mailbox: Maildir

    @property
    def address(self) -> str:
        return self.settings.address

    @property
    def port(self) -> int:
        return self.settings.port


@contextlib.contextmanager
def start_opensmtpd(settings: OpenSMTPDSettings) -> Iterator[OpenSMTPD]:
    """An OpenSMTPD that listens while the block lasts. Needs root."""
    with private_directory() as root:
        furnish(root)
        _configure(root, settings)
        log = root / "smtpd.log"
        with running(
            ["/usr/sbin/chroot", str(root), "/usr/sbin/smtpd", "-d"],
            log=log,
            ready=lambda: accepts(settings.address, settings.port),
        ):
            yield OpenSMTPD(settings, Maildir(root / "mail/all", log))


def furnish(root: Path) -> None:
    """The programs, the libraries they are linked with, users, and the few folders they expect."""
    for program in _PROGRAMS:
        _copy(UNPACKED / program[1:], root / program[1:])
    _copy(Path(_SHELL), root / _SHELL[1:])
    for library in _libraries(*(UNPACKED / program[1:] for program in _PROGRAMS), Path(_SHELL)):
        _copy(library, root / str(library)[1:])
    for folder in ("etc", "var/run", "var/spool", "var/lib/opensmtpd/empty", "mail", "dev", "tmp"):
        (root / folder).mkdir(parents=True)
    os.chown(root / "mail", _MAIL_UID, _MAIL_UID)
    (root / "tmp").chmod(0o1777)
    (root / "etc/passwd").write_text(_PASSWD)
    (root / "etc/group").write_text(_GROUP)
    _make_null(root / "dev/null")


def _configure(root: Path, settings: OpenSMTPDSettings) -> None:
    lines = [
        f"smtp max-message-size {settings.message_size_limit}",
        f"smtp limit max-rcpt {settings.recipient_limit}",
        f"table domains {{ {', '.join(map(_quoted, settings.domains))} }}",
        'table owners { "@" = "vmail" }',
    ]
    tls = ""
    if settings.certificate is not None:
        for name, path in (("cert", settings.certificate.chain), ("key", settings.certificate.key)):
            shutil.copyfile(path, root / "etc" / name)
            (root / "etc" / name).chmod(0o600)
            lines.append(f'pki own {name} "/etc/{name}"')
        tls = "tls pki own"
    lines += [
        f"listen on {settings.address} port {settings.port} {tls} hostname {settings.hostname}",
        'action "store" maildir "/mail/all" virtual <owners>',
        'match from any for domain <domains> action "store"',
    ]
    (root / "etc/smtpd.conf").write_text("\n".join(lines) + "\n")
    (root / "etc/smtpd.conf").chmod(0o600)


def _quoted(text: str) -> str:
    return f'"{text}"'


def _libraries(*programs: Path) -> set[Path]:
    """All shared libraries of the programs, the dynamic loader included."""
    listing = subprocess.run(["ldd", *programs], check=True, capture_output=True, text=True, timeout=200).stdout
    return {Path(path) for path in re.findall(r"(/\S+) \(0x", listing)}


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(0o755)


def _make_null(path: Path) -> None:
    try:
        os.mknod(path, stat.S_IFCHR, os.makedev(1, 3))
    except PermissionError:  # in a container without CAP_MKNOD an empty file does as well
        path.touch()
    path.chmod(0o666)
