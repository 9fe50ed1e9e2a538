"""A configuration that nobody named is used only if it is our own."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from mailrider.config import load
from mailrider.config.loader import refuse_foreign
from mailrider.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

NOBODY = 65534


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mailrider.conf").write_text("hostname found.test\n")
    (tmp_path / "mailrider.conf").chmod(0o644)
    return tmp_path / "mailrider.conf"


def test_our_own_is_used(here: Path) -> None:
    assert str(load().globals.hostname) == "found.test"
    assert here.exists()


def test_one_that_everybody_may_write_is_refused_unless_it_is_named(here: Path) -> None:
    here.chmod(0o646)
    with pytest.raises(ConfigError, match=r"mailrider\.conf: everybody may write to it .* mailrider -c FILE"):
        load()
    assert str(load(here).globals.hostname) == "found.test"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("as_link", [False, True])
def test_root_does_not_obey_another_users(here: Path, as_link: bool) -> None:
    if as_link:
        here.rename(here.with_name("real"))
        here.symlink_to("real")
        os.lchown(here, NOBODY, NOBODY)
    else:
        os.chown(here, NOBODY, NOBODY)
    with pytest.raises(ConfigError, match="it belongs to user 65534"):
        load()
    assert str(load(here).globals.hostname) == "found.test"


def test_one_that_is_gone_meanwhile_is_told_by_who_reads_it(tmp_path: Path) -> None:
    refuse_foreign(tmp_path / "gone")
