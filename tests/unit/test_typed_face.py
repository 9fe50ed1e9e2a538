"""The library as a type checker sees it: what is misspelt or of a wrong type is found before it runs."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
import typing
from pathlib import Path

import pytest

import mailrider
from mailrider import events
from mailrider.app.directives import QueueDirectives, RemoteDirectives, SmarthostDirectives
from mailrider.model.event import Event
from mailrider.settings import directive
from mailrider.settings.directive import Settings, directives_of

SOURCE = Path(mailrider.__file__).parent
CACHE = Path(__file__).parents[2] / ".cache"

CONSUMER = """
import asyncio

import mailrider
import mailrider.sync
from mailrider import events


def listen(event: events.Event) -> None:
    if isinstance(event, events.RecipientDone):
        print(event.outcome.status)
        print(event.outcom.status)  # wrong: a field of an event


def show(text: str) -> None:
    print(text)


async def main() -> None:
    remote = mailrider.Remote(hostname="mx.example.org", mx_auth=[mailrider.Dane()], connect_timeout=30)
    async with remote as opened:
        report = await opened.send(b"", sender="a@example.org", recipients=["b@example.net"])
        print(report[0].status)
        print(report[0].stauts)  # wrong: a field of a result
    mailrider.Remote(hostname="mx.example.org", conect_timeout=30)  # wrong: a directive's name
    mailrider.Smarthost(host=["tls://smtp.example.org:465"], port=465)  # wrong: another target's directive
    mailrider.Queue(target=remote.settings, max_parallelism="many")  # wrong: a directive's type
    mailrider.RemoteSettings(hostnam="mx.example.org")  # wrong: a name in settings
    mailrider.Remote(hostname="mx.example.org", on_event=show)  # wrong: a listener's argument
    listener: mailrider.Emit = listen
    configuration = mailrider.load()
    async with configuration.target("outbound", mailrider.Queue) as queue:
        print(await queue.submit(b"", sender="a@example.org", recipients=["b@example.net"]))
        await queue.send(b"", sender="a@example.org", recipients=["b@example.net"])  # wrong: a queue sends nothing
    async with configuration.target("outbound", on_event=listener) as either:
        if not isinstance(either, mailrider.Queue):
            await either.send(b"", sender="a@example.org", recipients=["b@example.net"])
    print(mailrider.Remotes)  # wrong: a name in the package


def wait(remote: mailrider.sync.Remote, queue: mailrider.sync.Queue) -> str:
    with remote as opened:
        report = opened.send(b"", sender="a@example.org", recipients=["b@example.net"], requiretls=True)
        print(report[0].status)
        opened.send(b"", sender="a@example.org", recipients=["b@example.net"], require_tls=True)  # wrong: an option
    queue.cancel(1)  # wrong: a type
    with mailrider.sync.load().target("outbound", mailrider.sync.Queue) as loaded:
        print(loaded.show(""), loaded.list(domain="example.net")[0].recipient)
    return queue.submit(b"", sender="a@example.org", recipients=["b@example.net"], id=queue.new_id())


