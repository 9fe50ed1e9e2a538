"""A configuration that another process reads from what was recorded: the same, without a file or a variable."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mailrider.config import load, load_carried, load_to_carry
from mailrider.config.loader import default_text
from mailrider.config.snapshot import CarriedText, Recorded
from mailrider.delivery.smarthost_settings import SmarthostSettings
from mailrider.settings.directive import MissingSecret

if TYPE_CHECKING:
    from mailrider.config import Configuration

TEXT = """hostname {env:NAME}
import more.conf
target.smtp smart {
    host tls://smtp.test:465
    auth plain me {file:secret}
}
"""


def written(folder: Path) -> Path:
    (folder / "more.conf").write_text("\ufeff\npostmaster a@a.test\r\n", "utf-8")
    (folder / "secret").write_text("pässword\n", "utf-8")
    path = folder / "mailrider.conf"
    path.write_text(TEXT)
    return path


def carried_over(path: Path) -> Configuration:
    _, carried = load_to_carry(path, environment={"NAME": "a.test", "OTHER": "x"})
    there = CarriedText.decode(carried.encode())
    assert there == carried
    for each in path.parent.iterdir():
        each.unlink()
    return load_carried(there)


def test_the_other_process_reads_the_same_though_no_file_is_left(tmp_path: Path) -> None:
    path = written(tmp_path)
    here = load(path, environment={"NAME": "a.test"})
    there = carried_over(path)
    assert there.globals == here.globals
    assert there.path == here.path
    smart = there.target("smart").settings
    assert isinstance(smart, SmarthostSettings)
    assert smart == here.target("smart").settings
    assert str(there.target("smart").position) == f"{path}:3:1"


def test_a_secret_that_could_not_be_read_is_missing_there_too(tmp_path: Path) -> None:
    path = written(tmp_path)
    (tmp_path / "secret").unlink()
    smart = carried_over(path).target("smart").settings
    assert isinstance(smart, SmarthostSettings)
    assert isinstance(smart.auth, MissingSecret)
    assert "No such file" in smart.auth.problem.message


def test_a_variable_that_was_not_asked_for_is_not_carried(tmp_path: Path) -> None:
    _, carried = load_to_carry(written(tmp_path), environment={"NAME": "a.test", "OTHER": "x"})
    assert carried.environment == {"NAME": "a.test"}


def test_a_record_shows_no_secret(tmp_path: Path) -> None:
    _, carried = load_to_carry(written(tmp_path), environment={"NAME": "a.test"})
    assert "ssword" not in repr(carried)


def test_the_built_in_configuration_is_carried_as_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mailrider.config.loader.find_config", lambda: None)
    _, carried = load_to_carry()
    assert carried.text == default_text()
    assert load_carried(carried).path is None


def test_a_recorded_environment_is_the_one_that_it_records() -> None:
    asked = dict[str, str]()
    recorded = Recorded({"A": "1", "B": "2"}, asked)
    assert (sorted(recorded), len(recorded)) == (["A", "B"], 2)
    assert recorded.get("C", "") == ""
    assert asked == {}
    assert "A" in recorded
    assert asked == {"A": "1"}


def test_what_kept_a_secret_from_being_read_is_told_again() -> None:
    carried = CarriedText("x", ".", None, "", secrets={"/s": errno.EACCES})
    with pytest.raises(PermissionError):
        carried.read_secret(Path("/s"))


DEBUGGED = """hostname a.test
target.smtp loud {
    host tcp://smtp.test:25
}
target.smtp quiet {
    host tcp://smtp.test:25
    debug no
}
"""


@pytest.mark.parametrize("debug", [False, True])
def test_debug_may_be_asked_for_from_outside_and_a_block_that_says_no_stays(tmp_path: Path, debug: bool) -> None:
    path = tmp_path / "mailrider.conf"
    path.write_text(DEBUGGED)
    carried = load_to_carry(path, debug=debug)[1]
    for configuration in (load(path, debug=debug), load_carried(CarriedText.decode(carried.encode()))):
        assert configuration.globals.debug is debug
        for name, expected in (("loud", debug), ("quiet", False)):
            smart = configuration.target(name).settings
            assert isinstance(smart, SmarthostSettings)
            assert smart.debug is expected
