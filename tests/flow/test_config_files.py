"""Configurations in real files: found, read, imported."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailrider.config import find_config, load
from mailrider.errors import ConfigError


def test_a_file_is_read_and_knows_its_path(tmp_path: Path) -> None:
    file = tmp_path / "mailrider.conf"
    file.write_text("hostname mx.example.org\r\nstate_dir state\r\nimport sub/target.conf\r\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/target.conf").write_text("import more.conf\n")
    (tmp_path / "sub/more.conf").write_text("target.remote out { port {env:PORT} }\n")
    configuration = load(file, environment={"PORT": "2525"})
    assert configuration.path == file
    assert configuration.globals.state_dir == tmp_path / "state"
    assert getattr(configuration.target("out").settings, "port", None) == 2525


def test_errors_name_the_files_as_they_were_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mailrider.conf").write_text("import part.conf\nport 25\n")
    Path("part.conf").write_text("\n  dbug yes\n")
    with pytest.raises(ConfigError) as caught:
        load("mailrider.conf")
    assert [(problem.place, problem.trail) for problem in caught.value.problems] == [
        ("mailrider.conf:2:1", ()),
        ("part.conf:2:3", ("mailrider.conf:1:8",)),
    ]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "mailrider.conf")
    assert str(caught.value) == f"{tmp_path}/mailrider.conf: cannot read the configuration: No such file or directory"


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    file = tmp_path / "mailrider.conf"
    file.write_bytes(b"hostname a.b\nx \xff\n")
    with pytest.raises(ConfigError) as caught:
        load(str(file))
    assert str(caught.value) == f"{file}:2:3: the file is not UTF-8: the octet 0xff stands here\n    x �\n      ^"


def test_a_file_without_end_is_too_large() -> None:
    with pytest.raises(ConfigError, match="the file is too large: more than 4194304 octets"):
        load("/dev/zero")


def test_without_a_name_the_first_file_that_is_there_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, elsewhere = tmp_path / "mailrider.conf", tmp_path / "etc.conf"
    assert find_config([here, elsewhere]) is None
    elsewhere.write_text("hostname b.example")
    assert find_config([here, elsewhere]) == elsewhere
    here.write_text("hostname a.example")
    assert find_config([here, elsewhere]) == here
    monkeypatch.chdir(tmp_path)
    assert str(load().globals.hostname) == "a.example"
    assert load().path == Path("mailrider.conf")


def test_a_file_that_may_not_be_looked_at_is_not_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    def stat(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "stat", stat)
    assert find_config([Path("a"), Path("b")]) == Path("a")
    assert find_config([Path("/dev/null/x"), Path("a")]) == Path("/dev/null/x")


def test_without_any_file_the_built_in_configuration_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailrider.config.loader.find_config", lambda: None)
    configuration = load()
    assert configuration.path is None
    assert list(configuration.targets) == ["remote", "queue"]
