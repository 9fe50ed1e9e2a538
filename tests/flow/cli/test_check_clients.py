"""`mailrider check` for a null client: the password that is not there, and aliases that are not right."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.flow.cli.test_check import check

if TYPE_CHECKING:
    from pathlib import Path

CLIENT = """
target.smtp company {
    host tls://mail.example.org:465
    auth plain web1 {file:password}
}
target.queue outqueue {
    target &company
}
submission unix://%s/sock {
    aliases %s/aliases
    deliver_to &outqueue
}
"""


def client(folder: Path) -> str:
    return CLIENT % (folder, folder)


async def test_a_secret_that_is_not_there_is_an_error_and_the_rest_is_tested(tmp_path: Path) -> None:
    (tmp_path / "aliases").write_text("root: admin@example.org\nbad: |/bin/sh\n")
    (tmp_path / "aliases").chmod(0o644)
    ran = await check(tmp_path, more=client(tmp_path))
    assert ran.code == 78
    lines = ran.out.splitlines()
    (error,) = [line for line in lines if line.startswith("error")]
    assert (
        f"target.smtp company: {tmp_path}/mailrider.conf:7:21: auth: cannot read the file {tmp_path}/password" in error
    )
    assert any(f"aliases: {tmp_path}/aliases:2: bad: mail is not given to programs" in line for line in lines)
    assert any(line.startswith("ok       resolver:") for line in lines)


async def test_a_secret_that_others_can_read_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "aliases").write_text("root: admin@example.org\n")
    (tmp_path / "aliases").chmod(0o644)
    (tmp_path / "password").write_text("hunter2\n")
    (tmp_path / "password").chmod(0o644)
    ran = await check(tmp_path, "--local", more=client(tmp_path))
    assert ran.code == 0
    assert f"chmod 600 {tmp_path}/password" in ran.out
    assert "hunter2" not in ran.out + ran.err


async def test_a_file_of_aliases_that_must_not_be_believed_is_78(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("hunter2\n")
    (tmp_path / "password").chmod(0o600)
    (tmp_path / "aliases").write_text("root: admin@example.org\n")
    (tmp_path / "aliases").chmod(0o666)
    ran = await check(tmp_path, more=client(tmp_path))
    assert ran.code == 78
    assert "others than its owner may write to" in ran.err


async def test_a_null_client_is_not_blamed_for_what_its_company_does(tmp_path: Path) -> None:
    (tmp_path / "aliases").write_text("root: admin@example.org\n")
    (tmp_path / "aliases").chmod(0o644)
    (tmp_path / "password").write_text("hunter2\n")
    (tmp_path / "password").chmod(0o600)
    more = f"origin example.org\n{client(tmp_path)}"
    ran = await check(tmp_path, more=more, signed_name="plain.test")
    assert not any(each in ran.out for each in ("DKIM of", "DMARC of", "SPF of", "warning  resolver"))
    assert "note     domain example.org: all mail goes to servers that the configuration names" in ran.out
    assert "so nothing here needs DNSSEC" in ran.out
    ran = await check(tmp_path, "example.org", more=more)
    assert "DMARC of example.org" in ran.out
