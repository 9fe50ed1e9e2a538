"""Events in words: a level, a name and fields for each. Pure.

The log and the counters are made from these. Names are stable, for those who search; fields are short and in the
field's terms. One line a recipient tells the end of it; the rest explains.
"""

from __future__ import annotations

import dataclasses
from datetime import datetime, timedelta
from functools import singledispatch
from typing import TYPE_CHECKING, Any

from mailrider.model import endpoint_event as endpoint_events
from mailrider.model import event as events
from mailrider.model import queue_event as queue_events
from mailrider.model.event import DEBUG, INFO, WARNING
from mailrider.model.outcome import Status, is_held_back
from mailrider.model.value import value
from mailrider.policy.sts import events as policy_events

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mailrider.model.outcome import Outcome
    from mailrider.mtasts.policy import STSMode


@value
class LogLine:
    """One line of the log. `error` is the exception whose traceback belongs to it."""

    level: str
    name: str
    fields: Mapping[str, object]
    error: BaseException | None = None


def describe(event: events.Event) -> LogLine:
    """The line for an event; any event has one, whether this module knows it or not."""
    kind = type(event)
    fields_of = _KNOWN.get(kind)
    if fields_of is None:
        fields_of = _KNOWN[kind] = _fields.dispatch(kind)
    return LogLine(log_level(event), event.log_name, fields_of(event), getattr(event, "error", None))


_KNOWN: dict[type[events.Event], Callable[[Any], dict[str, object]]] = {}


def log_level(event: events.Event) -> events.EventLevel:
    """The level that an event has in the log: that of its kind, or of what came of it."""
    if event.level is not INFO:
        is_repeated = isinstance(event, endpoint_events.ClientTurnedAway) and event.is_repeated
        return DEBUG if is_repeated else event.level
    if isinstance(event, events.RecipientSettled):
        is_good = event.outcome.status is Status.DELIVERED or is_held_back(event.outcome)
    elif isinstance(event, queue_events.RecipientDone):
        if event.is_repeated and not event.given_up:
            return DEBUG
        is_good = not event.given_up and (event.outcome.status is Status.DELIVERED or is_held_back(event.outcome))
    else:
        is_good = not isinstance(event, events.ServerTrustChanged) or event.believed
    return INFO if is_good else WARNING


_PLAIN = frozenset({str, int, bool, type(None)})


def _plain(value: object) -> object:
    """The value as a log has it: durations in seconds, several things in one text, nothing in Python's own forms."""
    if isinstance(value, timedelta):
        seconds = round(value.total_seconds(), 3)
        return int(seconds) if seconds.is_integer() else seconds
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds").replace("+00:00", "Z")
    if isinstance(value, tuple):
        texts = [str(each) for each in value]
        return ("; " if any(" " in text for text in texts) else " ").join(texts)
    if isinstance(value, BaseException):
        return f"{type(value).__name__}: {value}" if str(value) else type(value).__name__
    return value if type(value) in _PLAIN else str(value)


def _present(**fields: object) -> dict[str, object]:
    """The fields that say something."""
    return {
        name: value if type(value) in _PLAIN else _plain(value)
        for name, value in fields.items()
        if value or (value is not None and value != "" and value != ())
    }


def _all_fields(event: events.Event) -> dict[str, object]:
    """What its line says, by name, if nothing else is written below."""
    fields = {field.name: _plain(getattr(event, field.name)) for field in dataclasses.fields(event)}
    for name in ("message", "message_id", "size"):
        if fields.get(name, name) in ("", None):
            del fields[name]  # most of what happens belongs to no message
    if fields.get("sender") == "":
        fields["sender"] = "<>"
    return fields


_fields = singledispatch(_all_fields)


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


@_fields.register
def _(event: events.RecipientSettled) -> dict[str, object]:
    outcome = event.outcome
    return _present(
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
    )


