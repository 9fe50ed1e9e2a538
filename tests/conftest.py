"""What every test has: uvloop, Hypothesis's examples, a network of its process where several run side by side, an end.
And whether coverage measures it.

Async tests and fixtures need no mark (auto mode); each test has a uvloop loop of its own. Hypothesis tries a few
examples, the same every time, so that coverage is the same too. Long runs (`make test-long`) try many, others every
time; and only they run the tests that are marked `long`.
"""

from __future__ import annotations

import gc
import itertools
import os
from typing import TYPE_CHECKING, Any

import pytest
import uvloop
from coverage import Coverage
from hypothesis import HealthCheck, settings

from tests.support.long_runs import LONG
from tests.support.loopback import leave_network
from tests.support.measured import Measuring, forget_programs
from tests.support.side_by_side import FileScheduling, limit, rank, unlimit

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Generator, Mapping

    import pytest_timeout

BUSY = [HealthCheck.too_slow]  # a machine that is busy is no fault of a test
settings.register_profile("short", deadline=None, max_examples=20, derandomize=True, suppress_health_check=BUSY)
settings.register_profile("long", deadline=None, max_examples=300, print_blob=True, suppress_health_check=BUSY)
settings.load_profile("long" if LONG else "short")

gc.disable()  # until the tests are collected: thousands, which stay to the end

SECONDS = pytest.StashKey[float]()
REAL_STDERR = pytest.StashKey[int]()
MEASURING = pytest.StashKey[Measuring]()
BEGUN = itertools.count()  # tests


def pytest_configure(config: pytest.Config) -> None:
    config.stash[REAL_STDERR] = os.dup(2)  # pytest takes 2 away while tests run
    if getattr(config, "workerinput", {}).get("workercount", 1) > 1:  # one of several processes side by side
        leave_network()


def pytest_unconfigure(config: pytest.Config) -> None:
    os.close(config.stash[REAL_STDERR])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FileScheduling | None:
    return FileScheduling(config, log) if config.getoption("dist") == "loadgroup" else None


def pytest_timeout_set_timer(item: pytest.Item, settings: pytest_timeout.Settings) -> bool:
    """How long the test may take; instead of pytest-timeout's own timer."""
    item.stash[SECONDS] = settings.timeout
    return True


def _begin(item: pytest.Item) -> None:
    """A phase of a test begins. (When one has failed, pytest ends the watch.)"""
    if SECONDS in item.stash:
        limit(item.stash[SECONDS], item.config.stash[REAL_STDERR])


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    _begin(item)
    item.config.stash[MEASURING].begin(item.nodeid)
    if next(BEGUN) % 500 == 0:
        # Tests and their reports stay to the end: `gc.collect()` within a test would go through thousands of them.
        gc.collect()
        gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    _begin(item)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None]:
    _begin(item)
    yield
    unlimit()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Which tests run, and which begin first."""
    if not LONG:
        left_out = [item for item in items if item.get_closest_marker("long")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    items.sort(key=lambda item: rank(item.nodeid))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Not called where other processes run the tests."""
    forget_programs()
    gc.enable()
    nodes = {item.nodeid: item.get_closest_marker("hypothesis") is not None for item in session.items}
    session.config.stash[MEASURING] = Measuring(Coverage.current(), nodes)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Keys and certificates are others in each process; the names of tests are the same."""
    return argname if isinstance(val, bytes) and len(val) > 64 else None


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}
