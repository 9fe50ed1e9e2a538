"""Trust anchors: which keys of the root we believe (RFC 4033 2), read from files as they are found."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dns.rdata
import dns.rdataclass
import dns.rdatatype
import pytest

from mailrider.dns import anchors
from mailrider.dns.anchors import (
    MAX_FILE,
    AnchorFileError,
    missing_keys,
    parse_anchors,
    read_anchor_file,
    shipped_anchors,
)

if TYPE_CHECKING:
    from pathlib import Path

KSK_2024 = (
    "AwEAAa96jeuknZlaeSrvyAJj6ZHv28hhOKkx3rLGXVaC6rXTsDc449/cidltpkyGwCJNnOAlFNKF2jBosZBU5eeHspaQWOmOElZsjICMQMC3aeHb"
    "GiShvZsx4wMYSjH8e7Vrhbu6irwCzVBApESjbUdpWWmEnhathWu1jo+siFUiRAAxm9qyJNg/wOZqqzL/dL/q8PkcRU5oUKEpUge71M3ej2/7CPqp"
    "dVwuMoTvoB+ZOT4YeGyxMvHmbrxlFzGOHOijtzN+u1TQNatX2XBuzZNQ1K+s2CXkPIZo7s6JgZyvaBevYtxPvYLw4z9mR7K2vaF18UYH9Z9GNUUe"
    "ayffKC73PYc="
)
OTHER_KEY = "mdsswUyr3DPW132mOi8V9xESWE8jTo0dxCjjnopKl+GqJxpVXckHAeF+KkxLbxILfDLUT0rAK9iUzy1L53eKGQ=="
DS = "683D2D0ACB8C9B712A1948B27F741219298D0A450D612C483AF444A4C0FB2B16"


def rdata(text: str) -> bytes:
    wire = dns.rdata.from_text(dns.rdataclass.IN, dns.rdatatype.DNSKEY, text).to_wire()
    assert wire is not None
    return wire


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ("", []),
        ("; a comment\n\n", []),
        (f". IN DS 38696 8 2 {DS}", [38696]),
        (f". 172800 IN DS 38696 8 2 {DS} ; KSK-2024", [38696]),
        (f".\tDS 38696 8 2 {DS[:32]} {DS[32:]}", [38696]),
        (f". IN DNSKEY 257 3 8 {KSK_2024}", [38696]),
        (f". IN DNSKEY 385 3 8 {KSK_2024}", []),  # revoked, RFC 5011 2.1
        (f". IN DNSKEY 256 3 8 {KSK_2024}", []),  # a key that signs the zone, not the keys
        (f". IN DS 20326 8 2 {DS}", []),  # retired
        (f". IN DS 38696 8 2 {DS}\n. IN DS 38696 8 2 {DS}\ntest. IN DS 7 13 2 {DS}", [38696, 7]),
    ],
)
def test_lines_of_a_file(text: str, tags: list[int]) -> None:
    assert [anchor.tag for anchor in parse_anchors(text)] == tags


def test_an_anchor_is_written_as_it_is_handed_on() -> None:
    (anchor,) = parse_anchors(f"test 60 IN DS 7 13 2 {DS}")
    assert anchor.text == f"test. IN DS 7 13 2 {DS.lower()}"
    assert str(anchor) == "key 7 of test."


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        ". IN",
        ". IN A 192.0.2.1",
        ". IN DS 38696 8 2 xyz",
        ". IN DS",
        f"a..b IN DS 1 8 2 {DS}",
        ". IN DNSKEY 1",
    ],
)
def test_what_is_no_anchor_is_an_error_with_its_line(line: str) -> None:
    with pytest.raises(AnchorFileError, match="line 2: expected a DS or DNSKEY record"):
        parse_anchors(f"; first\n{line}\n")


def test_a_file_is_named_in_its_error(tmp_path: Path) -> None:
    path = tmp_path / "anchors"
    with pytest.raises(AnchorFileError, match=f"{path}: No such file"):
        read_anchor_file(path)
    path.write_text("nonsense")
    with pytest.raises(AnchorFileError, match=f"{path}, line 1"):
        read_anchor_file(path)
    path.write_bytes(b";" * (MAX_FILE + 1))
    with pytest.raises(AnchorFileError, match="more than 65536 octets"):
        read_anchor_file(path)
    path.write_text(f". IN DS 7 8 2 {DS}")
    assert [anchor.tag for anchor in read_anchor_file(path)] == [7]


def test_our_own_anchor_and_debian_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anchors, "DEBIAN_FILE", tmp_path / "root.key")
    assert [anchor.tag for anchor in shipped_anchors()] == [38696]
    (tmp_path / "root.key").write_text(f". IN DS 7 8 2 {DS}")
    assert [anchor.tag for anchor in shipped_anchors()] == [38696, 7]
    (tmp_path / "root.key").write_text("a damaged file takes nothing away")
    assert [anchor.tag for anchor in shipped_anchors()] == [38696]


def test_keys_of_the_root_that_no_anchor_stands_for() -> None:
    known = parse_anchors(f". IN DS 38696 8 2 {DS}\ntest. IN DS 7 13 2 {DS}")
    assert missing_keys(known, [rdata(f"257 3 8 {KSK_2024}")]) == ()
    assert missing_keys((), [rdata(f"257 3 8 {KSK_2024}")]) == (38696,)
    other = (rdata(f"{flags} 3 13 {OTHER_KEY}") for flags in (256, 385, 257))
    (tag,) = missing_keys(known, [*other, b"", b"\1"])
    assert tag not in (7, 38696)
