"""The settings for Django that the guide shows, as they stand there."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from pathlib import Path

import pytest

from mailrider.lab.mx import LabMX
from tests.flow.django.test_backend import PYTHONS, configuration, python, queued
from tests.support.loopback import new_address

__all__ = ["configuration", "python"]  # fixtures
pytestmark = pytest.mark.skipif(not PYTHONS, reason="no Django here: make setup installs it")

GUIDE = (Path(__file__).parents[3] / "docs" / "guide.md").read_text()
CHAPTER = GUIDE.partition("### Django\n")[2].partition("\n### ")[0]
BLOCKS = re.findall(r"^```python\n(.*?)^```", CHAPTER, re.MULTILINE | re.DOTALL)
PROJECT = """
import json, sys
import django
from django.conf import settings
given = {}
exec(sys.argv[1], given)
is_new = "MAILERS" in given
if is_new and django.VERSION < (6, 1) or not is_new and django.VERSION >= (6, 1):
    sys.exit("another Django")
settings.configure(**{name: value for name, value in given.items() if name.isupper()}, USE_TZ=True)
django.setup()
from django.core.mail import send_mail
print(json.dumps(send_mail("Hi", "Hello", "shop@example.org", ["b@example.net"])))
"""


def run(python: str, block: str) -> int | None:
    """What `send_mail` returns in a project with these settings; None if they are for another Django."""
    command = [python, "-W", "error", "-c", PROJECT, block]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    if done.stderr == "another Django\n":
        return None
    assert (done.returncode, done.stderr) == (0, "")
    returned: int = json.loads(done.stdout)
    return returned


def test_the_guide_shows_both_ways_for_both() -> None:
    assert ["mailrider.django" in each for each in BLOCKS] == [False, False, True, True]
    assert ["MAILERS" in each for each in BLOCKS] == [True, False, True, False]


def test_the_backend_of_ours_takes_mail_into_the_queue(python: str, configuration: Path) -> None:
    blocks = [each.replace("/etc/mailrider/mailrider.conf", str(configuration)) for each in BLOCKS[2:]]
    returned = [run(python, each.replace("outqueue", "queue")) for each in blocks]
    assert sorted(map(str, returned)) == ["1", "None"]
    assert queued(configuration) == [("shop@example.org", "b@example.net")]


async def test_django_s_own_backend_hands_mail_in_at_the_submission_port(python: str) -> None:
    async with LabMX(address=new_address()) as server:
        blocks = [each.replace("127.0.0.1", server.address).replace("587", str(server.port)) for each in BLOCKS[:2]]
        returned = [await asyncio.to_thread(run, python, each) for each in blocks]
        assert sorted(map(str, returned)) == ["1", "None"]
        (message,) = server.messages
        assert message.sender == "shop@example.org"
