"""The wheel as it is built: what is in it, and what it says of itself."""

from __future__ import annotations

import email
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from email.message import Message

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text()
HOME = "https://git.example.org/mailrider"


def build(folder: Path, url: str) -> zipfile.ZipFile:
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    environment = {name: value for name, value in os.environ.items() if name != "MAILRIDER_URL"}
    environment |= {"MAILRIDER_URL": url} if url else {}
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120, env=environment)
    (wheel,) = folder.glob("*.whl")
    return zipfile.ZipFile(wheel)


def metadata(wheel: zipfile.ZipFile) -> Message:
    (name,) = [each for each in wheel.namelist() if each.endswith(".dist-info/METADATA")]
    return email.message_from_bytes(wheel.read(name))


def description(told: Message) -> str:
    payload = told.get_payload(decode=True)
    assert isinstance(payload, bytes)
    return payload.decode()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    return build(tmp_path_factory.mktemp("wheel"), "")


@pytest.mark.parametrize(
    "name",
    [
        "packaging/systemd/mailrider.service",
        "packaging/systemd/mailrider.socket",
        "packaging/monitoring/alerts.yml",
        "packaging/monitoring/dashboard.json",
        "packaging/monitoring/fail2ban/mailrider.conf",
        "packaging/container/Dockerfile",
    ],
)
def test_what_is_used_beside_the_program_is_in_it(wheel: zipfile.ZipFile, name: str) -> None:
    assert wheel.read(f"mailrider/{name}") == (ROOT / name).read_bytes()


def test_it_has_the_commands_and_the_plugin_of_pytest(wheel: zipfile.ZipFile) -> None:
    (name,) = [each for each in wheel.namelist() if each.endswith("entry_points.txt")]
    text = wheel.read(name).decode()
    for line in (
        "mailrider = mailrider.cli:main",
        "mailrider-sendmail = mailrider.cli.sendmail:main",
        "mailrider = mailrider.pytest_plugin",
    ):
        assert line in text.splitlines()


def test_it_names_no_place_unless_somebody_says_where_it_is(wheel: zipfile.ZipFile) -> None:
    told = metadata(wheel)
    assert told.get_all("Project-URL") is None
    assert description(told).strip() == README.strip()


def test_who_says_where_it_is_gets_links_that_are_whole(tmp_path: Path) -> None:
    told = metadata(build(tmp_path, f"{HOME}/"))
    urls = dict(each.split(", ") for each in told.get_all("Project-URL", []))
    assert urls == {
        "Source": HOME,
        "Documentation": f"{HOME}/blob/main/docs/guide.md",
        "Changelog": f"{HOME}/blob/main/CHANGELOG.md",
    }
    links = re.findall(r"\]\(([^)]+)\)", description(told))
    assert f"{HOME}/blob/main/docs/guide.md#python-programs" in links
    assert all(link.startswith(("https://", "#")) for link in links)
    paths = [link.removeprefix(f"{HOME}/blob/main/").partition("#")[0] for link in links if link.startswith(HOME)]
    assert all((ROOT / path).exists() for path in paths)
