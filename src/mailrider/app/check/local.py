"""What is on this machine: certificates and their days, disks, who runs the daemon, who can read what is private."""

from __future__ import annotations

import os
import pwd
import stat
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mailrider.app.check.finding import error, note, ok, warning
from mailrider.app.cores import count_workers
from mailrider.config import queue_location, queues_of
from mailrider.config.settings import AUTO
from mailrider.errors import InvalidValue
from mailrider.files import OTHERS, error_text, read_regular
from mailrider.queue.disk import Disk
from mailrider.signing.keys import examine_key
from mailrider.x509.certificate import parse_certificate, pem_certificates
from mailrider.x509.names import find_match, presented_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from mailrider.app.check.finding import Finding
    from mailrider.app.examine import SignatureKey
    from mailrider.clock import Clock
    from mailrider.config import Configuration
    from mailrider.model.domain import Domain
    from mailrider.x509.certificate import Certificate

SOON: Final = timedelta(days=14)  # that a certificate still holds; ACME clients renew with 30 days left
# Of the life of a certificate that is made for some days only: it is renewed with more than that left.
SOON_PART: Final = 1 / 4
MIB: Final = 1 << 20
MAX_CHAIN_FILE: Final = MIB  # octets of a file with a certificate and its chain


@dataclass(frozen=True, slots=True)
class OwnCertificate:
    """A file with a certificate of our own. `owner`: what shows it; `name`: the one that clients know us by there."""

    owner: str
    path: Path
    name: Domain | None = None


def certificates_of(configuration: Configuration) -> list[OwnCertificate]:
    """Those of endpoints, and those that targets show to servers."""
    found: list[OwnCertificate] = []
    for endpoint in configuration.endpoints:
        if endpoint.settings.tls is not None and endpoint.settings.tls.cert is not None:
            name = endpoint.settings.hostname or configuration.globals.hostname
            found.append(OwnCertificate(endpoint.label, endpoint.settings.tls.cert, name))
    for each in configuration.targets.values():
        tls = getattr(each.settings, "tls_client", None)
        if tls is not None and tls.cert is not None:
            found.append(OwnCertificate(each.label, tls.cert))
    return list(dict.fromkeys(found))


def check_certificates(configuration: Configuration, now: datetime) -> list[Finding]:
    """Our own: their days, and their names."""
    return [finding for each in certificates_of(configuration) for finding in _about_certificate(each, now)]


def read_certificate(path: Path) -> Certificate:
    """The first one in a file. Raises `OSError` and `InvalidValue`."""
    return parse_certificate(pem_certificates(read_regular(path, MAX_CHAIN_FILE)[0])[0])


def unreadable_certificate(path: Path, fault: OSError | InvalidValue) -> str:
    """That a certificate cannot be read, and why."""
    if isinstance(fault, OSError):
        return f"the certificate cannot be read: {error_text(fault)}"
    return f"the certificate {path} cannot be read: {fault}"


def _about_certificate(own: OwnCertificate, now: datetime) -> Iterator[Finding]:
    label, path, name = own.owner, own.path, own.name
    try:
        certificate = read_certificate(path)
    except (OSError, InvalidValue) as fault:
        yield error(label, unreadable_certificate(path, fault))
        return
    yield about_validity(label, path, certificate, now)
    names = presented_names(certificate, common_name=False)
    if name is not None and find_match(names, [name]) is None:
        text = f"the certificate {path} is for {', '.join(names[:5]) or 'no name'}, and clients know us as {name}"
        yield warning(label, text, "clients that check it refuse to talk to us; get one for that name")


def about_validity(label: str, path: Path, certificate: Certificate, now: datetime) -> Finding:
    """Whether it holds `now`, and for how long. An error if it does not, a warning if it ends soon."""
    begin, end = certificate.not_before, certificate.not_after
    renew = "see that your ACME client renews it, and sends SIGHUP then (systemctl reload mailrider)"
    if now < begin:
        return error(label, f"the certificate {path} holds from {begin:%Y-%m-%d %H:%M} UTC on, not yet")
    if end <= now:
        return error(label, f"the certificate {path} expired on {end:%Y-%m-%d}", renew)
    days = (end - now).days
    if end - now < min(SOON, (end - begin) * SOON_PART):
        return warning(label, f"the certificate {path} expires in {days} days, on {end:%Y-%m-%d %H:%M} UTC", renew)
    return ok(label, f"the certificate {path} holds for {days} days")


