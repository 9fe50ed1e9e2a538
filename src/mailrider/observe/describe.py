"""Events in words: a level, a name and fields for each. Pure.

The log and the counters are made from these. Names are stable, for those who search; fields are short and in the
field's terms. One line a recipient tells the end of it; the rest explains.
"""

from __future__ import annotations

import dataclasses
import re
from datetime import datetime
from functools import singledispatch
from typing import TYPE_CHECKING

from mailrider.model import daemon_event as daemon_events
from mailrider.model import endpoint_event as endpoint_events
from mailrider.model import event as events
from mailrider.model import queue_event as queue_events
from mailrider.model.outcome import Status
from mailrider.model.value import value
from mailrider.policy.sts import events as policy_events

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mailrider.model.outcome import Outcome

DEBUG, INFO, WARNING, ERROR = "debug", "info", "warning", "error"

# What wants an operator's attention; the fields say why.
_ERRORS = (
    daemon_events.ReloadRefused,
    daemon_events.LogNotReopened,
    daemon_events.WorkerFailed,
    queue_events.HeldAfterDeaths,
)
_WARNINGS = (
    daemon_events.EarlierWorkersAwaited,
    daemon_events.VersionChanged,
    daemon_events.WorkerDied,
    daemon_events.WorkerHangs,
    daemon_events.LogLinesLost,
    daemon_events.RunningAsRoot,
    endpoint_events.AddressLeftOut,
    endpoint_events.AliasUnusable,
    endpoint_events.ClientRefused,
    endpoint_events.ClientTurnedAway,
    endpoint_events.LoginFailed,
    endpoint_events.LoginHeldBack,
    endpoint_events.MailRefused,
    events.NothingEnforced,
    events.DNSSECValidationFails,
    events.DNSServerUnfit,
    events.RootKeysMissing,
    events.TestingPolicyMissed,
    policy_events.CacheFault,
    policy_events.PolicyExpired,
    policy_events.PolicyFetchFailed,
    policy_events.PolicyLinesIgnored,
    policy_events.RecordLookupFailed,
    policy_events.RecordUnusable,
    queue_events.DestinationDown,
    queue_events.NotificationDropped,
    queue_events.RecipientsUnreadable,
)

_WORD_BORDER = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


@value
class LogLine:
    """One line of the log. `error` is the exception whose traceback belongs to it."""

    level: str
    name: str
    fields: Mapping[str, object]
    error: BaseException | None = None


@singledispatch
def describe(event: events.Event) -> LogLine:
    """The line for an event; any event has one, whether this module knows it or not."""
    values = {field.name: getattr(event, field.name) for field in dataclasses.fields(event)}
    fields = {name: _plain(value) for name, value in values.items()}
    for name in ("message", "message_id", "size"):
        if fields.get(name, name) in ("", None):
            del fields[name]  # most of what happens belongs to no message
    if fields.get("sender") == "":
        fields["sender"] = "<>"
    error = next((value for value in values.values() if isinstance(value, BaseException)), None)
    level = (
        ERROR if error is not None or isinstance(event, _ERRORS) else WARNING if isinstance(event, _WARNINGS) else INFO
    )
    return LogLine(DEBUG if event.is_detail else level, event_name(type(event)), fields, error)


# Names that are not those of the classes.
_NAMES: dict[type[events.Event], str] = {
    events.CandidateRefused: "refused_by_policy",
    events.LookupDidFail: "lookup_failed",
    events.SecurityUnavailable: "dnssec_and_dane_off",
    queue_events.QueueShort: "queue_disk_short",
}
# Of these the name depends on what happened.
VARIOUS = (events.RecipientSettled, queue_events.RecipientDone, events.ServerTrustChanged)


def log_name(event: events.Event) -> str:
    """The name that an event has in the log."""
    if isinstance(event, events.RecipientSettled):
        return event.outcome.status.value
    if isinstance(event, queue_events.RecipientDone):
        return f"queue_{'failed' if event.given_up else event.outcome.status}"
    if isinstance(event, events.ServerTrustChanged):
        return "dns_server_validates_again" if event.believed else "dns_server_does_not_validate"
    return event_name(type(event))


def event_name(kind: type[events.Event]) -> str:
    """`ConnectionOpened` as `connection_opened`, if it has no other name."""
    return _NAMES.get(kind) or _WORD_BORDER.sub("_", kind.__name__).lower()


_PLAIN = frozenset({str, int, bool, type(None)})


def _plain(value: object) -> object:
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds").replace("+00:00", "Z")
    return value if type(value) in _PLAIN else str(value)


def _present(**fields: object) -> dict[str, object]:
    """The fields that say something."""
    return {
        name: value if type(value) in _PLAIN else _plain(value)
        for name, value in fields.items()
        if value or (value is not None and value != "" and value != ())
    }


def _safety(outcome: Outcome) -> dict[str, object]:
    """Where an attempt got, and how safely."""
    security = outcome.security
    return {
        "mx": outcome.mx,
        "address": outcome.address,
        "mx_level": security.mx_level.word,
        "tls_level": security.tls_level.word,
        "authenticated_by": security.authenticated_by,
        "tls_version": security.tls_version,
    }


@describe.register
def _(event: events.RecipientSettled) -> LogLine:
    outcome = event.outcome
    level = INFO if outcome.status is Status.DELIVERED else WARNING
    return LogLine(
        DEBUG if event.is_detail else level,
        outcome.status.value,
        _present(
            message=event.message,
            recipient=outcome.recipient,
            sender=event.sender or "<>",
            **_safety(outcome),
            code=outcome.reply.code,
            enhanced=outcome.reply.status,
            text=outcome.reply.text,
            tries=len(outcome.tries),
            in_doubt="yes" if outcome.in_doubt else None,
            eligible_at=getattr(outcome, "eligible_at", None),
        ),
    )


