"""What the user of the daemon may read, as `check` sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mailrider.app.check.local import may_read

if TYPE_CHECKING:
    from pathlib import Path

NOBODY = 65534


@pytest.mark.parametrize("name", ["absent", "circle"])
def test_what_is_not_there_or_leads_to_itself_is_another_finding(tmp_path: Path, name: str) -> None:
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    assert may_read(tmp_path / name, NOBODY, [])


def test_a_file_of_somebody_else_that_is_private_may_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s")
    (tmp_path / "secret").chmod(0o600)
    assert not may_read(tmp_path / "secret", NOBODY, [])
