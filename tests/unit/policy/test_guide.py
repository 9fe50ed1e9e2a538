"""What the guide to security levels promises is there: its configuration loads, its names exist, its links lead."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mailrider.config import loads
from mailrider.delivery.settings import RemoteSettings
from mailrider.model import event as events
from mailrider.model.security import MXLevel, TLSLevel
from mailrider.observe.metrics import Metrics
from mailrider.policy.sts import events as mtasts_events

GUIDE = Path(__file__).parents[3] / "docs/security-levels.md"
TEXT = GUIDE.read_text()
BLOCKS = re.findall(r"```\n(.*?)```", TEXT, re.DOTALL)
CONFIGURATIONS = [block for block in BLOCKS if not block.startswith("$")]


@pytest.mark.parametrize("block", CONFIGURATIONS)
def test_its_configurations_load(block: str) -> None:
    loads(f"state_dir /tmp/x\n{block}")


def test_the_configuration_that_suits_most_has_all_four_policies() -> None:
    settings = loads(f"state_dir /tmp/x\n{CONFIGURATIONS[0]}").target("outbound").settings
    assert isinstance(settings, RemoteSettings)
    assert settings.mx_auth is not None
    assert len(settings.mx_auth.policies) == 4


def test_its_counters_exist() -> None:
    known = {f"{family.name}_total" for family in Metrics().registry.collect()}
    named = set(re.findall(r"mailrider_[a-z_]+_total", TEXT))
    assert len(named) == 7
    assert named <= known


def test_its_lines_of_the_log_exist() -> None:
    known = {
        kind.kind_name() for module in (events, mtasts_events) for kind in vars(module).values() if _is_event(kind)
    }
    named = set(re.findall(r"\(`([a-z_]+)`(?:, `([a-z_]+)`)?\)", TEXT))
    words = {word for pair in named for word in pair if word and "_" in word}
    renamed = {"refused_by_policy", "lookup_failed"}  # shorter in the log than in the code
    assert words - renamed <= known
    assert len(words) >= 6


def _is_event(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, events.Event)


def test_its_levels_are_those_of_the_code() -> None:
    for level in (*MXLevel, *TLSLevel):
        assert f"`{level.word}`" in TEXT


def test_its_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", TEXT)
    assert links
    assert all((GUIDE.parent / link).exists() for link in links)
