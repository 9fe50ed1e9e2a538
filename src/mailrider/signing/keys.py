"""The keys of DKIM signatures: each in a file of its own, made when it is first needed, with its DNS record beside.

`DOMAIN_SELECTOR.key` is the private key in PEM, for nobody but us to read; `DOMAIN_SELECTOR.dns` the line that
belongs into the zone (RFC 6376 3.6.1), which is told once as `KeyMade`. A key file that is there is never written to:
two processes that make one at the same time end up with the same.
"""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from mailrider.errors import ConfigError, InvalidValue
from mailrider.files import make_folder, read_regular, write_new
from mailrider.model.event import Event
from mailrider.model.value import value
from mailrider.x509.signing import SigningKey

if TYPE_CHECKING:
    from pathlib import Path

    from mailrider.model.domain import Domain
    from mailrider.model.event import Emit
    from mailrider.x509.key_kind import KeyKind

MAX_KEY: Final = 64 * 1024  # octets of a key file: RSA 4096 has 3,300
_STRING: Final = 255  # octets of one string of a TXT record: RFC 1035 3.3


@value
class KeyMade(Event):
    """A new key was made: its record has to be in DNS before receivers can verify what it signs."""

    domain: str
    selector: str
    path: str
    record: str


def key_path(directory: Path, domain: Domain, selector: str) -> Path:
    """Where a key is."""
    return directory / f"{domain.ascii}_{selector}.key"


def dns_record(domain: Domain, selector: str, key: SigningKey) -> str:
    """The line of a zone file that publishes a key; long ones are cut into strings, as DNS wants them.

    RFC 8460 3: receivers may ignore a TLS report if the record of its key does not name `tlsrpt`. The Ed25519 key's
    names it. The RSA key's has no `s=`, which means all services: dkimpy (1.1.8) knows no list there, and would find
    no key for any mail.
    """
    services = "s=email:tlsrpt; " if key.name == "ed25519" else ""
    value = f"v=DKIM1; k={key.name}; {services}p={key.public}"
    strings = [f'"{value[start : start + _STRING]}"' for start in range(0, len(value), _STRING)]
    text = f"( {' '.join(strings)} )" if len(strings) > 1 else strings[0]
    return f"{selector}._domainkey.{domain.ascii}. IN TXT {text}"


def open_key(path: Path, kind: KeyKind, domain: Domain, selector: str, emit: Emit) -> SigningKey:
    """The key in a file, made if there is none. Blocks. Raises `ConfigError` if it cannot be read, written or used."""
    try:
        if not path.exists():
            _make(path, kind, domain, selector, emit)
        return _load(path)
    except OSError as error:
        raise ConfigError(f"dkim: the key {path} cannot be read or made: {error.strerror or error}") from error


def examine_key(path: Path) -> SigningKey | None:
    """The key that `open_key` would give; None if it would make one. Nothing is written. Blocks.

    Raises `ConfigError` where that would.
    """
    try:
        if path.exists():
            return _load(path)
    except OSError as error:
        raise ConfigError(f"dkim: the key {path} cannot be read: {error.strerror or error}") from error
    if path.is_symlink():
        raise ConfigError(f"dkim: the key {path} is a link to {path.readlink()}, which does not exist")
    folder = next(each for each in path.parents if each.is_symlink() or each.exists())
    if not folder.is_dir():
        raise ConfigError(f"dkim: the key {path} cannot be made: {folder} is no folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"dkim: the key {path} cannot be made: nothing can be written in {folder}")
    return None


def _load(path: Path) -> SigningKey:
    pem, info = read_regular(path, MAX_KEY)
    if info.st_mode & stat.S_IRWXO:
        raise ConfigError(f"dkim: everybody can read the key {path}; make it private: chmod 600 {path}")
    try:
        return SigningKey.load(pem)
    except InvalidValue as error:
        raise ConfigError(f"dkim: the key {path} cannot be used: {error}") from error


def _make(path: Path, kind: KeyKind, domain: Domain, selector: str, emit: Emit) -> None:
    make_folder(path.parent)
    key = SigningKey.make(kind)
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        write_new(unfinished, key.pem())
        os.link(unfinished, path)  # fails if another process was faster; then its key is ours as well
    except FileExistsError:
        return
    finally:
        unfinished.unlink(missing_ok=True)
    record = dns_record(domain, selector, key)
    beside = path.with_suffix(".dns")
    with suppress(OSError):  # the key is there and is used; its record is told in any case
        beside.unlink(missing_ok=True)
        write_new(beside, f"{record}\n".encode(), 0o644)
    emit(KeyMade(domain.ascii, selector, str(beside), record))
