"""The unit files: systemd reads them without a complaint, and they promise what the guide says."""

from __future__ import annotations

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[3] / "packaging" / "systemd"
PROGRAM = "/usr/bin/mailrider"


def read(name: str) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(strict=False, delimiters=("=",), comment_prefixes=("#",))
    parser.optionxform = str  # type: ignore[assignment,method-assign] # the recipe of configparser's documentation
    parser.read(UNITS / name)
    return parser


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
def test_systemd_has_nothing_to_say(tmp_path: Path) -> None:
    for unit in UNITS.iterdir():
        text = unit.read_text().replace(PROGRAM, shutil.which("true") or "/bin/true")
        (tmp_path / unit.name).write_text(text)
    command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no"]
    units = [str(tmp_path / name) for name in ("mailrider.service", "mailrider.socket")]
    done = subprocess.run([*command, *units], capture_output=True, text=True, timeout=200, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
def test_systemd_finds_little_that_an_intruder_could_do() -> None:
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager"]
    unit = str(UNITS / "mailrider.service")
    done = subprocess.run([*command, unit], capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout.splitlines()[-1:] + done.stderr.splitlines()


def test_the_daemon_is_not_root_and_keeps_no_rights() -> None:
    service = read("mailrider.service")["Service"]
    assert service["User"] == "mailrider"
    assert service["CapabilityBoundingSet"] == service["AmbientCapabilities"] == ""
    assert {service[name] for name in ("NoNewPrivileges", "PrivateTmp", "ProtectHome")} == {"yes"}
    assert service["ProtectSystem"] == "strict"


def test_the_daemon_sees_the_processes_that_may_hold_its_mail() -> None:
    service = read("mailrider.service")["Service"]
    assert "ProcSubset" not in service
    assert "ProtectProc" not in service


def test_a_wrong_configuration_is_not_tried_again() -> None:
    service = read("mailrider.service")["Service"]
    assert service["Type"] == "notify"
    assert service["ExecStart"].split() == [PROGRAM, "-c", "/etc/mailrider/mailrider.conf", "run"]
    assert "78" in service["RestartPreventExitStatus"].split()
    assert service["RuntimeDirectory"] == service["StateDirectory"] == "mailrider"


def test_port_25_comes_from_systemd_for_both_families() -> None:
    socket = read("mailrider.socket")["Socket"]
    assert socket["BindIPv6Only"] == "ipv6-only"  # so that each has the address that the configuration names
    text = (UNITS / "mailrider.socket").read_text()
    assert "ListenStream=0.0.0.0:25\nListenStream=[::]:25\n" in text
