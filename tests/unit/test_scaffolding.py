"""The ground that all other tests stand on."""

from __future__ import annotations

import asyncio
import warnings
from importlib import metadata

import pytest
import uvloop


async def test_async_tests_run_on_uvloop() -> None:
    assert isinstance(asyncio.get_running_loop(), uvloop.Loop)


def test_warnings_are_errors() -> None:
    with pytest.raises(UserWarning, match="boo"):
        warnings.warn("boo", stacklevel=1)


def test_the_command_is_an_entry_point() -> None:
    (command,) = metadata.entry_points(group="console_scripts", name="mailrider")
    assert command.value == "mailrider.cli:main"