asyncio.run(main())
"""
WRONG = {number for number, line in enumerate(CONSUMER.splitlines(), 1) if "# wrong: " in line}


def complaints(output: str, path: Path) -> set[int]:
    """The lines of a file that a type checker finds errors in."""
    return {int(found[1]) for found in re.finditer(rf"{re.escape(path.name)}:(\d+)(?::\d+)?(?: -|:) error", output)}


@pytest.fixture
def consumer(tmp_path: Path) -> Path:
    path = tmp_path / "consumer.py"
    path.write_text(CONSUMER)
    return path


@pytest.mark.timeout(600)
def test_mypy_finds_each_mistake_and_nothing_else(consumer: Path) -> None:
    program = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(CACHE / "mypy-consumer"), str(consumer)]
    ran = subprocess.run(program, capture_output=True, text=True, check=False, cwd=consumer.parent)
    assert complaints(ran.stdout, consumer) == WRONG, ran.stdout + ran.stderr


@pytest.mark.timeout(600)
def test_pyright_finds_each_mistake_and_nothing_else(consumer: Path) -> None:
    pyright = Path(sys.executable).with_name("pyright")  # it needs node, and its first run fetches itself from npm
    there = pyright.exists() and not subprocess.run([pyright, "--version"], capture_output=True, check=False).returncode
    if not there and not os.environ.get("CI"):
        pytest.skip("no pyright here: it needs node, and npm once")
    program = [str(pyright), "--pythonpath", sys.executable, str(consumer)]
    ran = subprocess.run(program, capture_output=True, text=True, check=False, cwd=consumer.parent)
    assert complaints(ran.stdout, consumer) == WRONG, ran.stdout + ran.stderr


# --- Constructors and directives ------------------------------------------------------------------


def aliases() -> dict[str, str]:
    """What each alias of `Setting[holds, takes]` in `settings.directive` takes."""
    tree = ast.parse(Path(directive.__file__).read_text())
    assigned = [
        each for each in ast.walk(tree) if isinstance(each, ast.Assign) and isinstance(each.value, ast.Subscript)
    ]
    return {ast.unparse(each.targets[0]): _takes(each.value) for each in assigned if _is_setting(each.value)}


def _is_setting(annotation: ast.expr) -> bool:
    return isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "Setting"


def _takes(annotation: ast.expr) -> str:
    assert isinstance(annotation, ast.Subscript)
    assert isinstance(annotation.slice, ast.Tuple)
    return ast.unparse(annotation.slice.elts[1])


def declared(cls: type[Settings]) -> dict[str, str]:
    """What each directive of a settings class takes, as its field says."""
    module = importlib.import_module(cls.__module__)
    tree = ast.parse(Path(str(module.__file__)).read_text())
    body = next(each.body for each in tree.body if isinstance(each, ast.ClassDef) and each.name == cls.__name__)
    fields = {ast.unparse(each.target): each.annotation for each in body if isinstance(each, ast.AnnAssign)}
    known = aliases()

    def taken(annotation: ast.expr) -> str:
        match annotation:
            case ast.Subscript(ast.Name("Setting")):
                return _takes(annotation)
            case ast.Subscript(ast.Name("Maybe"), held):
                return f"{ast.unparse(held)} | None"
            case _:
                return known[ast.unparse(annotation)]

    return {name: taken(fields[name]) for name in directives_of(cls)}


@pytest.mark.parametrize(
    ("arguments", "cls"),
    [
        (RemoteDirectives, mailrider.RemoteSettings),
        (SmarthostDirectives, mailrider.SmarthostSettings),
        (QueueDirectives, mailrider.QueueSettings),
    ],
)
def test_a_constructor_takes_the_directives_of_its_settings(arguments: type, cls: type[Settings]) -> None:
    said = {
        name: each.__forward_arg__ if isinstance(each, typing.ForwardRef) else str(each)
        for name, each in arguments.__annotations__.items()
    }
    assert said == declared(cls), f"app/directives.py says otherwise than {cls.__name__}"


# --- Events ---------------------------------------------------------------------------------------


PUBLIC = {name for name in vars(events) if name.isidentifier() and not name.startswith("_")}


def test_every_event_is_public() -> None:
    classes = {
        each.name
        for path in SOURCE.rglob("*.py")
        if path.relative_to(SOURCE).parts[0] not in ("lab", "testing")
        for each in ast.parse(path.read_text()).body
        if isinstance(each, ast.ClassDef) and "Event" in map(ast.unparse, each.bases)
    }
    assert classes | {"Event", "Emit"} == PUBLIC, "add it to mailrider/events.py"


@pytest.mark.parametrize("name", sorted(PUBLIC - {"Emit"}))
def test_an_event_is_one(name: str) -> None:
    assert issubclass(getattr(events, name), Event)
