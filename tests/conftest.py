"""What every test has: uvloop, Hypothesis's examples, and a network of its process where several run side by side.

Async tests and fixtures need no mark (auto mode); each test has a uvloop loop of its own. Hypothesis tries a few
examples, the same every time, so that coverage is the same too. Long runs (`make test-long`) try many, others every
time; and only they run the tests that are marked `long`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import uvloop
from hypothesis import HealthCheck, settings

from tests.support.long_runs import LONG
from tests.support.loopback import leave_network

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping

BUSY = [HealthCheck.too_slow]  # a machine that is busy is no fault of a test
settings.register_profile("short", deadline=None, max_examples=20, derandomize=True, suppress_health_check=BUSY)
settings.register_profile("long", deadline=None, max_examples=300, print_blob=True, suppress_health_check=BUSY)
settings.load_profile("long" if LONG else "short")


HERE = Path(__file__).parent
ONE_AFTER_THE_OTHER = (HERE / "peers", HERE / "crash")
"""Real servers, each started once, and what fills the machine by itself; they take long, and so begin first."""


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):  # one of several processes side by side (pytest -n)
        leave_network()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Which tests run; which stay in one process, and which begin first (`--dist loadgroup`)."""
    if not LONG:
        left_out = [item for item in items if item.get_closest_marker("long")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]

    def folder(item: pytest.Item) -> Path | None:
        return next((folder for folder in ONE_AFTER_THE_OTHER if item.path.is_relative_to(folder)), None)

    for item in items:
        group = (folder(item) or item.path).relative_to(HERE)
        item.add_marker(pytest.mark.xdist_group(str(group)))
    items.sort(key=lambda item: folder(item) is None)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Keys and certificates are others in each process; the names of tests are the same."""
    return argname if isinstance(val, bytes) and len(val) > 64 else None


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}
