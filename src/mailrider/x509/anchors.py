"""Trusted roots: read once, then only looked up.

`load_anchors` is the one place of this package that reads files, and it does so at start, never while it judges.
Where the system keeps its roots is not known here: whoever assembles asks Python's `ssl`, because the OpenSSL that
comes with cryptography looks in places of its own.
"""

from __future__ import annotations

import re
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mailrider.errors import ConfigError, do_all
from mailrider.files import read_regular
from mailrider.x509.certificate import parse_certificate, pem_certificates

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mailrider.x509.certificate import Certificate, NameKey

MAX_FILE: Final = 16 << 20  # octets: the certificates of all authorities are a quarter of a MiB
_HASHED = re.compile(r"[0-9a-f]{8}\.[0-9]+")  # as `openssl rehash` names the files of a directory


class Anchors:
    """A set of trust anchors. Never changes; two sets are the same only if they are one object."""

    def __init__(self, certificates: Iterable[Certificate]) -> None:
        self._certificates = tuple(dict.fromkeys(certificates))
        self._by_subject: dict[NameKey, list[Certificate]] = {}
        for certificate in self._certificates:
            self._by_subject.setdefault(certificate.subject_key, []).append(certificate)

    def __len__(self) -> int:
        return len(self._certificates)

    def concerning(self, chain: Iterable[Certificate]) -> tuple[Certificate, ...]:
        """The anchors that may have issued one of these certificates, or be one: the few of many that matter."""
        names = dict.fromkeys(name for sent in chain for name in (sent.issuer_key, sent.subject_key))
        return tuple(anchor for name in names for anchor in self._by_subject.get(name, ()))


def load_anchors(files: Sequence[Path | str], directories: Sequence[Path | str] = ()) -> Anchors:
    """The certificates in PEM (or single DER) files, and in directories as `openssl rehash` prepares them.

    A file is somebody's explicit wish: `ConfigError` if it cannot be read, holds no certificate, or a broken one.
    Directories are the system's: what is missing or broken there is left out.
    """
    found: dict[bytes, Certificate] = {}
    do_all(partial(_read_wanted, Path(file), found) for file in files)
    for directory in directories:
        for path in _hashed_files(Path(directory)):
            with suppress(OSError, ValueError):
                _read_file(path, found)
    return Anchors(found.values())


def _hashed_files(directory: Path) -> list[Path]:
    try:
        return sorted(path for path in directory.iterdir() if _HASHED.fullmatch(path.name))
    except OSError:
        return []


def _read_wanted(path: Path, found: dict[bytes, Certificate]) -> None:
    try:
        _read_file(path, found)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"root_ca: no certificates can be read from {path}: {why}") from error


def _read_file(path: Path, found: dict[bytes, Certificate]) -> None:
    data, _ = read_regular(path, MAX_FILE + 1)
    if len(data) > MAX_FILE:
        raise ValueError(f"it is larger than {MAX_FILE} octets")
    for der in pem_certificates(data) if b"-----BEGIN" in data else [data]:
        if der not in found:
            found[der] = parse_certificate(der)
