"""What the daemon's user can read, as far as the rights of files say."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from mailrider.app.check.local import check_readable, may_read
from mailrider.config import loads
from mailrider.config.configuration import Configuration

USER, OTHER, GROUP = 990, 991, 992


def state(mode: int, user: int = USER, group: int = GROUP) -> os.stat_result:
    return os.stat_result((mode, 0, 0, 1, user, group, 0, 0, 0, 0))


@pytest.mark.parametrize(
    ("mode", "user", "groups", "allowed"),
    [
        (0o400, USER, [], True),
        (0o044, USER, [GROUP], False),  # the owner's own rights are the only ones that count for him
        (0o040, OTHER, [GROUP], True),
        (0o404, OTHER, [GROUP], False),
        (0o004, OTHER, [], True),
        (0o440, OTHER, [], False),
    ],
)
def test_who_may_read(
    mode: int, user: int, groups: list[int], allowed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.touch()
    # Only root could make files of all these owners, and root may read them all.
    monkeypatch.setattr(Path, "stat", lambda path, **_: state(mode if path == file else 0o755))
    assert may_read(file, user, groups) == allowed


def test_what_is_not_there_is_another_finding(tmp_path: Path) -> None:
    assert may_read(tmp_path / "nothing", USER, [])


def test_folders_have_to_let_through(tmp_path: Path) -> None:
    (tmp_path / "file").touch(0o644)
    tmp_path.chmod(0o600)
    try:
        assert not may_read(tmp_path / "file", os.getuid(), [])
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.skipif(os.geteuid() != 0, reason="wants root")
@pytest.mark.parametrize(("mode", "count"), [(0o600, 1), (0o644, 0)])
def test_root_is_told_what_the_daemon_cannot_read(mode: int, count: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "state").mkdir()
        os.chown(folder / "state", 65534, 65534)  # nobody
        secret = folder / "secret"
        secret.touch()
        secret.chmod(mode)
        configuration = loads(f"hostname mx.example.org\nstate_dir {folder}/state\n", environment={})
        assert isinstance(configuration, Configuration)
        found = check_readable(replace_secret(configuration, secret), [])
        assert [each.subject for each in found] == ["secret"] * count
        assert all(f"{secret} cannot be read by nobody" in each.text for each in found)


def replace_secret(configuration: Configuration, secret: Path) -> Configuration:
    object.__setattr__(configuration, "secret_files", (secret,))
    return configuration
