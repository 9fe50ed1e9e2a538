"""What an attempt writes down of all that did not work: failed tries in its tally, and events."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mailrider.delivery.connection.transcript import transcript
from mailrider.delivery.tally import FailedTry, Tally, Weight
from mailrider.model.event import AddressFailed, CandidateRefused
from mailrider.model.outcome import TryResult
from mailrider.model.reply import Reply
from mailrider.model.security import Refusal, Security
from mailrider.model.tls_problem import TLSProblem, TLSProblemKind
from mailrider.model.tls_session import TLSHostRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mailrider.delivery.connection.connect import ConnectRequest
    from mailrider.delivery.connection.unusable import Unusable
    from mailrider.model.domain import NextHop
    from mailrider.model.event import Emit
    from mailrider.model.route import Candidate
    from mailrider.model.security import Requirement
    from mailrider.model.tls_session import PoliciesSeen
    from mailrider.policy.base import Admission

BUG = Reply.make(451, "4.3.0", "Internal error")
INCOMPLETE = Reply.make(451, "4.3.0", "The message is damaged where it is kept: its end is missing")
CLOSED = Reply.make(451, "4.3.2", "Closed before the message could be sent")
STOPPED = Reply.make(451, "4.3.2", "This server is shutting down")
NOT_REACHED = Reply.make(451, "4.4.1", "Not every mail server of the domain could be tried in one attempt")
NOT_COUNTED = Reply.make(451, "4.3.0", "Connections cannot be counted at the moment; it will be tried again")
NO_TIME = Reply.make(451, "4.4.1", "The mail server is too slow for all recipients in one attempt")
NO_EXTENSION = Reply.make(550, "5.7.30", "REQUIRETLS is not supported by the recipient's mail server")


@dataclass(slots=True, eq=False)
class AttemptRecord:
    """What one attempt at a next hop writes down. `own` is what the message itself demands, `message` its id.

    `policies_seen`: what TLS reports are told of the policies of a candidate.
    """

    tally: Tally
    next_hop: NextHop
    own: Requirement
    message: str
    emit: Emit
    policies_seen: Callable[[Candidate], PoliciesSeen | None]

    def end_unreached(self, candidate: Candidate) -> None:
        """What was not asked has not said no."""
        self.tally.end(FailedTry(Weight.LOOKUP, TryResult.CONNECT, NOT_REACHED, str(candidate.host)))

    def _tell_refused(self, candidate: Candidate, problems: Iterable[TLSProblem]) -> None:
        """Tell TLS reports of a candidate that is not connected to."""
        problem = next((each for each in problems if each.kind in _REPORTED), None)
        policies = None if problem is None else self.policies_seen(candidate)
        if problem is not None and policies is not None:
            self.emit(TLSHostRefused(policies, str(candidate.host), problem))

    def refuse(self, candidate: Candidate, address: str | None, refusal: Refusal, security: Security) -> None:
        """A policy's refusal; for a REQUIRETLS message the levels it demands are permanent."""
        mx, is_judged = str(candidate.host), address is not None
        if not is_judged:
            self._tell_refused(candidate, refusal.problems)
        is_for_good = is_judged and not refusal.for_now and not security.satisfies(self.own)
        self._end_refused(mx, address, refusal, security, is_for_good=is_for_good)

    def _end_refused(
        self, mx: str, address: str | None, refusal: Refusal, security: Security, *, is_for_good: bool
    ) -> None:
        """The log has the code that the outcome will have. `is_for_good`: REQUIRETLS makes it permanent."""
        if is_for_good:
            reply = _not_qualified(mx, refusal.reason)
            refusal = replace(refusal, code=reply.code, enhanced=str(reply.status))
        else:
            reply = Reply.make(refusal.code, refusal.enhanced, f"{mx} refused by policy: {refusal.reason}")
        self.emit(CandidateRefused(self.next_hop, mx, address, refusal, message=self.message))
        stage = TryResult.REFUSED_BY_POLICY
        self.tally.end(FailedTry(Weight.POLICY, stage, reply, mx, address, security, requiretls=is_for_good))

    def refuse_level(self, candidate: Candidate, admission: Admission, requirement: Requirement) -> None:
        """The MX minimum is checked before connecting."""
        mx, security = str(candidate.host), Security(admission.level)
        demanded = f"{requirement.mx_reason} demands {requirement.min_mx}"
        doubt, refused = admission.doubt, admission.refusal
        why = doubt.text if doubt else refused.reason if refused else ""
        for_now = doubt is not None or (refused is not None and refused.for_now)
        text = f"MX level {admission.level}, {demanded}" + (f"; {why}" if why else "")
        problem = doubt or TLSProblem(TLSProblemKind.MX_LEVEL, text)
        problems = refused.problems if doubt is None and refused is not None else (problem,)
        refusal = Refusal(requirement.mx_reason, 451, "4.7.0", text, for_now, problems)
        self._tell_refused(candidate, refused.problems if refused is not None else ())
        is_for_good = admission.level < self.own.min_mx and not for_now
        self._end_refused(mx, None, refusal, security, is_for_good=is_for_good)

    def end_unqualified(self, call: ConnectRequest, reply: Reply, security: Security) -> None:
        mx, address = str(call.mx), str(call.address)
        problem = TLSProblem(TLSProblemKind.NO_REQUIRETLS, reply.text)
        refusal = Refusal("requiretls", reply.code, str(reply.status), reply.text, problems=(problem,))
        self.emit(CandidateRefused(self.next_hop, mx, address, refusal, message=self.message))
        stage = TryResult.REFUSED_BY_POLICY
        self.tally.end(FailedTry(Weight.POLICY, stage, reply, mx, address, security, requiretls=True))

    def end_unusable(self, call: ConnectRequest, error: Unusable) -> None:
        weight = Weight.SERVER if error.refusal is not None else _WEIGHT.get(error.stage, Weight.CLOSED)
        # RFC 7504: 521 says that there is no mail service here at all; permanent if every candidate says so.
        greeted_521 = error.stage is TryResult.GREETING and error.refusal is not None and error.refusal.code == 521
        if_all = error.refusal if greeted_521 else None
        failed = FailedTry(
            weight,
            error.stage,
            error.reply,
            str(call.mx),
            str(call.address),
            if_all=if_all,
            transcript=transcript(error.said),
        )
        self.fail_address(failed, error.problem)

    def end_out_of_time(self, call: ConnectRequest, security: Security, todo: Iterable[int]) -> None:
        """The server is too slow for those who are left."""
        mx, address = str(call.mx), str(call.address)
        self.tally.end(FailedTry(Weight.CLOSED, TryResult.RCPT, NO_TIME, mx, address, security), todo)

    def fail_address(self, failed: FailedTry, problem: TLSProblem | None = None) -> None:
        self.emit(
            AddressFailed(
                self.next_hop,
                failed.mx,
                failed.address,
                failed.stage,
                failed.reply,
                problem,
                message=self.message,
            )
        )
        self.tally.end(failed)


def stopped_in_doubt(mx: str) -> Reply:
    return Reply.make(451, "4.4.2", f"{mx}: we stopped before its reply to the final dot; it may have the message")


def _not_qualified(mx: str, why: str) -> Reply:
    """RFC 8689 5, 7: the sender, who demanded it, is told what was missing."""
    return Reply.make(550, "5.7.10", f"REQUIRETLS: {mx} does not reach the levels that it demands: {why}")


# What a policy refuses a host for before anything is connected to, and the domain's owner can mend.
_REPORTED = frozenset({TLSProblemKind.MX_NOT_IN_POLICY, TLSProblemKind.TLSA_LOOKUP_FAILED})
_WEIGHT = {TryResult.CONNECT: Weight.CONNECT, TryResult.TLS: Weight.TLS}
