"""The policy file and MX patterns: RFC 8461 3.2 and 4.1, as tables."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrider.errors import InvalidValue
from mailrider.model.domain import Domain
from mailrider.mtasts.policy import (
    MAX_IGNORED,
    MAX_LIFETIME,
    MAX_MX_LINES,
    MAX_POLICY_SIZE,
    MalformedPolicy,
    MXPattern,
    STSMode,
    STSPolicy,
    match_mx,
    parse_policy,
    policy_host,
)

WEEK = timedelta(weeks=1)


def a_policy(*mx: str, mode: STSMode = STSMode.ENFORCE, max_age: timedelta = WEEK) -> STSPolicy:
    return STSPolicy(mode, max_age, tuple(map(MXPattern.parse, mx)))


GOOD = {
    "CRLF, as the RFC writes it": (
        b"version: STSv1\r\nmode: enforce\r\nmx: mail.example.com\r\nmx: *.example.net\r\nmax_age: 604800\r\n",
        a_policy("mail.example.com", "*.example.net"),
    ),
    "LF": (b"version: STSv1\nmode: enforce\nmx: a.example\nmax_age: 604800\n", a_policy("a.example")),
    "mixed line ends": (b"version: STSv1\r\nmode: enforce\nmx: a.example\r\nmax_age: 604800", a_policy("a.example")),
    "no line end at the end": (b"version: STSv1\nmode: enforce\nmx: a.example\nmax_age: 604800", a_policy("a.example")),
    "any order": (b"mx: a.example\nmax_age: 604800\nmode: enforce\nversion: STSv1\n", a_policy("a.example")),
    "no space after the colon": (b"version:STSv1\nmode:enforce\nmx:a.example\nmax_age:604800\n", a_policy("a.example")),
    "tabs and spaces around values": (
        b"version:\t STSv1 \t\nmode:  enforce\t\nmx:\ta.example  \nmax_age: 604800 \r\n",
        a_policy("a.example"),
    ),
    "empty lines": (
        b"\nversion: STSv1\n\r\nmode: enforce\n \t\nmx: a.example\nmax_age: 604800\n\n\n",
        a_policy("a.example"),
    ),
    "unknown fields are ignored": (
        b"version: STSv1\nmode: enforce\nmx: a.example\nmax_age: 604800\nnew.field-1_x: w\xc3\xa4rt; a=b : c\nempty:\n",
        a_policy("a.example"),
    ),
    "of a repeated field the first counts": (
        b"version: STSv1\nversion: STSv9\nmode: enforce\nmode: none\nmx: a.example\nmax_age: 604800\nmax_age: never\n",
        a_policy("a.example"),
    ),
    "testing": (
        b"version: STSv1\nmode: testing\nmx: a.example\nmax_age: 604800\n",
        a_policy("a.example", mode=STSMode.TESTING),
    ),
    "none needs no mx": (b"version: STSv1\nmode: none\nmax_age: 604800\n", a_policy(mode=STSMode.NONE)),
    "none may have one": (
        b"version: STSv1\nmode: none\nmx: a.example\nmax_age: 604800\n",
        a_policy("a.example", mode=STSMode.NONE),
    ),
    "max_age 0": (
        b"version: STSv1\nmode: enforce\nmx: a.example\nmax_age: 0\n",
        a_policy("a.example", max_age=timedelta(0)),
    ),
    "max_age of a year": (
        b"version: STSv1\nmode: enforce\nmx: a.example\nmax_age: 31557600\n",
        a_policy("a.example", max_age=MAX_LIFETIME),
    ),
    "leading zeros": (
        b"version: STSv1\nmode: enforce\nmx: a.example\nmax_age: 0000604800\n",
        a_policy("a.example"),
    ),
    "case and trailing dot of an mx": (
        b"version: STSv1\nmode: enforce\nmx: *.Example.COM.\nmx: MX.example\nmax_age: 604800\n",
        a_policy("*.example.com", "mx.example"),
    ),
    "U-labels in an mx": (
        "version: STSv1\nmode: enforce\nmx: mx.bücher.example\nmax_age: 604800\n".encode(),
        a_policy("mx.xn--bcher-kva.example"),
    ),
    "a byte order mark": (
        b"\xef\xbb\xbf" + b"version: STSv1\nmode: enforce\nmx: a.example\nmax_age: 604800\n",
        a_policy("a.example"),
    ),
    "the same mx twice": (
        b"version: STSv1\nmode: enforce\nmx: a.example\nmx: a.example\nmax_age: 604800\n",
        a_policy("a.example", "a.example"),
    ),
}

LINES = {"version": "STSv1", "mode": "enforce", "mx": "mail.example.com", "max_age": "604800"}


def lines(without: str = "", **changed: str) -> bytes:
    fields = {**LINES, **changed}
    return "".join(f"{name}: {value}\n" for name, value in fields.items() if name != without).encode()


BAD = {
    "an empty file": (b"", "no version"),
    "no version": (lines("version"), "no version"),
    "no mode": (lines("mode"), "no mode"),
    "no max_age": (lines("max_age"), "no max_age"),
    "enforce without mx": (lines("mx"), "no mx line"),
    "testing without mx": (lines("mx", mode="testing"), "no mx line"),
    "another version": (lines(version="STSv2"), "the version is 'STSv2'"),
    "the version in other case": (lines(version="stsv1"), "the version is"),
    "an empty version": (lines(version=""), "the version is ''"),
    "an unknown mode": (lines(mode="report"), "the mode is 'report'"),
    "a mode in other case": (lines(mode="Enforce"), "the mode is 'Enforce'"),
    "an empty mode": (lines(mode=""), "the mode is ''"),
    "two modes in a line": (lines(mode="enforce, testing"), "the mode is"),
    "first mode wrong, second right": (b"mode: strict\n" + lines(), "the mode is 'strict'"),
    "a negative max_age": (lines(max_age="-1"), "max_age is '-1'"),
    "a max_age beyond a year": (lines(max_age="31557601"), "max_age is '31557601'"),
    "a max_age of 11 digits": (lines(max_age="00000604800"), "max_age is"),
    "a max_age with a unit": (lines(max_age="1d"), "max_age is '1d'"),
    "a max_age with a fraction": (lines(max_age="604800.0"), "max_age is"),
    "a max_age in other digits": (lines(max_age="６０４８００"), "max_age is"),
    "an empty max_age": (lines(max_age=""), "max_age is ''"),
    "names are case-sensitive": (b"Mode: enforce\n" + lines("mode"), "no mode"),
    "a line without a colon": (lines() + b"and so on\n", "line 5 is not a 'name: value' pair"),
    "space before the colon": (b"mode : enforce\n" + lines(), "line 1 is not"),
    "space before the name": (b" mode: enforce\n" + lines(), "line 1 is not"),
    "no name": (lines() + b": value\n", "line 5 is not"),
    "a name of 33 characters": (lines() + b"n" * 33 + b": value\n", "line 5 is not"),
    "a comment": (b"# policy\n" + lines(), "line 1 is not"),
    "a comment among the lines": (lines() + b"# mx: b.example\n", "line 5 is not"),
    "a bare CR in a value": (lines(mx="a.example\r#"), "line 3 is not"),
    "a byte order mark twice": (b"\xef\xbb\xbf\xef\xbb\xbf" + lines(), "line 1 is not"),
    "bare CR as line end": (lines().replace(b"\n", b"\r"), "line 1 is not"),
    "NUL": (lines(mx="a.example\0"), "line 3 is not"),
    "another control character": (lines(other="\x1b[1m"), "line 5 is not"),
    "a C1 control character": (lines(other="\x85"), "line 5 is not"),
    "not UTF-8": (lines() + b"x: \xff\n", "not UTF-8"),
    "UTF-16": (lines().decode().encode("utf-16"), "not UTF-8"),
    "a web page": (b"<!DOCTYPE html>\n<html></html>\n", "line 1 is not"),
    "too many mx lines": (lines() + b"mx: a.example\n" * MAX_MX_LINES, "more than 4096 mx lines"),
    "too large": (lines() + b"x: " + b"y" * MAX_POLICY_SIZE, "larger than 65536 octets"),
}


# mx lines that no host can match: ignored, and the others bind (Zuplu/postfix-tlspol#70).
UNMATCHABLE = {
    "an IPv4 address": "192.0.2.86",
    "an IPv6 address": "2001:db8::1",
    "an IPv4 address in brackets": "[192.0.2.1]",
    "an IPv6 address in brackets": "[IPv6:2001:db8::1]",
    "a lone asterisk": "*",
    "an asterisk and nothing below": "*.",
    "an asterisk that is part of a label": "mx*.example.com",
    "an asterisk that is not the first label": "mx.*.example.com",
    "two asterisks": "*.*.example.com",
    "an asterisk and an address": "*.192.0.2.1",
    "no name": "mail example.com",
    "two names and a comma": "a.example, b.example",
    "two names and a tab": "a.example\tb.example",
    "a name and a comment": "a.example # the first",
    "a name with a port": "a.example:25",
    "a name in quotes": '"a.example"',
    "a URL": "smtp://a.example/",
    "a mail address": "postmaster@a.example",
    "nothing": "",
    "a dot": ".",
    "a dot before the name": ".example.com",
    "a hyphen": "-",
    "a label that is too long": "a" * 64 + ".example",
}


@pytest.mark.parametrize("line", UNMATCHABLE.values(), ids=UNMATCHABLE)
@pytest.mark.parametrize("mode", [STSMode.ENFORCE, STSMode.TESTING])
def test_an_mx_line_that_no_host_can_match_is_ignored_and_told_and_the_others_bind(line: str, mode: STSMode) -> None:
    policy = parse_policy(lines(mode=mode) + f"mx: {line}\nmx: *.good.example\n".encode())
    assert policy == a_policy("mail.example.com", "*.good.example", mode=mode)
    assert policy.ignored == (f"no host can match mx: {line[:100]!r}",)


@pytest.mark.parametrize("line", UNMATCHABLE.values(), ids=UNMATCHABLE)
def test_a_policy_that_only_has_such_lines_is_none_and_says_why(line: str) -> None:
    with pytest.raises(MalformedPolicy, match="no mx line, which mode enforce needs; no host can match mx:"):
        parse_policy(lines(mx=line))
    assert parse_policy(lines(mx=line, mode="none")) == a_policy(mode=STSMode.NONE)


@pytest.mark.parametrize("name", ["MX", "Mx", "mX"])
def test_an_mx_line_with_its_name_in_another_case_is_ignored_and_told(name: str) -> None:
    policy = parse_policy(lines() + f"{name}: other.example\n".encode())
    assert policy == a_policy("mail.example.com")
    assert policy.ignored == (f"names are in lower case: '{name}: other.example'",)


def test_a_hundred_bad_lines_are_not_all_told() -> None:
    policy = parse_policy(lines() + b"mx: *\n" * 100)
    assert len(policy.ignored) == MAX_IGNORED


@pytest.mark.parametrize(("body", "expected"), GOOD.values(), ids=GOOD)
def test_a_good_policy(body: bytes, expected: STSPolicy) -> None:
    assert parse_policy(body) == expected
    assert parse_policy(body).ignored == ()


@pytest.mark.parametrize(("body", "reason"), BAD.values(), ids=BAD)
def test_a_bad_policy_is_no_policy(body: bytes, reason: str) -> None:
    with pytest.raises(MalformedPolicy, match=reason):
        parse_policy(body)


def test_as_many_mx_lines_as_allowed() -> None:
    body = lines() + b"mx: a.example\n" * (MAX_MX_LINES - 1)
    assert len(parse_policy(body).mx) == MAX_MX_LINES


def test_as_large_as_allowed() -> None:
    body = lines() + b"x: "
    assert parse_policy(body + b"y" * (MAX_POLICY_SIZE - len(body))) == a_policy("mail.example.com")


@pytest.mark.parametrize(
    ("mode", "max_age", "mx"),
    [
        (STSMode.ENFORCE, timedelta(seconds=-1), "a.example"),
        (STSMode.ENFORCE, MAX_LIFETIME + timedelta(seconds=1), "a.example"),
        (STSMode.ENFORCE, timedelta(milliseconds=1500), "a.example"),
    ],
)
def test_a_policy_that_cannot_be_cannot_be_made(mode: STSMode, max_age: timedelta, mx: str) -> None:
    with pytest.raises(InvalidValue):
        a_policy(mx, mode=mode, max_age=max_age)


def test_a_policy_with_too_many_patterns_cannot_be_made() -> None:
    with pytest.raises(InvalidValue):
        a_policy(*["a.example"] * (MAX_MX_LINES + 1))


# --- Patterns: RFC 8461 4.1 ---------------------------------------------------------------------

MATCHES = [
    # pattern, host, whether it matches
    ("mail.example.com", "mail.example.com", True),
    ("mail.example.com", "MAIL.Example.com.", True),
    ("MAIL.example.com.", "mail.example.com", True),
    ("mail.example.com", "mail.example.net", False),
    ("mail.example.com", "mx.mail.example.com", False),
    ("example.com", "mail.example.com", False),
    ("*.example.com", "mail.example.com", True),
    ("*.example.com", "Mail.EXAMPLE.com.", True),
    ("*.example.com", "example.com", False),
    ("*.example.com", "a.b.example.com", False),
    ("*.example.com", "mail.notexample.com", False),
    ("*.example.com", "mailexample.com", False),
    ("*.b.example.com", "a.b.example.com", True),
    ("*.com", "example.com", True),
    ("*.example", "example", False),
    ("com", "com", True),
    ("*.bücher.example", "mx.xn--bcher-kva.example", True),
    ("mx.xn--bcher-kva.example", "mx.bücher.example", True),
    ("*.XN--BCHER-KVA.example", "mx.Bücher.example", True),
    ("*.example.com", "xn--bcher-kva.example.com", True),
]


@pytest.mark.parametrize(("pattern", "host", "expected"), MATCHES)
def test_which_hosts_a_pattern_names(pattern: str, host: str, expected: bool) -> None:
    policy = a_policy("elsewhere.example.org", pattern)
    assert match_mx(policy, Domain.parse(host)) is expected


def test_a_policy_without_patterns_names_nobody() -> None:
    assert not match_mx(a_policy(mode=STSMode.NONE), Domain("example.com"))


def test_the_policy_host() -> None:
    assert policy_host(Domain("example.com")) == Domain("mta-sts.example.com")
    with pytest.raises(InvalidValue):
        policy_host(Domain(".".join(["a" * 49] * 5)))


# --- Properties ---------------------------------------------------------------------------------

label = st.from_regex(r"\A[a-z0-9](?:[a-z0-9-]{0,20}[a-z0-9])?\Z")
domains = st.lists(label, min_size=1, max_size=4).map(lambda labels: Domain(".".join([*labels, "example"])))
patterns = st.builds(MXPattern, domains, st.booleans())
ages = st.integers(0, 31_557_600).map(lambda seconds: timedelta(seconds=seconds))
policies = st.builds(STSPolicy, st.sampled_from(STSMode), ages, st.lists(patterns, min_size=1, max_size=20).map(tuple))


@given(policies)
def test_what_is_encoded_is_parsed_again(policy: STSPolicy) -> None:
    assert parse_policy(policy.encode()) == policy
    assert parse_policy(policy.encode().replace(b"\n", b"\r\n")) == policy


def test_the_largest_policy_survives_encoding() -> None:
    name = ".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 61])
    policy = a_policy(*[f"*.{name}"] * 251)
    assert len(policy.encode()) <= MAX_POLICY_SIZE
    assert parse_policy(policy.encode()) == policy


@given(policies, st.binary(max_size=40), st.integers(0, 400))
def test_damage_gives_a_valid_policy_or_none(policy: STSPolicy, junk: bytes, at: int) -> None:
    body = policy.encode()
    damaged = body[:at] + junk + body[at:]
    try:
        found = parse_policy(damaged)
    except MalformedPolicy:
        return
    assert parse_policy(found.encode()) == found


@given(st.binary(max_size=200))
def test_anything_can_be_served(body: bytes) -> None:
    with pytest.raises(MalformedPolicy):
        parse_policy(body)


def test_every_prefix_of_a_policy_is_no_policy_until_its_last_field_begins() -> None:
    body, policy = GOOD["LF"]
    assert policy.max_age == WEEK
    for end in range(len(body)):
        try:
            found = parse_policy(body[:end])
        except MalformedPolicy:
            continue
        assert end > body.index(b"max_age: ") + len("max_age: ")
        assert found.max_age <= policy.max_age
        assert found.mx == policy.mx


@given(domains, domains)
def test_a_wildcard_covers_exactly_one_label(base: Domain, host: Domain) -> None:
    covers = match_mx(STSPolicy(STSMode.ENFORCE, WEEK, (MXPattern(base, wildcard=True),)), host)
    head, _, rest = host.ascii.partition(".")
    assert covers == (bool(head) and rest == base.ascii)


# --- The lines as they came (RFC 8460 4.4) ----------------------------------------------------------

SERVED = (
    b"\xef\xbb\xbfversion: STSv1\r\n\nMX: a.example\r\nmode:\tenforce  \nmx: 192.0.2.1\nmx: a.example\nmax_age: 604800"
)
AS_SERVED = ("version: STSv1", "MX: a.example", "mode:\tenforce  ", "mx: 192.0.2.1", "mx: a.example", "max_age: 604800")


def test_a_policy_keeps_its_lines_as_they_were_served_errors_included() -> None:
    policy = parse_policy(SERVED)
    assert policy.lines == AS_SERVED
    assert len(policy.ignored) == 2


def test_what_is_no_policy_says_what_was_served() -> None:
    with pytest.raises(MalformedPolicy) as caught:
        parse_policy(SERVED.replace(b"enforce", b"enf\xff\x00rce"))
    assert caught.value.lines == ("version: STSv1", "MX: a.example", "mode:\tenf\ufffd\x00rce  ", *AS_SERVED[3:])


def test_of_many_long_lines_the_first_are_kept_and_each_is_cut_at_an_octet_and_in_no_character() -> None:
    served = (
        b"version: STSv1\nmode: none\nmax_age: 1\n" + ("x: " + "\u20ac" * 400 + "\n").encode() * 50 + b"y: z\n" * 50
    )
    lines = parse_policy(served).lines
    assert len(lines) == 64
    assert lines[3] == "x: " + "\u20ac" * 84  # 255 octets


def test_policies_that_demand_the_same_are_equal_however_they_are_written() -> None:
    assert parse_policy(SERVED) == parse_policy(parse_policy(SERVED).encode())