@_fields.register
def _(event: endpoint_events.MailTaken) -> dict[str, object]:
    return {
        "message": event.message,
        "message_id": event.message_id,
        "endpoint": event.endpoint,
        "client": event.client,
        "user": event.user,
        "protocol": event.protocol,
        "sender": event.sender or "<>",
        "recipients": event.recipients,
        "size": event.size,
        "reply": str(event.reply),
    }


@_fields.register
def _(event: endpoint_events.ClientTurnedAway) -> dict[str, object]:
    return {"endpoint": event.endpoint, "client": event.client, "reason": event.reason}


@_fields.register
def _(event: queue_events.RecipientDone) -> dict[str, object]:
    outcome = event.outcome
    return _present(
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
    )


@_fields.register
def _(event: events.CandidatesFound) -> dict[str, object]:
    found = event.candidates
    return _present(
        next_hop=found.next_hop,
        mx=", ".join(f"{each.preference} {each.host}" for each in found.candidates),
        implicit="yes" if found.implicit else None,
        authentic="yes" if found.authentic else "no",
    )


@_fields.register
def _(event: events.CandidateRefused) -> dict[str, object]:
    refusal = event.refusal
    where = _present(message=event.message, next_hop=event.next_hop, mx=event.mx, address=event.address)
    return where | _present(policy=refusal.policy, code=refusal.code, enhanced=refusal.enhanced, reason=refusal.reason)


@_fields.register
def _(event: events.ConnectionOpened) -> dict[str, object]:
    tls = event.tls_version or "none"
    return _present(mx=event.mx, address=event.address, tls=tls, cipher=event.cipher, reason=event.clear_reason)


@_fields.register
def _(event: events.ConnectionJudged) -> dict[str, object]:
    security = event.security
    return _present(
        message=event.message,
        next_hop=event.next_hop,
        mx=event.mx,
        address=event.address,
        mx_level=security.mx_level.word,
        tls_level=security.tls_level.word,
        authenticated_by=security.authenticated_by,
        reason=event.reason,
    )


@_fields.register(events.AddressFailed)
@_fields.register(events.FellBackToClear)
def _(event: events.AddressFailed) -> dict[str, object]:
    fields = {"message": event.message, **_all_fields(event)}
    del fields["problem"]
    return _present(**fields)


@_fields.register
def _(event: events.LookupDidFail) -> dict[str, object]:
    fields = {"message": event.message, **_all_fields(event)}
    return _present(**{"type" if name == "record_type" else name: value for name, value in fields.items()})


@_fields.register
def _(event: policy_events.PolicyFetchFailed) -> dict[str, object]:
    fields = _present(domain=event.domain, failure=event.failure, reason=event.reason)
    return {**fields, "in_force": _plain(event.in_force), "consequence": _with_policy(event.in_force)}


@_fields.register(policy_events.RecordLookupFailed)
@_fields.register(policy_events.RecordUnusable)
def _(event: policy_events.RecordLookupFailed | policy_events.RecordUnusable) -> dict[str, object]:
    return {**_all_fields(event), "consequence": _with_policy(event.in_force)}


@_fields.register
def _(event: policy_events.PolicyExpired) -> dict[str, object]:
    return {**_all_fields(event), "consequence": _with_policy(None)}


def _with_policy(in_force: STSMode | None) -> str:
    """How mail goes to a domain after its MTA-STS policy, or its record, could not be had."""
    if in_force is None:
        return "mail goes as if the domain had no MTA-STS policy"
    return "the policy that was fetched before stays in force"


@_fields.register
def _(event: events.TestingPolicyMissed) -> dict[str, object]:
    return {**_all_fields(event), "consequence": "nothing is refused: the policy is in testing mode"}


@_fields.register
def _(event: events.ServerTrustChanged) -> dict[str, object]:
    return _present(server=event.server, reason=event.reason)


@_fields.register
def _(event: events.Bug) -> dict[str, object]:
    return _present(message=event.message, where=event.where, error=event.error, consequence="deferred")
