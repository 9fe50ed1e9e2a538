"""The Dockerfile and what belongs to it, as they stand: nothing is built here, since that needs Docker or a mirror.

Every path that is copied exists, every package has that name in Debian, the command is ours, nothing runs as root; the
configuration loads, and the health check finds out whether a daemon answers.
"""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest

from mailrider.cli.main import cli
from mailrider.config import loads
from mailrider.lab.mx import LabMX
from mailrider.lab.mx_script import Close, MXScript, Stage

ROOT = Path(__file__).parents[3]
CONTAINER = ROOT / "packaging" / "container"
COMPOSE = (CONTAINER / "compose.yaml").read_text()


def instructions(text: str) -> list[tuple[str, str]]:
    """The Dockerfile's lines, continued ones as one, without comments."""
    lines = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ").splitlines()
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines if line.strip()]


STEPS = instructions((CONTAINER / "Dockerfile").read_text())
LAST_STAGE = STEPS[max(index for index, (name, _) in enumerate(STEPS) if name == "FROM") :]


def only(name: str) -> str:
    (found,) = [text for each, text in LAST_STAGE if each == name]
    return found


def packages() -> set[str]:
    runs = [text for name, text in STEPS if name == "RUN" and "apt-get install" in text]
    return {
        word
        for text in runs
        for word in text.partition("apt-get install")[2].partition("&&")[0].split()
        if not word.startswith("-")
    }


def test_no_host_is_named_that_packages_come_from() -> None:
    assert {text.split()[0] for name, text in STEPS if name == "FROM"} == {"debian:bookworm-slim"}
    assert "://" not in (CONTAINER / "Dockerfile").read_text()


def test_what_is_copied_exists_and_is_all_that_the_build_needs() -> None:
    copied = [word for name, text in STEPS if name == "COPY" and "--from" not in text for word in text.split()[:-1]]
    paths = {word for word in copied if not word.startswith("--")}
    assert all((ROOT / path).exists() for path in paths)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    included = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    needed = {"pyproject.toml", "src", "hatch_build.py", "README.md", *project["project"]["license-files"], *included}
    assert {path for path in needed if not any(path == each or path.startswith(f"{each}/") for each in paths)} == set()


def test_docker_is_given_what_is_copied_and_nothing_else() -> None:
    first, *others = (CONTAINER / "Dockerfile.dockerignore").read_text().split()
    copied = [word for name, text in STEPS if name == "COPY" and "--from" not in text for word in text.split()[:-1]]
    assert first == "*"
    allowed = [path.removeprefix("!") for path in others]
    assert all(
        any(path == each or path.startswith(f"{each}/") for each in allowed) for path in copied if path[:2] != "--"
    )
    assert {each for each in allowed if not (ROOT / each).exists()} == set()


@pytest.mark.skipif(shutil.which("apt-cache") is None, reason="no apt here")
def test_debian_has_the_packages() -> None:
    assert {"libunbound8", "dns-root-data", "ca-certificates"} <= packages()
    command = ["apt-cache", "show", "--no-all-versions", *packages()]
    subprocess.run(command, check=True, capture_output=True, timeout=200)


def test_it_runs_as_a_user_that_owns_its_folders() -> None:
    user = only("USER")
    steps = [name for name, _ in LAST_STAGE]
    assert "RUN" not in steps[steps.index("USER") :]
    (made,) = [text for name, text in LAST_STAGE if name == "RUN" and "useradd" in text]
    assert f"--uid 990 {user}" in made
    assert json.loads(only("VOLUME")) == ["/var/lib/mailrider"]
    assert f"--owner {user} --group {user} --mode 0700 /var/lib/mailrider" in " ".join(made.split())


def test_the_command_is_ours_and_is_stopped_in_order() -> None:
    program, option, file, command = json.loads(only("ENTRYPOINT")) + json.loads(only("CMD"))
    assert (Path(program).name, option, only("STOPSIGNAL")) == ("mailrider", "-c", "SIGTERM")
    assert cli.get_command(click.Context(cli), command) is not None
    (copied,) = [text.split()[0] for name, text in LAST_STAGE if name == "COPY" and text.split()[-1] == file]
    assert (ROOT / copied).is_file()


def test_the_configuration_loads_and_enforces_what_domains_offer() -> None:
    text = (CONTAINER / "mailrider.conf").read_text()
    loads(text, environment={})
    assert {"mtasts", "dane", "dnssec"} <= set(text.split())
    assert f":{only('EXPOSE')} {{" in text


def test_compose_gives_it_a_volume_no_rights_and_time_to_end() -> None:
    for line in ("read_only: true", "cap_drop: [ALL]", "state:/var/lib/mailrider", "stop_grace_period: 90s"):
        assert line in COMPOSE
    assert "ports:" not in COMPOSE
    dockerfile = re.search(r"dockerfile: (\S+)", COMPOSE)
    assert dockerfile is not None
    assert (ROOT / dockerfile[1]).samefile(CONTAINER / "Dockerfile")
    assert f"uid={990}" in COMPOSE


def healthy(port: int) -> int:
    command = [sys.executable, str(CONTAINER / "healthy"), str(port)]
    return subprocess.run(command, check=False, capture_output=True, timeout=200).returncode


async def test_the_health_check_tells_a_daemon_that_answers_from_one_that_does_not() -> None:
    assert shlex.split(json.loads(only("HEALTHCHECK").partition("CMD")[2])[0]) == ["/usr/local/bin/healthy"]
    async with LabMX(MXScript(), "127.0.0.1") as well:
        assert await asyncio.to_thread(healthy, well.port) == 0
    assert await asyncio.to_thread(healthy, well.port) == 1
    async with LabMX(MXScript(replies={Stage.EHLO: Close("421 4.3.0 Ill")}), "127.0.0.1") as ill:
        assert await asyncio.to_thread(healthy, ill.port) == 1


def test_every_dependency_has_a_lower_bound_that_the_tested_version_meets() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    tested = dict(re.findall(r"^([\w.-]+)==([\d.]+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    tested = {name.lower().replace("_", "-"): version for name, version in tested.items()}
    for dependency in project["dependencies"]:
        name, least = dependency.split(">=")
        assert numbers(least) <= numbers(tested[name.lower()]), dependency


def numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))
