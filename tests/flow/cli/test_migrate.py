"""`mailrider migrate` as a command: files beside a copied main.cf, standard input, and what cannot be read."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


def run(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mailrider", *arguments]
    return subprocess.run(command, input=given, capture_output=True, text=True, check=False)


def test_a_copied_main_cf_with_its_tables_beside_it(tmp_path: Path) -> None:
    (tmp_path / "main.cf").write_text(
        "myhostname = a.test\nrelayhost = [b.test]:587\nsmtp_sasl_auth_enable = yes\n"
        "smtp_sasl_password_maps = hash:/etc/postfix/sasl_passwd\n"
    )
    (tmp_path / "master.cf").write_text("smtp inet n - y - - smtpd\n")
    (tmp_path / "sasl_passwd").write_text("[b.test]:587 anna:hunter2\n")
    done = run("migrate", str(tmp_path / "main.cf"), str(tmp_path / "master.cf"))
    assert (done.returncode, done.stderr) == (0, "")
    assert "auth plain anna {file:smtp_password}" in done.stdout
    assert "hunter2" not in done.stdout
    (tmp_path / "mailrider.conf").write_text(done.stdout)
    # What does not need the password works without it.
    listed = run("-c", str(tmp_path / "mailrider.conf"), "queue", "list")
    assert "smtp_password" not in listed.stderr


def test_what_postconf_prints_is_read_from_standard_input() -> None:
    done = run("migrate", "-", given="myhostname = a.test\nrelayhost = [b.test]\n")
    assert done.returncode == 0
    assert "# postconf -n:2 relayhost = [b.test]" in done.stdout


def test_a_main_cf_in_another_encoding_or_with_a_byte_order_mark_is_read_all_the_same(tmp_path: Path) -> None:
    octets = "\ufeffmyhostname = a.test\n".encode() + b"# \xe4\n"
    (tmp_path / "main.cf").write_bytes(octets)
    strict = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    command = [sys.executable, "-m", "mailrider", "migrate", "-"]
    done = subprocess.run(command, input=octets, env=strict, capture_output=True, check=False)
    for out in (done.stdout.decode(), run("migrate", str(tmp_path / "main.cf")).stdout):
        assert "\nhostname a.test\n" in out


@pytest.mark.parametrize("text", ["$(hostname) = mx.a.test\n", "hostname a.test\ntarget.remote out {\n}\n"])
def test_a_configuration_with_blocks_is_no_main_cf(tmp_path: Path, text: str) -> None:
    (tmp_path / "maddy.conf").write_text(text)
    done = run("migrate", str(tmp_path / "maddy.conf"))
    assert (done.returncode, done.stdout) == (78, "")
    assert "is no main.cf: it has blocks" in done.stderr


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    done = run("migrate", str(tmp_path / "main.cf"))
    assert (done.returncode, done.stderr) == (66, f"mailrider: {tmp_path}/main.cf: No such file or directory\n")
    (tmp_path / "main.cf").write_text("myhostname = a.test\n")
    done = run("migrate", str(tmp_path / "main.cf"), str(tmp_path))
    assert (done.returncode, done.stdout) == (66, "")
    assert done.stderr.startswith(f"mailrider: {tmp_path}: ")


def test_a_main_cf_as_a_configuration_names_this_command(tmp_path: Path) -> None:
    (tmp_path / "main.cf").write_text("# Postfix\nmyhostname = a.test\n")
    done = run("-c", str(tmp_path / "main.cf"), "check")
    assert done.returncode == 78
    assert f"{tmp_path}/main.cf:2:1: this is a main.cf of Postfix: mailrider migrate" in done.stderr
