"""What became of a message, in words. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from mailrider.cli.queue_show import dialogue_text, earlier_tries, entry_text, size, whereabouts
from mailrider.model.text import UNSAFE
from mailrider.queue.history import DEFERRED, DELIVERED, FAILED, NOTIFIED
from mailrider.queue.ids import format_id
from mailrider.report.queue import stamp
from mailrider.report.trace import accepted_at, message_details

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from mailrider.queue.history import Fact
    from mailrider.queue.message import StoredMessage

_WORDS: Final = {NOTIFIED: "notification to"}
_OUTCOMES: Final = frozenset({DELIVERED, DEFERRED, FAILED})


def trace_lines(number: int, message: StoredMessage | None, facts: Sequence[Fact], now: datetime) -> Iterator[str]:
    """A message for a person, line by line; what servers and clients said cannot move the cursor."""
    told = message_details(message, facts)
    yield f"Message   {format_id(number)}"
    for name, label in (("message_id", "Named"), ("origin", "Copy of"), ("client", "Client")):
        if name in told:
            yield f"{label:<10}{_safe(str(told[name]))}"
    if "signed" in told:
        yield f"Signed    {_safe(', '.join(told['signed']))}"
    sender = str(message.envelope.sender) if message is not None else facts[0].sender
    yield f"Sender    {_safe(sender) or '<>'}"
    if "size" in told:
        yield f"Size      {size(told['size'])}"
    yield f"{stamp(accepted_at(number, message))}  taken"
    for fact in facts:
        yield from _fact_lines(fact)
    for entry in () if message is None else message.entries:
        yield from map(_safe, entry_text(entry, now))
        attempts = message.attempts.get(entry.recipient_id, ()) if message is not None else ()
        yield from map(_safe, dialogue_text(attempts[-1].evidence, "    ") if attempts else ())


def done_lines(facts: Sequence[Fact]) -> Iterator[str]:
    """Recipients of a queued message that are done already."""
    for fact in facts:
        yield ""
        yield from _fact_lines(fact)


def _fact_lines(fact: Fact) -> Iterator[str]:
    yield f"{stamp(fact.at)}  {_WORDS.get(fact.kind) or fact.kind.rpartition('.')[2]}  {_safe(fact.recipient)}"
    yield from (f"    {_safe(line)}" for line in _details(fact))


def _details(fact: Fact) -> Iterator[str]:
    details: dict[str, Any] = fact.details
    if fact.kind == NOTIFIED:
        yield f"message {details['message']}"
    if "by" in details:
        yield f"by {details['by']}" + (", when its attempt has ended" if details.get("later") else "")
    if fact.kind not in _OUTCOMES:
        return
    if details.get("mx"):
        yield whereabouts(details)
    if "code" in details:
        yield " ".join(str(details[name]) for name in ("code", "enhanced", "text") if details.get(name))
    if details.get("given_up"):
        yield "given up: tries or time were used up"
    yield from earlier_tries(details)
    yield from dialogue_text(details)


def _safe(text: str) -> str:
    return UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
