"""What packaging/monitoring has: rules and a dashboard that ask for counters that exist, a filter that nobody fools."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from mailrider.observe.metrics import Metrics
from tests.support.guessing import lines

FOLDER = Path(__file__).parents[3] / "packaging" / "monitoring"
RULES = (FOLDER / "alerts.yml").read_text()
BOARD = json.loads((FOLDER / "dashboard.json").read_text())
FILTER = FOLDER / "fail2ban" / "mailrider.conf"


def shown() -> set[str]:
    """The names of all series that there can be."""
    return {
        f"{family.name}{end}"
        for family in Metrics().registry.collect()
        for end in {"counter": ("_total",), "histogram": ("_bucket",), "info": ("_info",)}.get(family.type, ("",))
    }


def asked_for(text: str) -> set[str]:
    return set(re.findall(r"\b(?:mailrider|process)_[a-z_]+", text))


def test_rules_and_dashboard_ask_for_what_is_shown() -> None:
    expressions = [target["expr"] for panel in BOARD["panels"] for target in panel["targets"]]
    assert len(expressions) > 10
    assert asked_for("\n".join([*expressions, *re.findall(r"expr: (.*(?:\n {10}.*)*)", RULES)])) <= shown()
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])


def test_events_that_rules_ask_for_are_there_before_the_first_one() -> None:
    """`increase` finds none where a series begins with 1."""
    names = {each for found in re.findall(r'event=~?"([^"]+)"', RULES) for each in found.split("|")}
    assert len(names) > 5
    shown_at_first = Metrics().registry
    times = {name: shown_at_first.get_sample_value("mailrider_events_total", {"event": name}) for name in names}
    assert times == dict.fromkeys(names, 0.0)


@pytest.mark.parametrize("journal", [False, True])
def test_the_filter_finds_the_client_whatever_it_calls_itself(*, journal: bool) -> None:
    text = FILTER.read_text()
    place = re.search(r"^_place = (.*)$", text, re.MULTILINE)
    pattern = re.search(r"^failregex = (.*)$", text, re.MULTILINE)
    assert place is not None
    assert pattern is not None
    wanted = pattern[1].replace("%(_place)s", place[1]).replace("<ADDR>", r"(?P<address>[0-9a-f.:]+)")
    # fail2ban takes the time out of a line before it looks.
    found = [re.search(wanted, re.sub(r"^\S+Z ", " ", line)) for line in lines(journal=journal)]
    assert [None if each is None else each["address"] for each in found] == [
        "192.0.2.1",
        "192.0.2.1",
        "192.0.2.1",
        "2001:db8::1",
        None,
    ]
