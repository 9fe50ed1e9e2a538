"""Safe unless switched off: what a program gets that says nothing of `mx_auth`, and what a configuration file gets."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import mailrider
from mailrider.app.assemble import open_engine, open_remote
from mailrider.config import loads
from mailrider.delivery.settings import RemoteSettings
from mailrider.dns.settings import DNSSettings
from mailrider.errors import ConfigError
from mailrider.model.event import WARNING, NothingEnforced
from mailrider.observe.describe import describe

if TYPE_CHECKING:
    from mailrider.model.event import Event
    from mailrider.policy.settings import MXAuth

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def in_file(line: str) -> MXAuth:
    settings = loads(f"hostname mx.example.org\ntarget.remote r {{\n{line}\n}}\n").target("r").settings
    assert isinstance(settings, RemoteSettings)
    return settings.mx_auth


def test_a_program_that_says_nothing_is_safe() -> None:
    expected = (mailrider.MTASTS(cache="ram"), mailrider.Dane(), mailrider.DNSSEC())
    assert mailrider.Remote(hostname="mx.example.org").settings.mx_auth.policies == expected
    assert mailrider.RemoteSettings(hostname="mx.example.org").mx_auth.policies == expected


@pytest.mark.parametrize("nothing", [None, []])
def test_a_program_turns_it_off_with_none_and_with_an_empty_list(nothing: list[mailrider.Dane] | None) -> None:
    auth = mailrider.Remote(hostname="mx.example.org", mx_auth=nothing).settings.mx_auth
    assert (auth.policies, auth.is_stated) == ((), True)


def test_a_file_that_says_nothing_enforces_nothing_and_one_that_says_off_says_so() -> None:
    assert (in_file("").policies, in_file("").is_stated) == ((), False)
    assert (in_file("mx_auth off").policies, in_file("mx_auth off").is_stated) == ((), True)


@pytest.mark.parametrize("block", ["mx_auth off {\ndane\n}", "target.remote off {\n}", "limits off {\n}"])
def test_no_block_may_be_named_off(block: str) -> None:
    with pytest.raises(ConfigError, match='no block may be named "off"'):
        loads(f"hostname mx.example.org\n{block}\n")


@pytest.mark.parametrize(
    ("line", "warned"), [("", True), ("mx_auth off", False), ("mx_auth {\ndane\n}", False), ("mx_auth { }", False)]
)
async def test_the_log_warns_once_at_the_start_of_a_target_that_enforces_nothing(line: str, warned: bool) -> None:
    settings = loads(f"hostname mx.example.org\ntarget.remote r {{\n{line}\n}}\n").target("r").settings
    assert isinstance(settings, RemoteSettings)
    events: list[Event] = []
    async with (
        open_engine(DNSSettings(server=["192.0.2.1"]), events.append) as engine,
        open_remote(settings, engine, "target r"),
    ):
        pass
    told = [describe(event) for event in events if isinstance(event, NothingEnforced)]
    assert [(line.level, line.name, line.fields["target"]) for line in told] == (
        [(WARNING, "nothing_enforced", "target r")] if warned else []
    )


async def test_a_program_is_warned_of_nothing() -> None:
    events: list[Event] = []
    dns = DNSSettings(server=["192.0.2.1"])
    async with mailrider.Remote(hostname="mx.example.org", mx_auth=None, dns=dns, on_event=events.append):
        pass
    assert not [event for event in events if isinstance(event, NothingEnforced)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_example_has_mx_auth(page: Path) -> None:
    blocks = re.findall(r"^```(?:conf)?\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    for block in blocks:
        for target in re.findall(r"^ *target\.remote[^\n]*\{\n(.*?)^\}", block, re.MULTILINE | re.DOTALL):
            assert "mx_auth" in target, block
