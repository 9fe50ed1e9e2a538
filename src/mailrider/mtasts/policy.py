"""The MTA-STS policy file and its MX patterns (RFC 8461 3.2, 4.1).

A policy says which hosts may take a domain's mail and whether they must prove it. `parse_policy` reads the file as it
came over HTTPS, `STSPolicy.encode` writes the same policy back for the cache, `match_mx` asks whether a host is named.

Both `STSPolicy` and `MalformedPolicy` keep the lines as they came, for those who are told of them (RFC 8460 4.4).

What always holds: an `STSPolicy` is valid; its patterns are A-labels in lower case without a trailing dot.
What it never does: guess. What is wrong with a file has one of three consequences:

- ignored, and told (`STSPolicy.ignored`): an mx line that no host can match (an address, an asterisk that is not the
  first label of a name, several names, a name and a comment, nothing), and a known field whose name is in another case.
  The other lines bind. (RFC 8461 4.1 compares names; to drop the whole policy would send mail in clear.)
- no policy (`MalformedPolicy`), and the caller goes on with the one it had: a line that is no `name: value` pair
  (comments, white space before the name, a bare CR, other control characters), a version, mode or max_age that is
  missing or wrong (values are case-sensitive, RFC 8461 3.2), no mx line that a host can match, too many of them, other
  text than UTF-8.
- nothing: what cannot change the meaning. Empty lines, a mix of LF and CRLF, tabs around a value, a byte order mark, a
  missing last line end, unknown fields.
"""

from __future__ import annotations

import codecs
import enum
import re
from dataclasses import dataclass, field
from datetime import timedelta

from mailrider.errors import InvalidValue, PeerError
from mailrider.model.domain import Domain
from mailrider.model.text import cut

MAX_POLICY_SIZE = 64 * 1024  # octets: RFC 8461 3.3 suggests it
MAX_MX_LINES = 4096  # what a file of that size holds, of names of 11 characters; each candidate is compared with all
MAX_IGNORED = 10  # lines that people are told of
MAX_LINES = 64  # lines that are kept as they came, for reports to the domain: nobody's policy of use has more
MAX_LINE = 255  # octets that are kept of each: RFC 8460 4.4 shows policies of short lines
MAX_LIFETIME = timedelta(seconds=31_557_600)  # one year: RFC 8461 3.2
WELL_KNOWN_PATH = "/.well-known/mta-sts.txt"  # RFC 8461 3.3

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")  # sts-policy-ext-name, and the four names we know
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")  # all but the tab, which is white space
_FIELDS = frozenset(("version", "mode", "mx", "max_age"))
_SECONDS = re.compile(r"[0-9]{1,10}")


class STSMode(enum.StrEnum):
    """What a sender is to do about a host that does not validate (RFC 8461 5)."""

    ENFORCE = "enforce"
    TESTING = "testing"
    NONE = "none"


class MalformedPolicy(PeerError, ValueError):
    """The policy host served something that is no policy; the message says what is wrong with it."""

    public = "The recipient domain's MTA-STS policy is malformed"
    lines: tuple[str, ...] = ()
    """What was served, as `STSPolicy.lines`."""


@dataclass(frozen=True, slots=True)
class MXPattern:
    """The host `domain`, or, if `wildcard`, every host that is `domain` with exactly one label in front."""

    domain: Domain
    wildcard: bool = False

    @classmethod
    def parse(cls, text: str) -> MXPattern:
        """`mx.example.com` or `*.example.com`, in any case, as A-labels or U-labels. Raises `InvalidValue`."""
        wildcard = text.startswith("*.")
        return cls(Domain.parse(text[2:] if wildcard else text), wildcard)

    def __str__(self) -> str:
        return f"*.{self.domain}" if self.wildcard else str(self.domain)


@dataclass(frozen=True, slots=True)
class STSPolicy:
    """A policy: how strict, for how long after the fetch, for which hosts.

    `ignored` are lines of the file that were passed over, with the reason, for people: the first `MAX_IGNORED`.
    `lines` are those of the file as it came, errors included: the first `MAX_LINES`, of each at most `MAX_LINE` octets.
    """

    mode: STSMode
    max_age: timedelta
    mx: tuple[MXPattern, ...] = ()
    ignored: tuple[str, ...] = field(default=(), compare=False)
    lines: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        if not timedelta(0) <= self.max_age <= MAX_LIFETIME or self.max_age.microseconds:
            raise InvalidValue(f"max_age is 0 to {MAX_LIFETIME.total_seconds():.0f} whole seconds, not {self.max_age}")
        if len(self.mx) > MAX_MX_LINES:
            raise InvalidValue(f"more than {MAX_MX_LINES} mx lines")
        # RFC 8461 3.2: at least one mx, except in mode none.
        if not self.mx and self.mode is not STSMode.NONE:
            raise InvalidValue(f"no mx line, which mode {self.mode} needs")

    def encode(self) -> bytes:
        """The policy as a file; `parse_policy` gives the same value back."""
        lines = ["version: STSv1", f"mode: {self.mode}", f"max_age: {self.max_age.total_seconds():.0f}"]
        lines += [f"mx: {pattern}" for pattern in self.mx]
        return "".join(f"{line}\n" for line in lines).encode("ascii")


