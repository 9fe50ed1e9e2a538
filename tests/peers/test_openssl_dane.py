"""DANE verdicts agree with Debian's `openssl s_client`, against an `openssl s_server` on loopback."""

from __future__ import annotations

import socket
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.peers.process import READY_WITHIN
from tests.support.dane_cases import DANECase, dane_cases
from tests.support.loopback import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ANY_KEY = "ALL:@SECLEVEL=0"  # certificates with weak keys can be served, and reach the judgement


@pytest.mark.parametrize("case", dane_cases(), ids=str)
def test_openssl_agrees(case: DANECase, tmp_path: Path) -> None:
    expected = case.ok if case.openssl is None else case.openssl
    records = [f"{r.usage} {r.selector} {r.matching_type} {r.data.hex()}" for r in case.records]
    with serve(case, tmp_path) as port:
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-cipher", ANY_KEY, "-auth_level", "2"]
        command += ["-attime", str(int(case.now.timestamp())), "-dane_tlsa_domain", "mx.example.net"]
        command += ["-dane_ee_no_namechecks"]  # RFC 7672 3.1.1
        command += [argument for record in records for argument in ("-dane_tlsa_rrdata", record)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=200, stdin=subprocess.DEVNULL)
    assert "Verify return code: " in done.stdout, done.stderr
    assert "TLSA record rejected" not in done.stderr
    assert ("Verify return code: 0 (ok)" in done.stdout) is expected, done.stdout + done.stderr
    assert ("\nDANE TLSA " in done.stdout) or not expected


@contextmanager
def serve(case: DANECase, folder: Path) -> Iterator[int]:
    (folder / "leaf.pem").write_bytes(case.chain[0].pem)
    (folder / "key.pem").write_bytes(case.chain[0].key_pem)
    port = free_port()
    command = ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-quiet", "-cipher", ANY_KEY]
    command += ["-cert", str(folder / "leaf.pem"), "-key", str(folder / "key.pem"), "-no-CAfile", "-no-CApath"]
    if len(case.chain) > 1:
        (folder / "others.pem").write_bytes(b"".join(one.pem for one in case.chain[1:]))
        command += ["-cert_chain", str(folder / "others.pem")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as server:
        try:
            wait_for(port, server)
            yield port
        finally:
            server.kill()


def wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    """Until the server accepts; it says so nowhere that could be waited for."""
    end = time.monotonic() + READY_WITHIN
    while time.monotonic() < end and server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except ConnectionRefusedError:
            time.sleep(0.005)
        else:
            return
    server.kill()
    raise AssertionError(f"openssl s_server does not accept: {server.stderr.read().decode() if server.stderr else ''}")
