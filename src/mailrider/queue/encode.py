"""Envelopes, replies, outcomes and facts as the plain text that stores keep, and back.

What is read back was written by us; where it does not parse all the same, an exception says so (the store holds such
recipients). The text is JSON, and absent (None) for what is as usual: most messages have no options.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from mailrider.model.address import Mailbox, ReversePath
from mailrider.model.envelope import Envelope, Notify, OriginalRecipient, Recipient, Ret
from mailrider.model.facts import outcome_facts, try_facts
from mailrider.model.outcome import Deferred, Status, dialogue_of
from mailrider.model.reply import EnhancedCode, Reply
from mailrider.queue import history

if TYPE_CHECKING:
    from mailrider.model.outcome import Outcome
    from mailrider.queue.message import Change, LeasedJob, Progress

MAX_EVIDENCE = 20  # tries of one attempt that are kept: as many as an attempt has addresses

compact = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def encode_options(envelope: Envelope) -> str | None:
    """What an envelope has beside its addresses."""
    options: dict[str, Any] = {}
    if envelope.smtputf8:
        options["smtputf8"] = True
    if envelope.requiretls:
        options["requiretls"] = True
    if envelope.quarantined:
        options["quarantined"] = True
    if envelope.ret is not None:
        options["ret"] = envelope.ret.value
    if envelope.envid is not None:
        options["envid"] = envelope.envid
    if envelope.client is not None:
        options["client"] = envelope.client
    if envelope.tls_report:
        options["tls_report"] = True
    if envelope.origin:
        options["origin"] = envelope.origin
    if envelope.message_id:
        options["message_id"] = envelope.message_id
    if envelope.signed:
        options["signed"] = envelope.signed
    return compact(options) if options else None


def decode_envelope(sender: str, options: str | None, recipients: tuple[Recipient, ...], id: str = "") -> Envelope:
    """The inverse of `encode_options`, with the addresses, and the message's name."""
    path = ReversePath.parse(sender)
    if options is None:
        return Envelope(path, recipients, id=id)
    given = json.loads(options)
    ret, signed = given.pop("ret", None), tuple(given.pop("signed", ()))
    return Envelope(path, recipients, ret=None if ret is None else Ret(ret), id=id, signed=signed, **given)


def encode_wishes(recipient: Recipient) -> str | None:
    """What a recipient has beside its address."""
    if recipient.notify is None and recipient.original is None:
        return None
    original = recipient.original
    return compact(
        {
            "notify": None if recipient.notify is None else recipient.notify.words,
            "original": None if original is None else [original.address_type, original.address],
        }
    )


def decode_recipient(mailbox: str, wishes: str | None) -> Recipient:
    """The inverse of `encode_wishes`, with the address."""
    if wishes is None:
        return Recipient(Mailbox.parse(mailbox))
    given = json.loads(wishes)
    notify, original = given["notify"], given["original"]
    return Recipient(
        Mailbox.parse(mailbox),
        None if notify is None else Notify.parse(notify),
        None if original is None else OriginalRecipient(*original),
    )


def encode_reply(reply: Reply | None) -> str | None:
    """A reply, so that it can be had back."""
    if reply is None:
        return None
    enhanced = reply.enhanced
    return compact([reply.code, None if enhanced is None else str(enhanced), *reply.lines])


def decode_reply(text: str | None) -> Reply | None:
    """The inverse of `encode_reply`."""
    if text is None:
        return None
    code, enhanced, *lines = json.loads(text)
    return Reply(code, None if enhanced is None else EnhancedCode.parse(enhanced), tuple(lines))


def evidence(outcome: Outcome) -> dict[str, Any]:
    """An outcome in plain values, as it is kept and shown: the same words as `send --json` uses."""
    return {
        **outcome_facts(outcome),
        **({"signed": outcome.signed} if outcome.signed else {}),
        "throttled": getattr(outcome, "eligible_at", None) is not None,
        "attempts": [try_facts(each) for each in outcome.tries[:MAX_EVIDENCE]],
    }


def with_dialogue(outcome: Outcome) -> dict[str, Any]:
    """`evidence`, and what was said to the server where the last try ended, if it did not deliver."""
    said = dialogue_of(outcome) if outcome.status is not Status.DELIVERED else ""
    return evidence(outcome) | ({"dialogue": said} if said else {})


def encode_evidence(outcome: Outcome) -> str:
    """`evidence` as text."""
    return compact(evidence(outcome))


def decode_evidence(text: str) -> dict[str, Any]:
    """What `encode_evidence` wrote."""
    loaded: dict[str, Any] = json.loads(text)
    return loaded


# --- History -------------------------------------------------------------------------------------


def of_message(envelope: Envelope, size: int) -> dict[str, Any]:
    """What is told of a message with the end of each recipient: it is not there any more then."""
    told: dict[str, Any] = {"size": size}
    if envelope.message_id:
        told["message_id"] = envelope.message_id
    if envelope.origin:
        told["origin"] = envelope.origin
    if envelope.client is not None:
        told["client"] = envelope.client
    if envelope.signed:
        told["signed"] = envelope.signed
    return told


def encode_ending(job: LeasedJob, change: Change, before: Progress, dialogue: str = "") -> tuple[str, str]:
    """The kind and the details of a recipient's end. `dialogue`: of an earlier try, if this is not the end of one."""
    told = of_message(job.envelope, job.info.size)
    outcome = change.attempt
    if outcome is None:  # its time was over without another attempt
        told["given_up"] = True
        told["tries"] = before.tries
        if before.last is not None:
            told["code"], told["text"] = before.last.code, str(before.last)
        if dialogue:
            told["dialogue"] = dialogue
        return history.FAILED, compact(told)
    if outcome.status is Status.DELIVERED and len(outcome.tries) < 2:  # the way of nearly all mail
        _tell_outcome(told, outcome)
    else:
        told |= with_dialogue(outcome)
    if outcome.signed:
        told["signed"] = (*job.envelope.signed, *outcome.signed)
    if before.tries:
        told["tries"] = before.tries
    if isinstance(outcome, Deferred):
        told["given_up"] = True
    return history.DELIVERED if outcome.status is Status.DELIVERED else history.FAILED, compact(told)


def _tell_outcome(told: dict[str, Any], outcome: Outcome) -> None:
    reply, security = outcome.reply, outcome.security
    told["code"], told["enhanced"], told["text"] = reply.code, str(reply.status), reply.text
    if outcome.mx is not None:
        told["mx"], told["address"] = outcome.mx, outcome.address
        told["mx_level"], told["tls_level"] = security.mx_level.word, security.tls_level.word
    if security.tls_version:
        told["tls_version"] = security.tls_version
    if security.authenticated_by:
        told["authenticated_by"] = security.authenticated_by
