"""What became of a recipient, as one JSON object."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from mailrider.model.plain import OutcomeLike, outcome_facts, try_facts

if TYPE_CHECKING:
    from mailrider.model.outcome import Try


class Delivery(OutcomeLike, Protocol):
    """A result of the library: the recipient as it was given, and all tries."""

    @property
    def recipient(self) -> str: ...
    @property
    def attempts(self) -> tuple[Try, ...]: ...


def result_object(result: Delivery) -> dict[str, Any]:
    """A result, for `send --json`."""
    attempts = [try_facts(each) for each in result.attempts]
    return {"recipient": result.recipient, **outcome_facts(result), "attempts": attempts}
