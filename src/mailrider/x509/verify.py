"""What a certificate chain proves by trusted roots: PKIX (RFC 5280, RFC 9525; RFC 8461 4.1 for mail).

A pure function of (chain, anchors, names, now): no socket, no file, no clock, and no exception for anything that a
peer may send. The verdict carries its reason in a postmaster's words: all that is wrong, not only the first thing.

Nothing but the passing of a notBefore or notAfter changes what a chain proves to given anchors and names. So a
`TimedVerdict` holds between the two such moments that are nearest to the time of judgement, and may be kept that long.

`check_server` is the part that DANE-TA shares: the same path, purposes, strength and names, by other anchors.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cryptography import x509

from mailrider.model.security import Mechanism, Verdict
from mailrider.model.tls_problem import TLSProblem, TLSProblemKind
from mailrider.x509.certificate import as_reason, read_chain
from mailrider.x509.names import find_match, name_problem, presented_names
from mailrider.x509.path import date, find_path
from mailrider.x509.verify_error import VerifyError, problem_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from mailrider.model.domain import Domain
    from mailrider.x509.anchors import Anchors
    from mailrider.x509.certificate import Certificate, SentChain


_BEGINNING = datetime.min.replace(tzinfo=UTC)
_END = datetime.max.replace(tzinfo=UTC)
_SECOND = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class TimedVerdict:
    """A verdict that is the same at every moment from `since` up to, but not including, `until`."""

    verdict: Verdict
    since: datetime = _BEGINNING
    until: datetime = _END


def timed(verdict: Verdict, certificates: Iterable[Certificate], now: datetime) -> TimedVerdict:
    """The verdict of `now` with its limits, if it rests on these certificates."""
    since, until = _BEGINNING, _END
    for certificate in certificates:
        # RFC 5280 4.1.2.5: valid through notAfter, inclusive; some count its last second in, some do not.
        after = certificate.not_after
        for moment in (certificate.not_before, after, after + _SECOND if after < _END - _SECOND else _END):
            if moment <= now:
                since = max(since, moment)
            else:
                until = min(until, moment)
    return TimedVerdict(verdict, since, until)


def judge_chain(chain: Sequence[bytes], anchors: Anchors, names: Collection[Domain], now: datetime) -> TimedVerdict:
    """Whether `chain` (DER, leaf first) leads to one of `anchors` and speaks for one of `names`, at `now` (aware), and
    for how long the answer holds. Without names, which is how an address literal comes here, it is no.
    """
    sent = read_chain(chain)
    if sent.leaf is None:
        return TimedVerdict(Verdict(False, Mechanism.PKIX, as_reason(sent.complaints), (no_leaf(sent, chain),)))
    concerned = anchors.concerning(sent.certificates)
    checked = check_server(sent.leaf, sent.others, concerned, names, now)
    problems = list(checked.problems)
    if not len(anchors):
        problems.append(problem_of(VerifyError.UNABLE_TO_GET_ISSUER_CERT_LOCALLY, "no trusted roots are configured"))
    if problems:
        verdict = Verdict(False, Mechanism.PKIX, as_reason((*map(str, problems), *sent.complaints)), tuple(problems))
    else:
        verdict = Verdict(True, Mechanism.PKIX, checked.praise)
    return timed(verdict, (*sent.certificates, *concerned), now)


def no_leaf(sent: SentChain, chain: Sequence[bytes]) -> TLSProblem:
    """What is wrong with a chain whose first certificate is missing or cannot be read."""
    kind = TLSProblemKind.UNREADABLE if chain else TLSProblemKind.NO_CERTIFICATE
    return TLSProblem(kind, sent.complaints[0])


@dataclass(frozen=True, slots=True)
class ServerCheck:
    """What speaks against a server's certificate; if nothing does, `praise` says what it proves."""

    problems: tuple[TLSProblem, ...]
    praise: str


def check_server(
    leaf: Certificate,
    others: Iterable[Certificate],
    anchors: Iterable[Certificate],
    names: Collection[Domain],
    now: datetime,
    *,
    common_name: bool = False,
) -> ServerCheck:
    """Everything that RFC 5280 and RFC 9525 ask of a TLS server's certificate, against these anchors.

    `common_name`: a certificate without DNS names speaks for its common name.
    """
    path = find_path(leaf, others, anchors, now)
    # A name constraint on a CA binds the DNS names only, so behind one the common name is no way round it.
    constrained = any(certificate.extension(x509.NameConstraints) for certificate in path.certificates)
    presented = presented_names(leaf, common_name=common_name and not constrained)
    wrong_name = name_problem(presented, names)
    if path.problems or wrong_name:
        return ServerCheck((*path.problems, *((wrong_name,) if wrong_name else ())), "")
    proven = find_match(presented, names)
    anchor = path.certificates[-1]
    by = f"{leaf.issuer}" + ("" if anchor.subject == leaf.issuer else f", under {anchor.subject}")
    return ServerCheck((), f"valid for {proven} until {date(leaf.not_after)}, issued by {by}")
