"""Replies, tries and outcomes in plain values: what a store keeps of them, and what programs read as JSON.

These are the words of the product: no key is renamed or taken away, and new ones may be added.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from mailrider.model.outcome import Status, dialogue_of

if TYPE_CHECKING:
    from mailrider.model.outcome import Outcome, Try
    from mailrider.model.reply import Reply
    from mailrider.model.security import Security


MAX_TRIES: Final = 20
"""Tries of one attempt that are kept: as many as an attempt has addresses."""


class OutcomeLike(Protocol):
    """What became of a recipient: an `Outcome`, or a result of the library."""

    @property
    def status(self) -> Status: ...
    @property
    def reply(self) -> Reply: ...
    @property
    def mx(self) -> str | None: ...
    @property
    def address(self) -> str | None: ...
    @property
    def security(self) -> Security: ...
    @property
    def in_doubt(self) -> bool: ...


def outcome_facts(outcome: OutcomeLike) -> dict[str, Any]:
    """What became of a recipient, where, and how safely; without the tries before it."""
    security = outcome.security
    return {
        "status": outcome.status.value,
        **reply_facts(outcome.reply),
        "mx": outcome.mx,
        "address": outcome.address,
        "mx_level": security.mx_level.word,
        "tls_level": security.tls_level.word,
        "tls_version": security.tls_version,
        "cipher": security.cipher,
        "authenticated_by": security.authenticated_by,
        "in_doubt": outcome.in_doubt,
    }


def attempt_facts(outcome: Outcome) -> dict[str, Any]:
    """An outcome with its tries, as it is kept and shown: the same words as `send --json` uses."""
    return {
        **outcome_facts(outcome),
        **({"signed": outcome.signed} if outcome.signed else {}),
        "throttled": getattr(outcome, "eligible_at", None) is not None,
        "attempts": [try_facts(each) for each in outcome.tries[:MAX_TRIES]],
    }


def with_dialogue(outcome: Outcome) -> dict[str, Any]:
    """`attempt_facts`, and what was said to the server where the last try ended, if it did not deliver."""
    said = dialogue_of(outcome) if outcome.status is not Status.DELIVERED else ""
    return attempt_facts(outcome) | ({"dialogue": said} if said else {})


def try_facts(each: Try) -> dict[str, Any]:
    """What came of one address."""
    return {"mx": each.mx, "address": each.address, "result": each.result.value, **reply_facts(each.reply)}


def reply_facts(reply: Reply) -> dict[str, Any]:
    """A reply; its lines are joined."""
    return {"code": reply.code, "enhanced": str(reply.status), "text": reply.text}
