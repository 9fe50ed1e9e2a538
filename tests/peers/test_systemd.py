"""The units under a real systemd: started and ready, reachable at port 25 without root, reloaded, stopped."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.peers.conftest import leave_out
from tests.peers.process import wait_until
from tests.peers.systemd import may_start, start_systemd

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.peers.systemd import Machine

SERVICE = "mailrider.service"
CONFIGURATION = """
hostname {hostname}
dns {{
    server 127.0.0.1:9
}}
target.smtp next {{
    host tcp://127.0.0.1:9
    starttls no
    min_tls_level none
}}
target.queue queue {{
    target &next
}}
smtp tcp://0.0.0.0:25 tcp://[::]:25 {{
    destination example.net {{
        deliver_to &queue
    }}
    reject
}}
submission unix:///run/mailrider/submission.sock {{
    deliver_to &queue
}}
"""
SUBMIT = """
import smtplib
with smtplib.SMTP({address!r}, 25, "client.example", timeout=200) as client:
    client.sendmail("a@example.org", ["b@example.net"], "Subject: hello\\n\\nhello\\n")
    print(client.noop()[0])
"""
GREETING = """
import socket
with socket.create_connection(({address!r}, 25), 30) as client:
    print(client.recv(100).decode().strip())
"""


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    """With the program installed as the guide says, and running."""
    if not may_start():
        leave_out("systemd needs namespaces of its own")
    with start_systemd() as booted:
        configure(booted)
        booted.run(
            *("useradd", "--system", "--home-dir", "/var/lib/mailrider", "--shell", "/usr/sbin/nologin", "mailrider")
        )
        booted.run("systemctl", "daemon-reload")
        booted.run("systemctl", "enable", "--now", "mailrider.socket", SERVICE)
        yield booted


def configure(machine: Machine, hostname: str = "mx.example.org", more: str = "") -> None:
    machine.write("/etc/mailrider/mailrider.conf", CONFIGURATION.format(hostname=hostname) + more)


def greeting(machine: Machine) -> str:
    return machine.python(GREETING.format(address="127.0.0.1"))


def queued(machine: Machine) -> int:
    return (
        len(machine.run("runuser", "-u", "mailrider", "--", "mailrider", "queue", "list", "--json").stdout.split("\n"))
        - 1
    )


def test_it_is_ready_when_systemd_says_so(machine: Machine) -> None:
    assert machine.show(SERVICE, "ActiveState") == "active"
    assert machine.show(SERVICE, "Type") == "notify"
    assert machine.show(SERVICE, "StatusText") == "open endpoints: 2"
    assert "socket_unused" not in machine.journal()


def test_it_runs_without_root_and_without_any_right(machine: Machine) -> None:
    status = machine.run("cat", f"/proc/{machine.show(SERVICE, 'MainPID')}/status").stdout
    values = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    uid = machine.run("id", "-u", "mailrider").stdout.strip()
    assert set(values["Uid"].split()) == {uid} != {"0"}
    assert {int(values[name], 16) for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert values["NoNewPrivs"].strip() == "1"
    assert values["Seccomp"].strip() == "2"


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_mail_comes_in_at_port_25(machine: Machine, address: str) -> None:
    before = queued(machine)
    assert machine.python(SUBMIT.format(address=address)) == "250\n"
    assert queued(machine) == before + 1


def test_every_user_hands_in_mail_by_sendmail(machine: Machine) -> None:
    before = queued(machine)
    machine.run(
        *("runuser", "-u", "nobody", "--", "mailrider", "sendmail", "-i", "b@example.net"),
        input="Subject: cron\n\nout\n",
    )
    assert queued(machine) == before + 1


def test_a_reload_takes_the_new_configuration_or_keeps_the_old_one(machine: Machine) -> None:
    process = machine.show(SERVICE, "MainPID")
    configure(machine, "new.example.org")
    machine.run("systemctl", "reload", SERVICE)
    wait_until(lambda: "new.example.org" in greeting(machine), "the new configuration")
    configure(machine, "wrong.example.org", "nonsense\n")
    machine.run("systemctl", "reload", SERVICE)
    wait_until(lambda: "reload_refused" in machine.journal(), "the refusal")
    assert "new.example.org" in greeting(machine)
    configure(machine)
    machine.run("systemctl", "reload", SERVICE)
    wait_until(lambda: "mx.example.org" in greeting(machine), "the old configuration")
    assert machine.show(SERVICE, "MainPID") == process


def test_when_it_dies_it_comes_back_with_its_queue_and_clients_wait(machine: Machine) -> None:
    before = queued(machine)
    machine.run("kill", "-KILL", machine.show(SERVICE, "MainPID"))
    assert machine.python(SUBMIT.format(address="127.0.0.1")) == "250\n"
    assert machine.show(SERVICE, "NRestarts") in ("0", "1")  # by systemd's timer, or by the socket before it
    assert queued(machine) == before + 1


def test_it_stops_when_told_and_its_socket_starts_it_again(machine: Machine) -> None:
    machine.run("systemctl", "stop", SERVICE)
    assert machine.show(SERVICE, "ActiveState") == "inactive"
    assert machine.show(SERVICE, "Result") == "success"
    assert machine.show(SERVICE, "ExecMainStatus") == "0"
    assert greeting(machine).startswith("220 mx.example.org ")
    assert machine.show(SERVICE, "ActiveState") == "active"


def test_a_wrong_configuration_is_told_once(machine: Machine) -> None:
    machine.run("systemctl", "stop", "mailrider.socket", SERVICE)
    configure(machine, more="nonsense\n")
    assert machine.run("systemctl", "start", SERVICE, check=False).returncode != 0
    assert machine.show(SERVICE, "ExecMainStatus") == "78"
    assert machine.show(SERVICE, "ActiveState") == "failed"
    assert machine.show(SERVICE, "NRestarts") == "0"
    assert 'unknown directive "nonsense"' in machine.journal()


def test_with_workers_systemd_hears_of_one_process_and_all_of_it_stops(machine: Machine) -> None:
    configure(machine, more="workers 2\n")
    machine.run("systemctl", "reset-failed", SERVICE)
    machine.run("systemctl", "start", "mailrider.socket", SERVICE)
    assert machine.show(SERVICE, "StatusText") == "workers: 2"
    supervisor = machine.show(SERVICE, "MainPID")
    workers = machine.run("pgrep", "-P", supervisor).stdout.split()
    assert len(workers) == 2
    assert machine.python(SUBMIT.format(address="127.0.0.1")) == "250\n"
    machine.run("kill", "-KILL", workers[0])
    wait_until(lambda: machine.journal().count("worker_ready") == 3, "the worker that was started again")
    assert "worker_died worker=" in machine.journal()
    assert machine.show(SERVICE, "MainPID") == supervisor
    machine.run("systemctl", "stop", SERVICE)
    assert machine.show(SERVICE, "Result") == "success"
    assert machine.run("pgrep", "-u", "mailrider", check=False).stdout == ""
