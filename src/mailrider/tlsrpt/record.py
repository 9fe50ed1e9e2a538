"""The TXT record that asks for TLS reports (RFC 8460 3).

`v=TLSRPTv1; rua=mailto:reports@example.org,https://example.org/v1/tlsrpt` at `_smtp._tls.<domain>`. The record is not
authenticated: whoever controls the zone says where reports go, so each address is a stranger's word and is parsed
strictly. `find_record` never raises for what the zone's owner wrote: it returns a `NoReportRecord` with the reason.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_to_bytes, urlsplit

from mailrider.errors import InvalidValue
from mailrider.model.address import Mailbox
from mailrider.model.domain import AddressLiteral, Domain

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_RECORD: Final = 4096  # octets; RFC 8460 names no bound, a record with five long addresses has some 500
MAX_ENDPOINTS: Final = 5  # addresses that one domain's reports go to; what stands behind them is passed over
MAX_URI: Final = 1024  # octets of one address

_PREFIX: Final = b"v=TLSRPTv1"
_DELIMITER = re.compile(r"[ \t]*;[ \t]*")
_COMMA = re.compile(r"[ \t]*,[ \t]*")
_FIELD = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]{0,31})[ \t]*=[ \t]*(.*)")
# RFC 3986 characters; RFC 8460 3 wants `,`, `!` and `;` percent-encoded in an address.
_URI = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@$&'()*+=%]+")


@dataclass(frozen=True, slots=True)
class MailEndpoint:
    """Reports go to a mailbox."""

    address: Mailbox

    def __str__(self) -> str:
        return f"mailto:{self.address}"


@dataclass(frozen=True, slots=True)
class HTTPSEndpoint:
    """Reports are posted to a URL: `https`, with a host name, no user, password or fragment."""

    url: str

    def __str__(self) -> str:
        return self.url


Endpoint = MailEndpoint | HTTPSEndpoint


@dataclass(frozen=True, slots=True)
class TLSRPTRecord:
    """Where a domain wants its reports: at least one endpoint."""

    endpoints: tuple[Endpoint, ...]


@dataclass(frozen=True, slots=True)
class NoReportRecord:
    """The domain wants no reports, or its record has a mistake."""

    reason: str


@lru_cache(maxsize=16384)
def record_name(domain: Domain) -> Domain:
    """Where the record stands; `InvalidValue` if that name would be too long to exist."""
    return Domain(f"_smtp._tls.{domain.ascii}")


def find_record(texts: Sequence[bytes]) -> TLSRPTRecord | NoReportRecord:
    """The record among the TXT records at `record_name`, the strings of each joined without spaces."""
    # RFC 8460 3: records that do not begin with the version are discarded; then exactly one must be left.
    candidates = [text for text in texts if _is_tlsrpt(text)]
    if not candidates:
        return NoReportRecord("no TXT record begins with v=TLSRPTv1;")
    if len(candidates) > 1:
        return NoReportRecord(f"{len(candidates)} TXT records begin with v=TLSRPTv1;, one is allowed")
    return _parse_record(candidates[0])


def _is_tlsrpt(text: bytes) -> bool:
    return text.startswith(_PREFIX) and text[len(_PREFIX) :].lstrip(b" \t")[:1] in (b";", b"")


def _parse_record(text: bytes) -> TLSRPTRecord | NoReportRecord:
    if len(text) > MAX_RECORD:
        return NoReportRecord(f"the record is longer than {MAX_RECORD} octets")
    if not text.isascii():
        return NoReportRecord("the record is not ASCII")
    fields = [field for field in _DELIMITER.split(text.decode("ascii").strip(" \t"))[1:] if field]
    uris: list[str] = []
    for field in fields:
        match = _FIELD.fullmatch(field)
        if match is None:
            return NoReportRecord(f"not a name=value field: {field[:100]!r}")
        if match[1] == "rua":
            uris += _COMMA.split(match[2])
    if not any(uris):
        return NoReportRecord("the record has no rua: nowhere to send reports to")
    return _choose_endpoints(uris)


def _choose_endpoints(uris: Sequence[str]) -> TLSRPTRecord | NoReportRecord:
    endpoints: dict[Endpoint, None] = {}
    unusable: list[str] = []
    for uri in uris[:MAX_ENDPOINTS]:
        try:
            endpoints[parse_endpoint(uri)] = None
        except InvalidValue as error:
            unusable.append(str(error))
    if not endpoints:
        return NoReportRecord(f"no address of rua can be used: {'; '.join(unusable)}")
    return TLSRPTRecord(tuple(endpoints))


def parse_endpoint(uri: str) -> Endpoint:
    """One URI of `rua`. Raises `InvalidValue`, which says what is wrong with it."""
    if len(uri) > MAX_URI or not _URI.fullmatch(uri):
        raise InvalidValue(f"not a URI: {uri[:100]!r}")
    scheme, colon, rest = uri.partition(":")
    match scheme.lower():
        case "mailto" if colon:
            return _parse_mailto(rest, uri)
        case "https" if colon:
            return _parse_https(uri)
        case _:
            raise InvalidValue(f"reports go to mailto: and https: addresses only, not to {uri[:100]!r}")


def _parse_mailto(rest: str, uri: str) -> MailEndpoint:
    if rest.startswith("//"):  # a host's name follows (RFC 3986 3.2), as in a web address: whose mailbox is meant?
        raise InvalidValue(f"not a mail address: {uri[:100]!r}")
    path = rest.partition("#")[0].partition("?")[0]
    try:
        mailbox = _parse_address(unquote_to_bytes(path).decode("utf-8"))
    except (InvalidValue, UnicodeDecodeError) as error:
        raise InvalidValue(f"not a mail address: {uri[:100]!r}") from error
    if not isinstance(mailbox.domain, Domain):
        raise InvalidValue(f"a mail address with a domain is needed: {uri[:100]!r}")
    if not str(mailbox).isascii():
        # Reports are mail that any server takes: they need no SMTPUTF8 (RFC 6531).
        raise InvalidValue(f"an address that needs SMTPUTF8 is not used: {uri[:100]!r}")
    return MailEndpoint(mailbox)


def _parse_address(text: str) -> Mailbox:
    local, at, domain = text.partition("@")
    if local and at and not local.startswith('"') and "@" not in domain:
        # RFC 6068 2 wants quotes around a local part with a comma or semicolon; nobody writes them.
        return Mailbox(local, Domain.parse(domain))
    return Mailbox.parse(text)


def _parse_https(uri: str) -> HTTPSEndpoint:
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise InvalidValue(f"not a URL: {uri[:100]!r}") from error
    if "@" in parts.netloc:
        raise InvalidValue(f"a URL with a user name or password is not used: {uri[:100]!r}")
    if "#" in uri:
        raise InvalidValue(f"a URL with a fragment is not used: {uri[:100]!r}")
    if port == 0 or _is_address(host):
        raise InvalidValue(f"a URL with a host name is needed: {uri[:100]!r}")
    Domain.parse(host)
    return HTTPSEndpoint(uri)


def _is_address(host: str) -> bool:
    """True for an IP address in any spelling that a resolver library might take for one (`127.1`, `0x7f000001`)."""
    if ":" in host or not host:
        return True
    try:
        AddressLiteral.parse(f"[{host}]")
    except InvalidValue:
        last = host.rstrip(".").rpartition(".")[2]
        return last.isdigit() or last.lower().startswith("0x")
    return True