def policy_host(domain: Domain) -> Domain:
    """The host that serves the policy (RFC 8461 3.3); `InvalidValue` if that name would be too long to exist."""
    return Domain(f"mta-sts.{domain.ascii}")


def match_mx(policy: STSPolicy, host: Domain) -> bool:
    """True if the policy names `host` as an MX of its domain, whatever the policy's mode."""
    # RFC 8461 4.1: a wildcard stands for the whole left-most label, and for one label only.
    parent = host.parent
    return any((parent if pattern.wildcard else host) == pattern.domain for pattern in policy.mx)


def parse_policy(body: bytes, *, max_size: int = MAX_POLICY_SIZE) -> STSPolicy:
    """The policy in the file `body`, of at most `max_size` octets. Raises `MalformedPolicy`, and nothing else."""
    lines = _lines_as_served(body)
    try:
        return _parse_policy(body, max_size, lines)
    except MalformedPolicy as error:
        error.lines = lines
        raise


def _lines_as_served(body: bytes) -> tuple[str, ...]:
    """All but empty ones. What is no UTF-8 is shown as U+FFFD."""
    lines: list[str] = []
    for raw in body.removeprefix(codecs.BOM_UTF8).split(b"\n"):
        line = raw.removesuffix(b"\r")
        if line.strip(b" \t"):
            lines.append(cut(line.decode("utf-8", "replace"), MAX_LINE))
            if len(lines) == MAX_LINES:
                break
    return tuple(lines)


def _parse_policy(body: bytes, max_size: int, lines: tuple[str, ...]) -> STSPolicy:
    first, mx_lines, ignored = _read_fields(_decode(body, max_size))
    # RFC 8461 3.2: a policy that lacks a field is invalid.
    for name in ("version", "mode", "max_age"):
        if name not in first:
            raise MalformedPolicy(f"the policy has no {name}")
    if first["version"] != "STSv1":
        raise MalformedPolicy(f"the version is {first['version'][:100]!r}, not 'STSv1'")
    mode = _parse_mode(first["mode"])
    max_age = _parse_max_age(first["max_age"])
    patterns = _read_patterns(mx_lines, ignored)
    try:
        return STSPolicy(mode, max_age, patterns, tuple(ignored[:MAX_IGNORED]), lines)
    except InvalidValue as error:
        raise MalformedPolicy("; ".join([f"bad policy: {error}", *ignored[:MAX_IGNORED]])) from error


def _read_patterns(mx_lines: list[str], ignored: list[str]) -> tuple[MXPattern, ...]:
    """The patterns that a host can match; the other lines are added to those that are ignored."""
    patterns = []
    for line in mx_lines:
        try:
            patterns.append(MXPattern.parse(line))
        except InvalidValue:
            ignored.append(f"no host can match mx: {line[:100]!r}")
    return tuple(patterns)


def _decode(body: bytes, max_size: int) -> str:
    if len(body) > max_size:
        raise MalformedPolicy(f"the policy is larger than {max_size} octets")
    try:
        return body.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise MalformedPolicy("the policy is not UTF-8") from error


def _read_fields(text: str) -> tuple[dict[str, str], list[str], list[str]]:
    """The first value of every field that stands once, the values of all mx lines, and which lines are ignored."""
    first: dict[str, str] = {}
    mx_lines: list[str] = []
    ignored: list[str] = []
    for number, raw in enumerate(text.split("\n"), start=1):
        line = raw.removesuffix("\r").rstrip(" \t")
        if not line:
            continue
        name, colon, value = line.partition(":")
        if not colon or not _NAME.fullmatch(name) or _CONTROL.search(value):
            raise MalformedPolicy(f"line {number} is not a 'name: value' pair: {line[:100]!r}")
        value = value.lstrip(" \t")
        if name == "mx":
            mx_lines.append(value)
            if len(mx_lines) > MAX_MX_LINES:
                raise MalformedPolicy(f"more than {MAX_MX_LINES} mx lines")
        elif name not in _FIELDS and name.lower() in _FIELDS:
            ignored.append(f"names are in lower case: {line[:100]!r}")
        else:
            # RFC 8461 3.2: of a field that stands twice, all but the first are ignored; so are names we do not know.
            first.setdefault(name, value)
    return first, mx_lines, ignored


def _parse_mode(value: str) -> STSMode:
    try:
        return STSMode(value)
    except ValueError as error:
        raise MalformedPolicy(f"the mode is {value[:100]!r}, not enforce, testing or none") from error


def _parse_max_age(value: str) -> timedelta:
    seconds = timedelta(seconds=int(value)) if _SECONDS.fullmatch(value) else None
    if seconds is None or seconds > MAX_LIFETIME:
        raise MalformedPolicy(f"max_age is {value[:100]!r}, not 0 to {MAX_LIFETIME.total_seconds():.0f} seconds")
    return seconds
