"""The password file, and who may log in."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import argon2
import pytest

from mailrider.endpoint import passwords as auth
from mailrider.endpoint.passwords import (
    UNAVAILABLE,
    PasswordFile,
    PasswordFileError,
    hash_password,
    is_right,
    parse_passwords,
    read_passwords,
    write_passwords,
)
from mailrider.endpoint.user_names import check_name, login_name
from mailrider.errors import InvalidValue
from mailrider.smtp.sasl import Credentials

if TYPE_CHECKING:
    from pathlib import Path


QUICK = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """As cheap as argon2 can be: here nothing is secret."""
    # For speed alone: how much work a hash is must not be for others to choose.
    monkeypatch.setattr(auth, "HASHER", QUICK)


def test_a_password_fits_its_hash_and_no_other() -> None:
    hashed = hash_password("open sesame")
    assert hashed.startswith("$argon2id$")
    assert is_right(hashed, "open sesame")
    assert not is_right(hashed, "open sesam")
    assert not is_right("$argon2id$nonsense", "open sesame")
    assert not is_right("", "")


TWO_PIECES = "o\u0308ffne dich"


# https://github.com/maranda/metronome/issues/529, https://github.com/thunderbird/thunderbird-android/issues/1673
@pytest.mark.parametrize("kept", [TWO_PIECES, "\xf6ffne dich"])
@pytest.mark.parametrize("given", [TWO_PIECES, "\xf6ffne dich"])
def test_an_umlaut_may_come_in_one_piece_or_in_two(kept: str, given: str) -> None:
    assert is_right(hash_password(kept), given)
    assert login_name(kept) == login_name(given)


def test_a_hash_of_an_umlaut_in_two_pieces_still_fits_what_it_was_made_of() -> None:
    assert is_right(QUICK.hash(TWO_PIECES), TWO_PIECES)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "users"
    users = {"anna": hash_password("a"), "björn@example.org": hash_password("b")}
    write_passwords(path, users)
    assert read_passwords(path) == users
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o640)
    write_passwords(path, {})
    assert read_passwords(path) == {}
    assert path.stat().st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path) == ["users"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("anna", "users:1: expected NAME:HASH"),
        ("# who\n\nanna:plain", "users:3: expected NAME:HASH"),
        (":$argon2id$x", "users:1: expected NAME:HASH"),
        ("a:$argon2id$x\na:$argon2id$y", "users:2: the user 'a' is there twice"),
    ],
)
def test_what_is_no_password_file_says_where(text: str, expected: str) -> None:
    with pytest.raises(PasswordFileError, match=expected):
        parse_passwords(text, "users")


def test_a_file_that_cannot_be_used_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PasswordFileError, match="No such file"):
        read_passwords(tmp_path / "none")
    (tmp_path / "latin").write_bytes(b"\xff")
    with pytest.raises(PasswordFileError, match="cannot write the password file"):
        write_passwords(tmp_path / "latin/users", {})
    with pytest.raises(PasswordFileError, match="not UTF-8"):
        read_passwords(tmp_path / "latin")
    monkeypatch.setattr(auth, "MAX_FILE", 0)
    with pytest.raises(PasswordFileError, match="larger than"):
        read_passwords(tmp_path / "latin")


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    write_passwords(tmp_path / "users", {"anna": "$argon2id$x"})
    with pytest.raises(InvalidValue):
        write_passwords(tmp_path / "users", {"a:b": "$argon2id$x"})
    assert list(read_passwords(tmp_path / "users")) == ["anna"]
    assert os.listdir(tmp_path) == ["users"]


@pytest.mark.parametrize("name", ["", "a:b", "#a", " a", "a\n", "x" * 256])
def test_a_name_that_the_file_could_not_keep_is_refused(name: str) -> None:
    with pytest.raises(InvalidValue):
        check_name(name)


async def test_the_domain_of_a_user_has_no_case(tmp_path: Path) -> None:
    path = tmp_path / "users"
    write_passwords(path, {"Anna@Example.org": hash_password("open sesame")})
    async with PasswordFile(path) as passwords:
        assert await passwords.verify(Credentials("Anna@EXAMPLE.ORG", "open sesame", "Anna@example.org")) is True
        assert await passwords.verify(Credentials("anna@example.org", "open sesame")) is False


async def test_who_may_log_in(tmp_path: Path) -> None:
    path = tmp_path / "users"
    write_passwords(path, {"anna": hash_password("open sesame")})
    async with PasswordFile(path) as passwords:
        assert await passwords.verify(Credentials("anna", "open sesame")) is True
        assert await passwords.verify(Credentials("anna", "open sesame", "anna")) is True
        assert await passwords.verify(Credentials("anna", "open sesame", "boss")) is False
        assert await passwords.verify(Credentials("anna", "wrong")) is False
        assert await passwords.verify(Credentials("bert", "open sesame")) is False
        assert await passwords.verify(Credentials("anna", "\udce9")) is False  # \xe9, which is no UTF-8
        assert await passwords.verify(Credentials("\udce9", "open sesame")) is False
        write_passwords(path, {"bert": hash_password("hello bert")})
        assert await passwords.verify(Credentials("bert", "hello bert")) is True
        assert await passwords.verify(Credentials("anna", "open sesame")) is False
        path.unlink()
        assert await passwords.verify(Credentials("bert", "hello bert")) is UNAVAILABLE
    assert await passwords.verify(Credentials("bert", "hello bert")) is UNAVAILABLE


async def test_an_unknown_user_costs_as_much_as_a_wrong_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "users"
    write_passwords(path, {"anna": hash_password("open sesame")})
    asked: list[str] = []

    def counted(hashed: str, password: str) -> bool:
        asked.append(hashed[:10])
        return is_right(hashed, password)

    monkeypatch.setattr(auth, "is_right", counted)
    async with PasswordFile(path) as passwords:
        await passwords.verify(Credentials("anna", "x"))
        await passwords.verify(Credentials("nobody", "x"))
    assert asked == ["$argon2id$"] * 2


async def test_a_crowd_of_logins_is_told_to_come_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "MAX_WAITING", 2)
    path = tmp_path / "users"
    write_passwords(path, {"anna": hash_password("open sesame")})
    async with PasswordFile(path) as passwords:
        logins = [passwords.verify(Credentials("anna", "open sesame")) for _ in range(5)]
        assert await asyncio.gather(*logins) == [True, True, UNAVAILABLE, UNAVAILABLE, UNAVAILABLE]


async def test_a_file_that_is_missing_keeps_the_endpoint_from_opening(tmp_path: Path) -> None:
    with pytest.raises(PasswordFileError):
        async with PasswordFile(tmp_path / "none"):
            pass
