"""What a configuration bounds, when several workers serve it; and what `check` says of their number."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from mailrider.app.check.finding import Level
from mailrider.app.check.local import check_workers
from mailrider.app.shared_limits import count_workers, for_one_worker
from mailrider.errors import ConfigError
from tests.unit.config.reading import read

if TYPE_CHECKING:
    from mailrider.config import Configuration

TEXT = """hostname a.test
openmetrics tcp://127.0.0.1:9749
target.remote out {
    max_connections_per_host 20
}
target.queue queue {
    target &out
    max_parallelism 16
}
target.queue inner {
    target target.smtp {
        host tcp://127.0.0.1:25
        starttls no
        min_tls_level none
        max_connections_per_host 3
    }
}
submission tcp://127.0.0.1:587 {
    max_connections 1000
    max_client_connections 1
    deliver_to &queue
}
"""


def settings(configuration: Configuration, name: str) -> Any:
    return configuration.instances[name].settings


@pytest.mark.parametrize(("line", "workers"), [("", 1), ("workers 1", 1), ("workers 3", 3), ("workers auto", 8)])
def test_how_many_workers_are_asked_for(line: str, workers: int) -> None:
    assert count_workers(read(f"{line}\n{TEXT}"), lambda: 8) == workers


@pytest.mark.parametrize(
    "block",
    [
        "target.remote other {{ limits {{\nall rate 1 1s\n}}\n}}",
        "target.queue other {{\ntarget target.remote {{\nlimits {{\nall rate 1 1s\n}}\n}}\n}}",
        "limits shared {{\nall rate 1 1s\n}}\nsmtp tcp://127.0.0.1:25 {{\nlimits &shared\ndeliver_to &queue\n}}",
    ],
    ids=["a target", "a target within a queue", "an endpoint"],
)
def test_limits_are_not_counted_for_each_worker(block: str) -> None:
    text = TEXT + block.replace("{{", "{").replace("}}", "}").replace("remote other { limits", "remote other {\nlimits")
    assert count_workers(read(text), lambda: 8) == 1
    with pytest.raises(ConfigError, match="limits are not yet counted over workers, and there would be 2"):
        count_workers(read(f"workers 2\n{text}"), lambda: 8)


def test_a_worker_has_its_part_of_every_bound_and_no_counters_to_show() -> None:
    whole = read(TEXT)
    part = for_one_worker(whole, 4)
    assert settings(part, "out").max_connections_per_host == 5
    assert settings(part, "queue").max_parallelism == 4
    assert settings(part, "inner").target.max_connections_per_host == 1
    (door,) = part.endpoints
    assert (door.settings.max_connections, door.settings.max_client_connections) == (250, 1)  # type: ignore[attr-defined]
    assert part.globals.openmetrics is None
    assert door.position is whole.endpoints[0].position


@pytest.mark.parametrize(
    ("line", "usable", "level", "text"),
    [
        ("workers auto", 3, Level.OK, "auto comes to 3 here"),
        ("workers 4", 2, Level.NOTE, "4 workers for 2 processors"),
        ("workers 2\ntarget.remote x {\nlimits {\nall rate 1 1s\n}\n}", 2, Level.ERROR, "limits are not yet counted"),
    ],
)
def test_check_tells_of_the_number_of_workers(line: str, usable: int, level: Level, text: str) -> None:
    (finding,) = check_workers(read(f"{line}\n{TEXT}"), usable)
    assert finding.level is level
    assert text in finding.text


def test_check_says_nothing_of_a_number_that_fits() -> None:
    assert check_workers(read(TEXT), 1) == []
    assert check_workers(read(f"workers 2\n{TEXT}"), 2) == []
