"""Whether a certificate chain satisfies TLSA records (RFC 7671 5.1 and 5.2, RFC 7672 3.1).

DANE-EE(3): the server's certificate, or its key, is the one in DNS. Nothing else is looked at: no names, no dates, no
other certificate, not even whether the certificate can be decoded beyond the key that is compared.

DANE-TA(2): a path leads from the server's certificate to the one in DNS, or to the key in DNS. The anchor is

- a certificate that the server sent, other than its own, which the record matches; or
- the whole certificate in the record (2 0 0), sent or not; or
- the bare key in the record (2 1 0), if it signed the topmost certificate that was sent.

Then all that PKIX asks of a path, purposes, CA flags and names holds (`x509.verify.check_server`), with one of the
policy's reference names. Dates are those of every certificate on the path, the anchor's too: RFC 7671 5.1 lifts them
for DANE-EE only, and OpenSSL judges the same; a bare key has none. A record that names the server's own certificate
is no DANE-TA match, also as in OpenSSL, and the reason says that DANE-EE is meant; except the bare key that signed it.

One match suffices. Nothing here is secret, so digests are compared plainly.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mailrider.dane.tlsa import CERT, DANE_EE, DANE_TA, FULL, MAX_RECORDS, SHA256, SPKI, show
from mailrider.errors import InvalidValue
from mailrider.model.security import Mechanism, TLSARecord, Verdict
from mailrider.model.tls_problem import TLSProblem, TLSProblemKind
from mailrider.x509.certificate import MAX_CHAIN, as_reason, parse_certificate, read_chain
from mailrider.x509.keys import PublicKey, subject_public_key_info, weak_signature
from mailrider.x509.verify import TimedVerdict, check_server, timed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

    from mailrider.model.security import DANETrust
    from mailrider.x509.certificate import Certificate, SentChain

MAX_PATHS = 8  # anchors that a path is sought to; each costs the signatures of a chain. In the wild it is one
MAX_REASONS = 4  # records whose failure one reason explains


def judge_dane(chain: Sequence[bytes], trust: DANETrust, now: datetime) -> TimedVerdict:
    """Whether `chain` (DER, leaf first) matches one of `trust.records`, which are usable ones, at `now` (aware).

    With it, for how long the answer holds.
    """
    if not chain:
        text = "the server sent no certificate"
        return TimedVerdict(_no(text, (TLSProblem(TLSProblemKind.NO_CERTIFICATE, text),)))
    records = trust.records[:MAX_RECORDS]
    failures = []
    for record in records:
        if record.usage == DANE_EE:
            found = _like(record, chain[0])
            if found == record:
                return TimedVerdict(_yes(f"{show(record)} is the server's {_certificate_or_key(record)}"))
            why = f"the server has {show(found)}" if found else "the server's certificate cannot be read"
            failures.append(f"{show(record)}: {why}")
    anchored = [record for record in records if record.usage == DANE_TA]
    if not anchored:
        return TimedVerdict(_no(_summary(failures)))
    return _judge_anchors(chain, anchored, trust, failures, now)


def _judge_anchors(
    chain: Sequence[bytes], records: Sequence[TLSARecord], trust: DANETrust, failures: list[str], now: datetime
) -> TimedVerdict:
    """The DANE-TA records, after DANE-EE has failed with `failures`."""
    sent = read_chain(chain)
    if sent.leaf is None:
        return TimedVerdict(_no(_summary([*failures, *sent.complaints])))
    involved = list(sent.certificates)
    problems: list[TLSProblem] = []
    tries = 0
    for record in records:
        anchors = list(_find_anchors(record, chain, sent, sent.leaf))
        if not anchors:
            failures.append(f"{show(record)}: {_why_no_anchor(record, chain)}")
        for anchor in anchors[: MAX_PATHS - tries]:
            tries += 1
            involved.append(anchor.certificate)
            checked = check_server(sent.leaf, sent.others, (anchor.certificate,), trust.names, now, common_name=True)
            if not checked.problems:
                return timed(_yes(f"{show(record)} is {anchor.what}; {checked.praise}"), involved, now)
            problems += checked.problems
            failures.append(f"{show(record)} is {anchor.what}, but: {'; '.join(map(str, checked.problems))}")
    reason = _summary([*failures, *sent.complaints])
    return timed(_no(reason, tuple(dict.fromkeys(problems))), involved, now)


@dataclass(frozen=True, slots=True)
class _Anchor:
    """A certificate that a DANE-TA record makes trusted, and what it is, for people."""

    certificate: Certificate
    what: str


def _find_anchors(record: TLSARecord, chain: Sequence[bytes], sent: SentChain, leaf: Certificate) -> Iterator[_Anchor]:
    """The trust anchors that a record gives to this chain."""
    found = False
    for certificate in sent.others:
        if certificate != leaf and _like(record, certificate.der) == record:
            found = True
            which = chain.index(certificate.der) + 1
            yield _Anchor(
                certificate, f"the {_certificate_or_key(record)} of {certificate.subject} (certificate {which} sent)"
            )
    if found or record.matching_type != FULL:
        return
    # RFC 7671 5.2.1 and 5.2.3: a whole certificate or key in DNS need not be sent.
    try:
        if record.selector == CERT:
            certificate = parse_certificate(record.data)
            if certificate != leaf:
                yield _Anchor(certificate, f"the certificate of {certificate.subject} (from DNS)")
        else:
            key = PublicKey.parse(record.data)
            top = _top(leaf, sent.others)
            if not key.weakness and not weak_signature(top.parsed) and key.signed(top.parsed):
                yield _Anchor(top, f"the key that signed the certificate of {top.subject} (from DNS)")
    except InvalidValue:
        return  # not a usable record


def _top(leaf: Certificate, others: Iterable[Certificate]) -> Certificate:
    """The last certificate on the way up from the leaf, as far as the server sent it."""
    remaining = [certificate for certificate in others if certificate != leaf]
    top = leaf
    while not top.is_self_issued:
        above = next((certificate for certificate in remaining if certificate.subject_key == top.issuer_key), None)
        if above is None:
            break
        remaining.remove(above)
        top = above
    return top


def _like(record: TLSARecord, der: bytes) -> TLSARecord | None:
    """The record that would match this certificate, of the same kind as `record`; None if it cannot be read."""
    try:
        data = der if record.selector == CERT else subject_public_key_info(der)
    except InvalidValue:
        return None
    if record.matching_type != FULL:
        data = (hashlib.sha256 if record.matching_type == SHA256 else hashlib.sha512)(data).digest()
    return TLSARecord(record.usage, record.selector, record.matching_type, data)


def _why_no_anchor(record: TLSARecord, chain: Sequence[bytes]) -> str:
    thing = _certificate_or_key(record)
    if _like(record, chain[0]) == record:
        return f"it is the server's own {thing}; DANE-TA(2) needs that of its issuer; usage 3 would match"
    if record.matching_type == FULL and record.selector == SPKI:
        return (
            "no issuer's certificate that the server sent has this key, and no certificate has a strong signature by it"
        )
    if len(chain) == 1:
        return f"the server sent no certificate but its own, so no issuer's {thing} could match"
    return f"of the certificates that the server sent besides its own ({min(len(chain), MAX_CHAIN) - 1}) none matches"


def _certificate_or_key(record: TLSARecord) -> str:
    return "certificate" if record.selector == CERT else "key"


def _summary(failures: Sequence[str]) -> str:
    shown, more = list(failures[:MAX_REASONS]), len(failures) - MAX_REASONS
    if more > 0:
        shown.append(f"and {more} more")
    return f"no TLSA record matches: {as_reason(shown)}"


def _yes(reason: str) -> Verdict:
    return Verdict(True, Mechanism.DANE, reason)


def _no(reason: str, problems: tuple[TLSProblem, ...] = ()) -> Verdict:
    """`problems`: what is wrong with a chain in spite of a match; none is wrong but that nothing matches."""
    return Verdict(False, Mechanism.DANE, reason, problems or (TLSProblem(TLSProblemKind.DANE_NO_MATCH, reason),))
