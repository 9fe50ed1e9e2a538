"""Certificates for receivers, from a certificate authority that lasts one test run."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import trustme

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Certificate:
    """PEM files: the chain (leaf first) and its key."""

    chain: Path
    key: Path


@dataclass(frozen=True)
class Authority:
    """A CA whose files live in `folder`; `root` is the PEM file that a client should trust."""

    folder: Path

    @cached_property
    def _ca(self) -> trustme.CA:
        return trustme.CA()

    @cached_property
    def root(self) -> Path:
        path = self.folder / "root.pem"
        self._ca.cert_pem.write_to_path(str(path))
        return path

    def issue(self, *names: str) -> Certificate:
        """A server certificate for these host names or addresses."""
        leaf = self._ca.issue_cert(*names)
        chain, key = self.folder / f"{names[0]}.pem", self.folder / f"{names[0]}.key"
        chain.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        key.write_bytes(leaf.private_key_pem.bytes())
        key.chmod(0o600)
        return Certificate(chain, key)
