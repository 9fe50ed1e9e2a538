"""Debian's `posttls-finger`: Postfix's own word on a domain's DANE and DNSSEC, through the resolver that we name.

It asks the system's resolver, so it runs in a mount namespace of its own, where /etc/resolv.conf is ours.
"""

from __future__ import annotations

import shlex
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.peers.postfix import write_main_cf

if TYPE_CHECKING:
    from pathlib import Path

    from tests.peers.resolver import Resolver

PROGRAM = "/usr/sbin/posttls-finger"
_PARAMETERS = {
    "compatibility_level": "3.6",
    "inet_protocols": "ipv4",
    "myhostname": "client.test",
    "dnssec_probe": "",
    "smtp_tls_dane_insecure_mx_policy": "dane",
}

# What it says, in the order in which it counts, and what that means.
_MEANINGS = (
    ("address lookup failed", "lookup failed"),
    ("TLSA lookup error", "TLSA failed"),
    ("no TLSA records found", "silent"),
    ("no usable TLSA records found", "unusable"),
    ("all TLSA records unusable", "unusable"),
    ("Untrusted TLS connection established", "mismatch"),
    ("Verified TLS connection established", "match"),
    ("Trusted TLS connection established", "match"),
)


@dataclass(frozen=True)
class Finger:
    """`dane`: one of the meanings above, `in clear` if there was no TLS. `mx_signed`: told only where DANE speaks."""

    dane: str
    mx_signed: bool
    output: str


def posttls_finger(domain: str, port: int, resolver: Resolver, folder: Path) -> Finger:
    """What Postfix finds at the domain's MX; `folder` is for its files."""
    resolv_conf = folder / "resolv.conf"
    resolv_conf.write_text(f"nameserver {resolver.address}\noptions trust-ad\n")
    write_main_cf(folder, _PARAMETERS)
    probe = shlex.join([PROGRAM, "-c", "-l", "dane-only", "-m", "0", f"{domain}:{port}"])
    script = f"mount --bind {shlex.quote(str(resolv_conf))} /etc/resolv.conf && exec {probe}"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script],
        check=False,
        capture_output=True,
        text=True,
        timeout=200,
        env={"MAIL_CONFIG": str(folder), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    dane = next((meaning for words, meaning in _MEANINGS if words in output), "in clear")
    return Finger(dane, "MX RRset insecure" not in output, output)