def check_disks(configuration: Configuration, clock: Clock) -> list[Finding]:
    """Whether each queue can take mail, and how much room it has for it."""
    findings: list[Finding] = []
    for each in queues_of(configuration):
        wanted = queue_location(each.settings)
        location = next(path for path in (wanted, *wanted.parents) if path.exists())
        findings.append(_about_disk(each.label, location, Disk(location, each.settings.reserve, clock.monotonic)))
    return findings


def _about_disk(label: str, location: Path, disk: Disk) -> Finding:
    if not disk.look():
        return warning(label, f"how much of the disk under {location} is free is not known")
    if os.statvfs(location).f_flag & os.ST_RDONLY:
        return error(label, f"nothing can be queued: the file system under {location} is read-only")
    if location.stat().st_uid == os.geteuid() and not os.access(location, os.W_OK | os.X_OK):
        return error(label, f"nothing can be queued: {location} cannot be written to", f"chmod u+rwx {location}")
    free, reserve = disk.free // MIB, disk.reserve // MIB
    where = f"{free} MiB are free under {location}"
    if disk.free < disk.reserve:
        text = f"the disk is full: {where}, and new mail is refused below {reserve} MiB (reserve)"
        return error(label, text, "make room there")
    if disk.free < 2 * disk.reserve:
        text = f"the disk is nearly full: {where}; below {reserve} MiB new mail is refused (reserve)"
        return warning(label, text, "make room there")
    return ok(label, where)


def check_workers(configuration: Configuration, usable: int) -> list[Finding]:
    """How many processes carry mail, beside the processors that there are for them."""
    workers = count_workers(configuration, lambda: usable)
    if configuration.globals.workers == AUTO:
        return [ok("workers", f"auto means {workers} here")]
    if workers > max(1, usable):
        text = f"there are {workers} workers for {usable} processors: they take turns, and each needs its memory"
        return [note("workers", text, "workers auto")]
    return []


def check_user(configuration: Configuration) -> list[Finding]:
    """Whether the daemon runs as root: what it keeps belongs to whoever it runs as."""
    if not configuration.endpoints:
        return []
    cure = "let systemd start it as a user of its own: mailrider setup DOMAIN --service, or see the guide"
    locations = [queue_location(each.settings) for each in queues_of(configuration)]
    owners = {owner for owner in map(owner_of, (*locations, configuration.globals.state_dir)) if owner is not None}
    if 0 in owners:
        text = "its files belong to root, so the daemon runs as root: whoever breaks into it controls the machine"
        return [warning("user", text, cure)]
    if not owners and os.geteuid() == 0:
        return [
            note(
                "user", "this runs as root; if the daemon does, too, whoever breaks into it controls the machine", cure
            )
        ]
    return []


def owner_of(path: Path) -> int | None:
    try:
        return path.stat().st_uid
    except OSError:
        return None


def check_rights(configuration: Configuration, keys: Iterable[SignatureKey]) -> list[Finding]:
    """Files that hold what is private, and that others than their owner can read or change."""
    return list(dict.fromkeys(_open_files(configuration, keys)))


def check_readable(configuration: Configuration, keys: Iterable[SignatureKey]) -> list[Finding]:
    """Files that the daemon needs and its user cannot read, as far as their rights say: root reads everything."""
    owner = owner_of(configuration.globals.state_dir)
    if not owner or os.geteuid() != 0:
        return []
    try:
        user = pwd.getpwuid(owner)
    except KeyError:
        return []
    return unreadable(configuration, keys, user)


def unreadable(configuration: Configuration, keys: Iterable[SignatureKey], user: pwd.struct_passwd) -> list[Finding]:
    """The same for a user who is named."""
    groups = os.getgrouplist(user.pw_name, user.pw_gid)
    return [
        warning(
            subject,
            f"{path} cannot be read by {user.pw_name}, as whom the daemon runs",
            f"chgrp {user.pw_name} {path}; chmod 640 {path}; and its folders have to let that group through",
        )
        for subject, path in dict.fromkeys(_needed_files(configuration, keys))
        if not may_read(path, user.pw_uid, groups)
    ]


