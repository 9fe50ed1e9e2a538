"""Whether the record in DNS is that of a key (RFC 6376 3.6.1, RFC 8463 4)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrider.dkim.record import MAX_RECORD, compare, is_testing, parse_tags, record_name
from mailrider.errors import InvalidValue
from mailrider.model.domain import Domain

PUBLIC = "MTEyMjMz"

RECORDS = {
    "right": ([f"v=DKIM1; k=rsa; p={PUBLIC}"], ""),
    "right, with white space and a semicolon": ([f" v = DKIM1 ;k=rsa;\tp={PUBLIC[:4]} {PUBLIC[4:]} ; "], ""),
    "right, without what is the default": ([f"p={PUBLIC}"], ""),
    "right, beside another text": (["v=spf1 -all", f"v=DKIM1; p={PUBLIC}"], ""),
    "none": ([], "there is no such record"),
    "another text": (["v=spf1 -all"], "no DKIM key"),
    "another version": ([f"v=DKIM2; p={PUBLIC}"], "no DKIM key"),
    "too long": ([f"v=DKIM1; p={PUBLIC}; n={'x' * MAX_RECORD}"], "no DKIM key"),
    "two": ([f"p={PUBLIC}", "p=MTE="], "2 records publish a key"),
    "revoked": (["v=DKIM1; p="], "was revoked"),
    "another kind": ([f"k=ed25519; p={PUBLIC}"], "another kind: ed25519, not rsa"),
    "another key": (["v=DKIM1; p=MTE="], "is of another key"),
    "its version is not the first tag": ([f"p={PUBLIC}; v=DKIM1"], "v= is not the first tag"),
    "no base64": (["v=DKIM1; p=%%%"], "is of another key"),
    "SHA-1 only": ([f"p={PUBLIC}; h=sha1"], "does not allow SHA-256"),
    "two digests": ([f"p={PUBLIC}; h=sha1 : sha256"], ""),
    "not for mail": ([f"p={PUBLIC}; s=tlsrpt"], "not for mail"),
    "for all": ([f"p={PUBLIC}; s=*"], ""),
}


@pytest.mark.parametrize(("texts", "words"), RECORDS.values(), ids=RECORDS)
def test_what_is_wrong_with_a_record_is_said(texts: list[str], words: str) -> None:
    said = compare([text.encode() for text in texts], "rsa", PUBLIC)
    assert (words in said) if words else said == ""


def test_a_record_for_the_domain_alone_is_no_use_for_subdomains() -> None:
    texts = [f"p={PUBLIC}; t=y:s".encode()]
    assert compare(texts, "rsa", PUBLIC) == ""
    assert "subdomains" in compare(texts, "rsa", PUBLIC, subdomains=True)


def test_a_domain_that_is_testing_says_so() -> None:
    assert is_testing([f"p={PUBLIC}; t=s:y".encode()])
    assert not is_testing([f"p={PUBLIC}; t=s".encode(), b"t=y"])


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ("a=1; b = 2 ;", {"a": "1", "b": "2"}),
        ("a=1;; b=2", {}),
        ("a=1; a=2", {}),
        ("1a=1", {}),
        ("a", {}),
        ("", {}),
        ("a=b=c", {"a": "b=c"}),
    ],
)
def test_a_tag_list(text: str, tags: dict[str, str]) -> None:
    assert parse_tags(text) == tags


@given(st.text(max_size=200))
def test_any_text_is_a_record_or_not(text: str) -> None:
    compare([text.encode("utf-8", "replace")], "rsa", PUBLIC)


def test_where_a_record_stands() -> None:
    assert record_name(Domain("example.org"), "S1").ascii == "s1._domainkey.example.org"
    with pytest.raises(InvalidValue):
        record_name(Domain(f"{'a' * 60}.{'b' * 60}.{'c' * 60}.{'d' * 60}.org"), "s" * 60)
