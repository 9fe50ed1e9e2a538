"""PKIX verdicts agree with Debian's `openssl verify`, which none of us wrote and which is another OpenSSL than ours."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.pkix_cases import PKIXCase, pkix_cases

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("case", pkix_cases(), ids=str)
def test_openssl_agrees(case: PKIXCase, tmp_path: Path) -> None:
    expected = case.ok if case.openssl is None else case.openssl
    (tmp_path / "leaf.pem").write_bytes(case.chain[0].pem)
    command = ["openssl", "verify", "-attime", str(int(case.now.timestamp())), "-purpose", "sslserver"]
    command += ["-verify_hostname", case.host, "-partial_chain", "-auth_level", "2", "-no-CApath", "-no-CAstore"]
    for option, certificates in (("-CAfile", case.trusted), ("-untrusted", case.chain[1:])):
        if certificates:
            path = tmp_path / f"{option}.pem"
            path.write_bytes(b"".join(one.pem for one in certificates))
            command += [option, str(path)]
        elif option == "-CAfile":
            command += ["-no-CAfile"]
    done = subprocess.run([*command, str(tmp_path / "leaf.pem")], capture_output=True, text=True, timeout=200)
    assert (done.returncode == 0) is expected, done.stdout + done.stderr
