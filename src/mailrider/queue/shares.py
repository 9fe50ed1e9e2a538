"""What the processes that serve one queue know together: which destinations rest, and how many attempts may run.

A process that delivers joins as a `DeliveringProcess`. It says what it learns of destinations, and is told what others
learn, and how many attempts it may make at once. Where there is one process (`ALONE`) nobody else is there to be told
anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from mailrider.model.reply import Reply


class DeliveringProcess(Protocol):
    """A process that delivers, as the others see it."""

    @property
    def attempts(self) -> int:
        """How many attempts it makes, without those that have moved to slow places."""

    def rest(self, destination: str, seconds: float) -> None:
        """Another process could not reach a destination: begin nothing there for so long."""

    def resume(self, destination: str) -> None:
        """A destination that rested takes mail again."""

    def resume_all(self) -> None:
        """Every destination that rests is to be tried again."""

    def set_parallelism(self, attempts: int) -> None:
        """So many attempts may run at once from now on; those that run go on."""


class QueueShares:
    """Where members meet; this one is for the only process. Nothing here waits: what is told arrives when it does."""

    def join(self, member: DeliveringProcess) -> None:
        """A member begins to deliver."""

    def leave(self, member: DeliveringProcess) -> None:
        """It does not any more."""

    def wants(self, member: DeliveringProcess) -> None:
        """All of the member's places are taken, and it could begin another attempt."""

    def went_down(self, member: DeliveringProcess, destination: str, seconds: float, reply: Reply) -> None:
        """The member could not reach a destination, and lets it rest for so long."""

    def came_back(self, member: DeliveringProcess, destination: str) -> None:
        """A destination that was down took the member's mail."""

    def reopened(self, member: DeliveringProcess) -> None:
        """An operator wants every destination tried again, and the member does so: none is known as down any more."""


ALONE: Final = QueueShares()
