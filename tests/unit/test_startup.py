"""What starting costs: expensive libraries are imported where they are used, and nowhere else.

Seconds depend on the machine (`bench.startup` measures them); what is imported does not.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

import mailrider
from mailrider.cli.main import COMMANDS, cli

if TYPE_CHECKING:
    from collections.abc import Iterable

DELIVERS = ("mailrider.app.assemble", "mailrider.app.targets", "mailrider.delivery.remote")
HEAVY = ("OpenSSL", "aiohttp", "argon2", "cryptography", "dns", "prometheus_client", "yarl", "mailrider.lab")
LIBRARY = ("click", "rich", "uvloop", "sqlite3")
LOOK = "import atexit, json, sys\natexit.register(lambda: print(json.dumps([*sys.modules]), file=sys.stderr))"
CONFIGURATION = """
hostname mx.example.org
state_dir {folder}
runtime_dir {folder}
target.queue queue {{
    target target.remote {{
        mx_auth {{
            mtasts
            dane
        }}
    }}
}}
submission unix://{folder}/sendmail.socket {{
    check {{
        header Subject *buy* reject
    }}
    deliver_to &queue
}}
"""


def imported(code: str, names: Iterable[str], *, ends: int = 0) -> set[str]:
    """Which of the modules a program has imported when it ends."""
    program = [sys.executable, "-c", f"{LOOK}\n{code}"]
    # Without coverage, which imports modules of its own.
    environment = {name: text for name, text in os.environ.items() if not name.startswith("COVERAGE")}
    ran = subprocess.run(
        program, input="Subject: a\n\nb\n", capture_output=True, text=True, check=False, env=environment
    )
    assert ran.returncode == ends, ran.stderr
    return set(names) & set(json.loads(ran.stderr.splitlines()[-1]))


def command(*arguments: object) -> str:
    return f"from mailrider.cli import main\nmain({list(map(str, arguments))!r})"


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    path = tmp_path / "mailrider.conf"
    path.write_text(CONFIGURATION.format(folder=tmp_path))
    return path


def test_import_mailrider_imports_nothing_else() -> None:
    code = "import mailrider, sys\nassert [each for each in sys.modules if each.startswith('mailrider.')] == []"
    assert imported(code, [*HEAVY, *LIBRARY, "asyncio", "importlib.metadata"]) == set()


def test_a_program_that_may_send_pays_for_delivery_when_it_does() -> None:
    code = "from mailrider import Queue, Remote, Smarthost\nRemote(hostname='mx.example.org')"
    assert imported(code, [*HEAVY, *LIBRARY, *DELIVERS]) == set()


def test_sendmail_imports_neither_the_queue_nor_what_delivers(configuration: Path) -> None:
    code = command("-c", configuration, "sendmail", "bob@example.org")
    unused = [*HEAVY, *DELIVERS, "asyncio", "rich", "sqlite3", "ssl", "uvloop"]
    assert imported(code, unused, ends=os.EX_TEMPFAIL) == set()


@pytest.mark.parametrize("options", [(), ("--json",)], ids=["text", "json"])
def test_queue_list_imports_nothing_that_delivers(configuration: Path, options: tuple[str, ...]) -> None:
    fill = f"""
import asyncio, mailrider
async def main():
    async with mailrider.load({str(configuration)!r}).queue(deliver=False) as queue:
        await queue.submit(b"Subject: a", sender="a@example.org", recipients=["b@example.net"])
asyncio.run(main())
"""
    imported(fill, [])
    code = command("-c", configuration, "queue", "list", *options)
    assert imported(code, [*HEAVY, *DELIVERS, "mailrider.observe.log", "rich", "ssl", "uvloop"]) == (
        {"rich", "ssl"} - ({"rich"} if options else set())
    )


def test_help_of_one_command_does_not_import_the_others() -> None:
    assert imported(command("auth", "--help"), ["mailrider.cli.queue", "mailrider.cli.run", *DELIVERS]) == set()


def test_a_target_without_mta_sts_does_without_an_http_client() -> None:
    code = """
import asyncio, mailrider
async def main():
    async with mailrider.Remote(hostname="mx.example.org", mx_auth=[mailrider.Dane()]):
        pass
asyncio.run(main())
"""
    assert imported(code, ["aiohttp", "prometheus_client"]) == set()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_found_by_its_name(name: str) -> None:
    found = cli.get_command(click.Context(cli), name)
    assert found is not None
    assert found.name == name


def test_a_command_that_there_is_not_is_none() -> None:
    assert cli.get_command(click.Context(cli), "nothing") is None


# --- The package's names --------------------------------------------------------------------------


def declared() -> dict[str, tuple[str, str]]:
    """The names that type checkers see, with the module and the name there."""
    tree = ast.parse(Path(mailrider.__file__).read_text())
    imports = [each for each in ast.walk(tree) if isinstance(each, ast.ImportFrom) and each.module]
    return {
        alias.asname or alias.name: (each.module or "", alias.name)
        for each in imports
        if (each.module or "").startswith("mailrider.")
        for alias in each.names
    }


@pytest.mark.parametrize("name", mailrider.__all__)
def test_a_name_is_what_type_checkers_take_it_for(name: str) -> None:
    module, inside = declared()[name]
    assert getattr(mailrider, name) is getattr(sys.modules[module], inside)


def test_type_checkers_see_all_names_and_no_others() -> None:
    assert set(declared()) == set(mailrider.__all__)
    assert set(dir(mailrider)) >= {*mailrider.__all__, "__version__"}


def test_a_name_that_there_is_not_is_an_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Remotes'"):
        _ = mailrider.Remotes  # type: ignore[attr-defined]