def _needed_files(configuration: Configuration, keys: Iterable[SignatureKey]) -> Iterator[tuple[str, Path]]:
    if configuration.path is not None:
        yield "configuration", Path(configuration.path)
    for endpoint in configuration.endpoints:
        if endpoint.settings.tls is not None and endpoint.settings.tls.cert is not None:
            yield endpoint.label, endpoint.settings.tls.cert
    yield from ((subject, path) for subject, path, _ in _private_files(configuration, keys))


def _private_files(configuration: Configuration, keys: Iterable[SignatureKey]) -> Iterator[tuple[str, Path, str]]:
    """What the daemon reads and others must not, and what it holds."""
    yield from (("secret", path, "a password") for path in configuration.secret_files)
    for endpoint in configuration.endpoints:
        settings = endpoint.settings
        if settings.auth is not None:
            yield endpoint.label, settings.auth, "passwords"
        if settings.tls is not None and settings.tls.key is not None:
            yield endpoint.label, settings.tls.key, "a private key"
    yield from (("dkim", key.path, "a private key") for key in keys)


def may_read(path: Path, user: int, groups: Iterable[int]) -> bool:
    """True, too, for what is not there: that is another finding."""
    try:
        real = Path(os.path.realpath(path))  # `resolve` raises for a link that leads to itself
        if not real.exists():
            return True
        return all(
            _allows(each.stat(), user, groups, stat.S_IROTH if each == real else stat.S_IXOTH)
            for each in (real, *real.parents)
        )
    except OSError:
        return True


def _allows(state: os.stat_result, user: int, groups: Iterable[int], right: int) -> bool:
    shift = 6 if state.st_uid == user else 3 if state.st_gid in groups else 0
    return bool(state.st_mode >> shift & right)


def check_keys(keys: Iterable[SignatureKey]) -> list[Finding]:
    """RSA keys for DKIM that receivers take, and that others may break before long."""
    findings: list[Finding] = []
    for each in keys:
        loaded = examine_key(each.path)
        if loaded is not None and loaded.is_short:
            text = f"the key {each.path} is RSA with less than 2048 bits, which RFC 8301 3.2 advises against"
            findings.append(warning("dkim", text, f"mailrider dkim rotate {each.domain} makes a longer one"))
    return list(dict.fromkeys(findings))


def _open_files(configuration: Configuration, keys: Iterable[SignatureKey]) -> Iterator[Finding]:
    writable = stat.S_IWGRP | stat.S_IWOTH
    yield from _look_at("state_dir", configuration.globals.state_dir, writable, "all that survives a restart")
    for each in queues_of(configuration):
        location = queue_location(each.settings)
        yield from _look_at(each.label, location, OTHERS, "mail")
        # A folder that is closed protects what is in it.
        if _mode(location) & OTHERS:
            for file in sorted(location.glob("queue.*")):
                yield from _look_at(each.label, file, OTHERS, "mail")
    for subject, path, what in _private_files(configuration, keys):
        # A group may be there for the daemon's user, where the file is root's, or for those who manage it.
        yield from _look_at(subject, path, stat.S_IRWXO | stat.S_IWGRP, what)
    for key in keys:
        yield from _look_at("dkim", key.path.parent, writable, "private keys")


def _look_at(subject: str, path: Path, others: int, what: str) -> Iterator[Finding]:
    mode = _mode(path)
    if mode & others:
        is_folder = stat.S_ISDIR(mode)
        right = "700" if is_folder else "600"
        kind = "folder" if is_folder else "file"
        text = f"others can use the {kind} {path}, which holds {what} (its rights are {stat.S_IMODE(mode):o})"
        yield warning(subject, text, f"chmod {right} {path}")


def _mode(path: Path) -> int:
    """Zero for what is not there, or cannot be seen."""
    try:
        return path.stat().st_mode
    except OSError:
        return 0
