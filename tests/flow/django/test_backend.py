"""Django's mail through `mailrider.django.EmailBackend`, every warning an error.

The project runs in a process of its own, with the Django that is here; MAILRIDER_DJANGO_PYTHONS names interpreters of
other environments, that have mailrider and another Django, with colons between them.
"""

from __future__ import annotations

import asyncio
import email
import email.policy
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import mailrider.sync
from mailrider.lab.mx_script import MXScript
from tests.flow.delivery.internet import internet

if TYPE_CHECKING:
    from email.message import EmailMessage

PROJECT = Path(__file__).with_name("project.py")
PYTHONS = [
    *([sys.executable] if importlib.util.find_spec("django") else []),
    *filter(None, os.environ.get("MAILRIDER_DJANGO_PYTHONS", "").split(":")),
]
pytestmark = pytest.mark.skipif(not PYTHONS, reason="no Django here: make setup installs it")


@pytest.fixture(params=PYTHONS)
def python(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def run(python: str, what: str, **options: object) -> Any:
    command: list[str | Path] = [
        python,
        "-W",
        "error",
        "-W",
        "ignore:.*fork:DeprecationWarning",
        PROJECT,
        json.dumps(options),
        what,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def written(content: bytes) -> EmailMessage:
    return email.message_from_bytes(content, policy=email.policy.default)


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    file = tmp_path / "mailrider.conf"
    file.write_text(
        "hostname mx.example.org\n"
        "target.remote out { }\n"
        f"target.queue queue {{ target &out\nlocation {tmp_path}/q }}\n"
        f"target.queue other {{ target &out\nlocation {tmp_path}/other }}\n"
    )
    return file


def queued(file: Path, name: str = "queue") -> list[tuple[str, str]]:
    with mailrider.sync.load(file).queue(name, deliver=False) as queue:
        return [(each.sender, each.recipient) for each in queue.list()]


@pytest.mark.parametrize(
    ("what", "count", "recipients"),
    [
        ("send", 1, ["b"]),
        ("attached", 1, ["b", "c", "d"]),
        ("mass", 2, ["b", "c"]),
        ("nobody", 0, []),
        ("silent", 1, ["c"]),
    ],
)
def test_a_queue_takes_messages_and_django_hears_how_many(
    python: str, configuration: Path, what: str, count: int, recipients: list[str]
) -> None:
    assert run(python, what, config=str(configuration)) == count
    assert queued(configuration) == [("shop@example.org", f"{each}@example.net") for each in recipients]


def test_mail_for_admins_and_a_queue_by_its_name(python: str, configuration: Path) -> None:
    run(python, "admins", config=str(configuration), target="other")
    assert queued(configuration, "other") == [("errors@example.org", "admin@example.net")]
    assert queued(configuration) == []


def test_one_bad_message_stops_no_other_and_is_raised(python: str, configuration: Path) -> None:
    kind, text, notes = run(python, "error", config=str(configuration))
    assert kind == "InvalidValue"
    assert "@bad" in text
    assert notes == ["2 of 3 messages were taken"]
    assert [recipient for _, recipient in queued(configuration)] == ["b@example.net", "c@example.net"]


def test_a_line_end_in_a_subject_is_raised_and_stops_no_other_message(python: str, configuration: Path) -> None:
    assert run(python, "injected", config=str(configuration)) == ["1 of 2 messages were taken"]
    assert [recipient for _, recipient in queued(configuration)] == ["b@example.net"]


def test_before_and_after_a_fork(python: str, configuration: Path) -> None:
    assert run(python, "forked", config=str(configuration)) == [1, 0, 1]
    assert len(queued(configuration)) == 3


@pytest.mark.parametrize("what", ["send", "attached"])
async def test_a_target_delivers_at_once(python: str, what: str) -> None:
    async with internet({"example.net": [MXScript()]}) as net:
        options = {"hostname": "mx.example.org", "port": net.port, "prohibited_addresses": "none", "mx_auth": []}
        taken = await asyncio.to_thread(
            run, python, what, **options, dns={"server": [f"{net.dns.server.ip}:{net.dns.server.port}"]}
        )
        (message,) = net.mx("example.net").messages
    assert taken == 1
    assert message.sender == "shop@example.org"
    if what == "send":
        assert message.addresses == ["b@example.net"]
        assert written(message.content)["Subject"] == "Grüße"
        assert written(message.content)["To"] == "Böb <b@example.net>"
    else:
        assert message.addresses == ["b@example.net", "c@example.net", "d@example.net"]
        assert "d@example.net" not in message.content.decode()
        (attachment,) = written(message.content).iter_attachments()
        assert (attachment.get_filename(), attachment.get_content()) == ("ü.pdf", b"%PDF\r\n\0\xff")


async def test_what_a_target_does_not_deliver_is_raised(python: str) -> None:
    refuses = MXScript(recipients={"b@example.net": "550 5.1.1 Nobody"})
    async with internet({"example.net": [refuses]}) as net:
        options = {"hostname": "mx.example.org", "port": net.port, "prohibited_addresses": "none", "mx_auth": []}
        options |= {"dns": {"server": [f"{net.dns.server.ip}:{net.dns.server.port}"]}}
        kind, text = await asyncio.to_thread(run, python, "wrong", **options)
    assert (kind, text) == ("NotDelivered", "b@example.net: failed: 550 5.1.1 mx0.example.net said: Nobody")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"hostnam": "mx.example.org"}, "did you mean 'hostname'?"),
        ({}, "hostname is required"),
        ({"target": "queue", "config": "/nowhere/mailrider.conf"}, "/nowhere/mailrider.conf"),
        ({"target": "queue", "hostname": "mx.example.org"}, "unknown option hostname"),
    ],
)
def test_wrong_options_are_named(python: str, options: dict[str, object], text: str) -> None:
    kind, told = run(python, "wrong", **options)
    assert kind == "ImproperlyConfigured"
    assert text in told


def test_what_is_for_a_queue_is_for_no_other_target(python: str, configuration: Path) -> None:
    kind, told = run(python, "wrong", config=str(configuration), target="out", deliver=True)
    assert (kind, told) == ("ImproperlyConfigured", "mailrider.django: deliver is an option of queues only")
