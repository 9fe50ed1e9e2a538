"""What the queue holds, in words. Pure. rich is imported where its tables and colours are made: JSON does without."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from mailrider.model.text import visible
from mailrider.queue.ids import format_id
from mailrider.queue.message import RecipientState, Wish
from mailrider.report.queue import stamp
from mailrider.settings.types import show_duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from rich.table import Table
    from rich.text import Text

    from mailrider.queue.message import Entry, PastAttempt, Stats, StoredMessage

SOON: Final = timedelta(minutes=1)  # what is due for less is about to be tried
WAITS: Final = "its destination is down, or nobody delivers from this queue now"
_COLOURS: Final = {RecipientState.QUEUED: "", RecipientState.LEASED: "green", RecipientState.HELD: "yellow"}
_WISHES: Final = {Wish.HOLD: "to be held", Wish.REMOVE: "to be removed", Wish.RETRY: "to be retried"}


def counted(count: int, one: str, many: str) -> str:
    """So many of something."""
    return f"{count} {one if count == 1 else many}"


def _tries(entry: Entry) -> str:
    return counted(entry.progress.tries, "try", "tries")


def recipients(count: int) -> str:
    """So many recipients."""
    return counted(count, "recipient", "recipients")


def entry_lines(entry: Entry, now: datetime) -> Iterator[Text]:
    """A list's lines about one recipient, for a person."""
    from rich.text import Text

    state = Text(entry.state.word, style=_COLOURS[entry.state])
    if entry.wish is not None:
        state.append(f", {_WISHES[entry.wish]}")
    if entry.progress.in_doubt:
        state.append(", in doubt", style="yellow")
    head = f"{format_id(entry.message_id)}  {_span(now - entry.created):>6}  {size(entry.size):>9}  "
    yield Text.assemble(head, state, f"  {entry.sender or '<>'} -> ", (entry.recipient, "bold"))
    if entry.progress.last is not None or entry.state is RecipientState.QUEUED:
        last = "" if entry.progress.last is None else f": {entry.progress.last}"
        yield Text(f"    {_tries(entry)}{_next_try(entry, now)}{last}", style="dim")


def message_text(message: StoredMessage, now: datetime) -> Iterator[str]:
    """A message for a person, line by line."""
    envelope = message.envelope
    yield f"Message   {format_id(message.id)}"
    yield f"Sender    {str(envelope.sender) or '<>'}"
    yield f"Queued    {stamp(message.created)} ({_span(now - message.created)} ago)"
    yield f"Size      {size(message.info.size)}"
    options = [name for name in ("smtputf8", "requiretls", "quarantined") if getattr(envelope, name)]
    options += [f"ret={envelope.ret.value}"] if envelope.ret is not None else []
    options += [f"envid={envelope.envid}"] if envelope.envid is not None else []
    options += [f"client={envelope.client}"] if envelope.client is not None else []
    if options:
        yield f"Options   {' '.join(options)}"
    if message.route:
        yield f"Route     {message.route}"
    for entry in message.entries:
        yield ""
        yield from entry_text(entry, now)
        for attempt in message.attempts.get(entry.recipient_id, ()):
            yield from _attempt_text(attempt)


def entry_text(entry: Entry, now: datetime) -> Iterator[str]:
    wish = f", {_WISHES[entry.wish]}" if entry.wish is not None else ""
    yield f"{entry.recipient}  {entry.state.word}{wish}, {_tries(entry)}{_next_try(entry, now)}"
    if entry.progress.in_doubt:
        yield "    in doubt: a server may have the message already"
    if entry.progress.warned:
        yield "    it is late; its sender has been told, if there is one who wants to be"
    if not entry.progress.tries and entry.progress.last is not None:
        yield f"    {entry.progress.last}"


def _attempt_text(attempt: PastAttempt) -> Iterator[str]:
    found: Any = attempt.evidence
    yield f"    {stamp(attempt.at)}" + (f" {whereabouts(found)}" if found["mx"] else "")
    yield f"        {found['code']} {found['enhanced']} {found['text']}"
    yield from (f"        {line}" for line in earlier_tries(found))
    yield from dialogue_text(found, "        ")


def whereabouts(found: Mapping[str, Any]) -> str:
    """Where an attempt got, and how safely."""
    address = f" [{found['address']}]" if found.get("address") else ""
    by = f" by {found['authenticated_by']}" if found.get("authenticated_by") else ""
    tls = found.get("tls_version") or "no TLS"
    return f"{found['mx']}{address}  {tls} tls={found['tls_level']}{by} mx={found['mx_level']}"


def earlier_tries(found: Mapping[str, Any]) -> Iterator[str]:
    """The hosts that were tried before the one that decided."""
    for each in found.get("attempts", ())[:-1]:
        address = f" [{each['address']}]" if each["address"] else ""
        yield f"before: {each['mx']}{address} {each['result']}: {each['code']} {each['text']}"


def dialogue_text(evidence: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """What was said to the server in the last try, if that is known."""
    if evidence.get("dialogue"):
        yield f"{indent}what was said:"
        for line in evidence["dialogue"].split("\n"):
            yield f"{indent}    {line}"


def visible_content(octets: bytes) -> str:
    """A message for a terminal."""
    return visible(octets.decode("utf-8", "backslashreplace").replace("\r\n", "\n"))


def stats_text(stats: Stats, now: datetime) -> Iterator[Table | str]:
    """The numbers for a person."""
    from rich.table import Table
    from rich.text import Text

    messages = counted(stats.messages, "message", "messages")
    yield f"{messages}, {recipients(sum(stats.ages.values()))}, {size(stats.octets)}"
    if not stats.messages:
        return
    ages = Table("age", "recipients", box=None, padding=(0, 2, 0, 0))
    for name, count in stats.ages.items():
        ages.add_row(name, str(count))
    yield ages
    heads = ("queued", "active", "held", "doubt", "oldest", "next", "destination")
    table = Table(*heads, box=None, padding=(0, 2, 0, 0))
    table.columns[-1].overflow = "fold"  # a name that is cut says nothing
    for each in stats.destinations:
        due = "" if each.next_due is None else _span(each.next_due - now)
        table.add_row(
            *map(str, (each.queued, each.active, each.held, each.in_doubt)),
            _span(now - each.oldest),
            due,
            # A string would be markup: rich has emoji for parts of IPv6 addresses.
            Text(visible(each.destination) or "(none)"),
        )
    yield table


def _next_try(entry: Entry, now: datetime) -> str:
    match entry.state:
        case RecipientState.QUEUED:
            if entry.due > now:
                return f", next in {_span(entry.due - now)}"
            waits = now - entry.due
            return ", next due" if waits < SOON else f", due for {_span(waits)}: {WAITS}"
        case RecipientState.LEASED:
            return ", one is under way"
        case RecipientState.HELD:
            return ""


def _span(span: timedelta) -> str:
    """A span of time, its two largest units."""
    if span < timedelta(seconds=1):
        return "0s"
    return show_duration(timedelta(seconds=int(span.total_seconds())), most=2)


def size(octets: int) -> str:
    """Octets as people write them."""
    if octets < 1024:
        return f"{octets} B"
    if octets < 1024 * 1024:
        return f"{octets / 1024:.1f} KiB"
    return f"{octets / (1024 * 1024):.1f} MiB"
