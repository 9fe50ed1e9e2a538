"""Prometheus takes our rules, and fail2ban finds who guesses passwords."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

from tests.peers.conftest import leave_out
from tests.support.guessing import lines

FOLDER = Path(__file__).parents[2] / "packaging" / "monitoring"
PROMTOOL = Path("/usr/bin/promtool")
FAIL2BAN = Path("/usr/bin/fail2ban-regex")


def test_prometheus_takes_the_rules() -> None:
    if not PROMTOOL.exists():
        leave_out("not installed: Prometheus (make test installs it)")
    subprocess.run([PROMTOOL, "check", "rules", FOLDER / "alerts.yml"], check=True)


def test_fail2ban_finds_the_clients_and_nobody_whom_they_name(tmp_path: Path) -> None:
    if not FAIL2BAN.exists():
        leave_out("not installed: fail2ban (make test installs it)")
    log = tmp_path / "log"
    for before, journal in (("", False), ("Nov 30 10:00:00 mx mailrider[12]: ", True)):
        log.write_text("".join(f"{before}{line}\n" for line in lines(journal=journal)))
        command = [str(FAIL2BAN), "-o", "ip", str(log), str(FOLDER / "fail2ban" / "mailrider.conf")]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        assert done.stdout.split() == ["192.0.2.1", "192.0.2.1", "192.0.2.1", "2001:db8::1"]


def test_prometheus_understands_what_the_dashboard_asks(tmp_path: Path) -> None:
    if not PROMTOOL.exists():
        leave_out("not installed: Prometheus (make test installs it)")
    board = json.loads((FOLDER / "dashboard.json").read_text())
    questions = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    filled = [re.sub(r"\$\{?__\w+\}?", "5m", each) for each in questions]
    rules = [{"record": f"panel:{number}", "expr": each} for number, each in enumerate(filled)]
    # JSON is YAML as well.
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = subprocess.run(
        [PROMTOOL, "check", "rules", tmp_path / "rules.yml"], check=True, capture_output=True, text=True
    )
    assert f"{len(questions)} rules found" in done.stdout
