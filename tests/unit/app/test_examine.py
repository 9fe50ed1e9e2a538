"""What is looked for before a configuration is opened: all that is wrong with it is told at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mailrider.app.examine import examine
from mailrider.config import load
from mailrider.errors import ConfigError, LocalError

if TYPE_CHECKING:
    from pathlib import Path


def told(folder: Path, text: str) -> list[str]:
    file = folder / "mailrider.conf"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        examine(load(file))
    return [f"{problem.line}: {problem.message}" for problem in caught.value.problems]


def test_every_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    text = f"""hostname mx.example.org
target.remote first {{
    mx_auth off
    tls_client {{
        cert {absent}.pem
        key {absent}.key
        root_ca {absent}.one {absent}.two
    }}
}}
target.smtp second {{
    host tcp://127.0.0.1:25
    tls_client {{
        root_ca {absent}.three
    }}
}}
submission tcp://127.0.0.1:1587 {{
    tls {absent}.pem {absent}.key
    auth {absent}.users
    aliases {absent}.aliases
    deliver_to &first
}}
"""
    reason = "No such file or directory"
    assert told(tmp_path, text) == [
        f"2: cert: {absent}.pem cannot be read: {reason}",
        f"2: key: {absent}.key cannot be read: {reason}",
        f"2: root_ca: no certificates can be read from {absent}.one: {reason}",
        f"2: root_ca: no certificates can be read from {absent}.two: {reason}",
        f"10: root_ca: no certificates can be read from {absent}.three: {reason}",
        f"17: cert: {absent}.pem cannot be read: {reason}",
        f"17: key: {absent}.key cannot be read: {reason}",
        f"16: cannot read the password file {absent}.users: {reason}; mailrider auth add USER makes it",
        f"16: cannot read {absent}.aliases: {reason}",
    ]


def test_a_spool_that_cannot_be_a_directory_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    text = f"""hostname mx.example.org
target.remote out {{
    mx_auth off
}}
submission tcp://127.0.0.1:1587 {{
    spool {tmp_path}/file/spool
    deliver_to &out
}}
"""
    other = f"expected a directory, and there is something else: {tmp_path}/file"
    assert told(tmp_path, text) == [f"5: spool {tmp_path}/file/spool: {other}"]


def test_what_only_this_machine_lacks_is_told_when_the_file_is_right(tmp_path: Path) -> None:
    elsewhere = "target.remote a {\n    mx_auth off\n    local_ip 192.0.2.1\n}\n"
    broken = f"target.remote b {{\n    mx_auth off\n    tls_client {{ root_ca {tmp_path}/absent }}\n}}\n"
    assert len(told(tmp_path, f"hostname mx.example.org\n{elsewhere}{broken}")) == 1
    file = tmp_path / "mailrider.conf"
    file.write_text(f"hostname mx.example.org\n{elsewhere}")
    with pytest.raises(LocalError, match=r"local_ip 192\.0\.2\.1: cannot send from there"):
        examine(load(file))
