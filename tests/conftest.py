"""What every test has: uvloop, Hypothesis profiles, and a word on what is left out.

Async tests and fixtures need no mark (auto mode); each test has a uvloop loop of its own.
Hypothesis: `dev` by default, `ci` (the same examples every time, no deadline) with CI=true.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import uvloop
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping

    import pytest

settings.register_profile("dev", deadline=None, max_examples=50)
settings.register_profile("ci", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ci" if os.environ.get("CI") == "true" else "dev")


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}
