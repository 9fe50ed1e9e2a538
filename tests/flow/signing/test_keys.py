"""Keys on disk: made once, private, with their DNS record beside."""

from __future__ import annotations

import base64
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mailrider.errors import ConfigError
from mailrider.model.domain import Domain
from mailrider.model.event import discard
from mailrider.signing.keys import KeyMade, dns_record, key_path, open_key
from mailrider.signing.open import open_signers
from mailrider.signing.settings import DKIMOptions, DKIMSettings
from mailrider.x509.key_kind import KeyKind
from mailrider.x509.signing import SigningKey

if TYPE_CHECKING:
    from mailrider.model.event import Event

EXAMPLE = Domain("example.org")


@pytest.mark.parametrize(("kind", "name"), [(KeyKind.RSA2048, "rsa"), (KeyKind.ED25519, "ed25519")])
def test_a_key_is_made_when_it_is_first_needed_and_its_record_told_once(
    tmp_path: Path, kind: KeyKind, name: str
) -> None:
    events: list[Event] = []
    given = DKIMSettings.of(["example.org"], "s1", DKIMOptions(newkey_algo=kind))
    (first,) = open_signers(given, tmp_path, events.append)
    path = tmp_path / "dkim_keys" / "example.org_s1.key"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    (event,) = events
    assert isinstance(event, KeyMade)
    assert Path(event.path).read_text() == event.record + "\n"
    assert event.record.startswith("s1._domainkey.example.org. IN TXT ")
    value = "".join(re.findall(r'"([^"]*)"', event.record))
    assert value == f"v=DKIM1; k={name}; {'s=email:tlsrpt; ' if name == 'ed25519' else ''}p={first.key.public}"
    assert open_signers(given, tmp_path, events.append)[0].key.public == first.key.public
    assert len(events) == 1
    assert sorted(each.name for each in path.parent.iterdir()) == ["example.org_s1.dns", "example.org_s1.key"]


def test_each_domain_has_a_key_of_its_own(tmp_path: Path) -> None:
    given = DKIMSettings.of(["example.org", "example.net", "Example.ORG"], "s1")
    first, second = open_signers(given, tmp_path, discard)
    assert [each.domain.ascii for each in (first, second)] == ["example.org", "example.net"]
    assert first.key.public != second.key.public
    assert (tmp_path / "dkim_keys" / "example.net_s1.dns").exists()


def test_a_long_record_is_cut_into_strings_that_dns_can_hold() -> None:
    key = SigningKey.make(KeyKind.RSA4096)
    strings = re.findall(r'"([^"]*)"', dns_record(EXAMPLE, "s", key))
    assert len(strings) == 3
    assert max(map(len, strings)) == 255
    assert base64.b64decode("".join(strings).rpartition("p=")[2])


def test_whoever_comes_second_uses_the_key_of_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = key_path(tmp_path, EXAMPLE, "s")
    monkeypatch.setattr(Path, "exists", lambda _: False)  # as both have seen it
    first = open_key(path, KeyKind.ED25519, EXAMPLE, "s", discard)
    events: list[Event] = []
    second = open_key(path, KeyKind.ED25519, EXAMPLE, "s", events.append)
    assert second.public == first.public
    assert events == []


def test_a_key_that_everybody_can_read_is_refused(tmp_path: Path) -> None:
    path = key_path(tmp_path, EXAMPLE, "s")
    open_key(path, KeyKind.ED25519, EXAMPLE, "s", discard)
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        open_key(path, KeyKind.ED25519, EXAMPLE, "s", discard)


def test_a_key_that_is_none_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = key_path(tmp_path, EXAMPLE, "s")
    path.write_bytes(b"precious\n")
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="cannot be used"):
        open_key(path, KeyKind.ED25519, EXAMPLE, "s", discard)
    assert path.read_bytes() == b"precious\n"


def test_a_place_where_nothing_can_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be read"):
        open_key(tmp_path / "file" / "key", KeyKind.ED25519, EXAMPLE, "s", discard)


def test_what_was_begun_and_not_finished_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "link", fail)
    with pytest.raises(ConfigError, match="No space left"):
        open_key(key_path(tmp_path, EXAMPLE, "s"), KeyKind.ED25519, EXAMPLE, "s", discard)
    assert os.listdir(tmp_path) == []