@describe.register
def _(event: endpoint_events.MailTaken) -> LogLine:
    return LogLine(
        INFO,
        "mail_taken",
        {
            "message": event.message,
            "message_id": event.message_id,
            "endpoint": event.endpoint,
            "client": event.client,
            "user": event.user,
            "protocol": event.protocol,
            "sender": event.sender,
            "recipients": event.recipients,
            "size": event.size,
            "reply": str(event.reply),
        },
    )


@describe.register
def _(event: queue_events.RecipientDone) -> LogLine:
    outcome = event.outcome
    end = "failed" if event.given_up else str(outcome.status)
    return LogLine(
        INFO if end == "delivered" else WARNING,
        f"queue_{end}",
        _present(
            message=event.message,
            recipient=outcome.recipient,
            sender=event.sender or "<>",
            **_safety(outcome),
            tries=event.tries or None,
            retry_at=event.retry_at,
            given_up="yes" if event.given_up else None,
            operator=event.operator or None,
            in_doubt="yes" if outcome.in_doubt else None,
            reply=outcome.reply,
        ),
    )


@describe.register
def _(event: queue_events.QueueUnavailable) -> LogLine:
    return LogLine(ERROR, "queue_unavailable", _present(reason=event.reason))


@describe.register
def _(event: queue_events.QueueShort) -> LogLine:
    return LogLine(ERROR, "queue_disk_short", _present(free=event.free, reserve=event.reserve))


@describe.register
def _(event: queue_events.OutcomeUnrecorded) -> LogLine:
    recipients = " ".join(event.recipients)
    return LogLine(
        ERROR, "outcome_unrecorded", _present(message=event.message, recipients=recipients, reason=event.reason)
    )


@describe.register
def _(event: queue_events.LeaseLost) -> LogLine:
    return LogLine(WARNING, "lease_lost", _present(message=event.message, recipients=" ".join(event.recipients)))


@describe.register
def _(event: queue_events.AttemptInterrupted) -> LogLine:
    return LogLine(
        WARNING, "attempt_interrupted", _present(message=event.message, recipients=" ".join(event.recipients))
    )


@describe.register
def _(event: events.CandidatesFound) -> LogLine:
    found = event.candidates
    return LogLine(
        DEBUG,
        "candidates_found",
        _present(
            next_hop=found.next_hop,
            mx=", ".join(f"{each.preference} {each.host}" for each in found.candidates),
            implicit="yes" if found.implicit else None,
            authentic="yes" if found.authentic else "no",
        ),
    )


@describe.register
def _(event: events.CandidateRefused) -> LogLine:
    refusal = event.refusal
    return LogLine(
        WARNING,
        "refused_by_policy",
        _present(
            message=event.message,
            next_hop=event.next_hop,
            mx=event.mx,
            address=event.address,
            policy=refusal.policy,
            code=refusal.code,
            enhanced=refusal.enhanced,
            reason=refusal.reason,
        ),
    )


@describe.register
def _(event: events.AddressFailed) -> LogLine:
    return LogLine(
        INFO,
        "address_failed",
        _present(
            message=event.message,
            next_hop=event.next_hop,
            mx=event.mx,
            address=event.address,
            stage=event.stage,
            reply=event.reply,
        ),
    )


@describe.register
def _(event: events.ConnectionOpened) -> LogLine:
    tls = event.tls_version or "none"
    fields = _present(mx=event.mx, address=event.address, tls=tls, cipher=event.cipher, reason=event.clear_reason)
    return LogLine(DEBUG, "connection_opened", fields)


@describe.register
def _(event: events.ConnectionJudged) -> LogLine:
    security = event.security
    return LogLine(
        DEBUG,
        "connection_judged",
        _present(
            message=event.message,
            next_hop=event.next_hop,
            mx=event.mx,
            address=event.address,
            mx_level=security.mx_level.word,
            tls_level=security.tls_level.word,
            authenticated_by=security.authenticated_by,
            reason=event.reason,
        ),
    )


@describe.register
def _(event: events.FellBackToClear) -> LogLine:
    fields = _present(
        message=event.message, next_hop=event.next_hop, mx=event.mx, address=event.address, reason=event.reason
    )
    return LogLine(WARNING, "fell_back_to_clear", fields)


@describe.register
def _(event: events.LookupDidFail) -> LogLine:
    return LogLine(
        WARNING,
        "lookup_failed",
        _present(
            message=event.message,
            name=event.name,
            type=event.record_type,
            reason=event.reason,
            consequence=event.consequence,
        ),
    )


@describe.register
def _(event: policy_events.PolicyFetchFailed) -> LogLine:
    fields = _present(domain=event.domain, failure=event.failure, reason=event.reason)
    return LogLine(WARNING, "policy_fetch_failed", {**fields, "in_force": _plain(event.in_force)})


@describe.register
def _(event: events.SecurityUnavailable) -> LogLine:
    return LogLine(WARNING, "dnssec_and_dane_off", _present(reason=event.reason))


@describe.register
def _(event: events.ServerTrustChanged) -> LogLine:
    name = "dns_server_validates_again" if event.believed else "dns_server_does_not_validate"
    return LogLine(INFO if event.believed else WARNING, name, _present(server=event.server, reason=event.reason))


@describe.register
def _(event: events.Bug) -> LogLine:
    error = f"{type(event.error).__name__}: {event.error}"
    fields = _present(message=event.message, where=event.where, error=error, consequence="deferred")
    return LogLine(ERROR, "bug", fields, event.error)
