"""What a stop may cut off at once, what it waits for, and what an attempt reports that is cut off."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from mailrider.delivery.attempt import Attempt
from mailrider.delivery.connection.session import Session
from mailrider.delivery.job import AttemptRules, Job
from mailrider.delivery.settings import RemoteSettings
from mailrider.model.address import Mailbox, ReversePath
from mailrider.model.envelope import Envelope, Recipient
from mailrider.model.outcome import Deferred, Failed
from mailrider.policy.requiretls import ORDINARY
from mailrider.smtp.capabilities import NO_CAPABILITIES
from mailrider.smtp.client import AnsweredCommand
from mailrider.smtp.steps import SendCommands
from tests.unit.delivery.test_attempt import CONTENT, GO_ON, NEVER, OK, FakeSession, World, says

if TYPE_CHECKING:
    from mailrider.model.handover import Stoppable
    from mailrider.model.outcome import Outcome
    from mailrider.smtp.transaction import Transaction

RECIPIENTS = tuple(Recipient(Mailbox.parse(f"{number}@a.test")) for number in range(2))


class HangingSession(FakeSession):
    """A server that refuses the first recipient, and says nothing more from the stage that `hangs_at` names."""

    hangs_at = ""

    async def transact(self, transaction: Transaction, _: Any) -> Exception | None:
        refused = False
        while isinstance(step := transaction.next(), SendCommands):
            for command in step.commands:
                verb = type(command).__name__.lower()
                if verb == self.hangs_at:
                    await asyncio.Event().wait()
                refuses = verb == "rcpt" and not refused
                refused = refused or refuses
                transaction.take(AnsweredCommand(command, NEVER if refuses else GO_ON if verb == "data" else OK))
        transaction.sent_final()
        await asyncio.Event().wait()
        return None


class Trial:
    """An attempt in a task of its own, as a queue's worker makes it; and its `Watcher`."""

    def __init__(self, hangs_at: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tests.unit.delivery.test_attempt.FakeSession", HangingSession)
        monkeypatch.setattr(HangingSession, "hangs_at", hangs_at)
        world = World([[says()]])
        job = Job(Envelope(ReversePath.parse("a@b.test"), RECIPIENTS), CONTENT, ORDINARY)
        rules = AttemptRules(prohibits=RemoteSettings().prohibits)
        self.running: list[Stoppable] = []
        self.attempt = Attempt(job, RECIPIENTS, world, world, rules, world.clock, world.events.append, self)
        self.clock = world.clock
        self.task = asyncio.create_task(self.attempt.run())

    def began(self, attempt: Stoppable) -> None:
        self.running.append(attempt)

    def ended(self, attempt: Stoppable) -> None:
        self.running.remove(attempt)

    def arrive(self, address: object, slots: int | None) -> None:
        """It may come in."""

    def leave(self, address: object) -> None:
        """It is gone."""

    async def outcomes(self) -> tuple[Outcome, ...]:
        return await self.task


async def turns() -> None:
    for _ in range(500):  # the fake clock takes many of them
        await asyncio.sleep(0)


async def test_before_anything_is_decided_there_is_nothing_to_report(monkeypatch: pytest.MonkeyPatch) -> None:
    trial = Trial("mail", monkeypatch)
    await turns()
    assert trial.running == [trial.attempt]
    assert not trial.attempt.is_sending
    assert not trial.attempt.has_effect
    trial.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await trial.task
    assert trial.running == []


async def test_one_that_has_not_begun_is_not_cut_off() -> None:
    world = World([[says()]])
    job = Job(Envelope(ReversePath.parse("a@b.test"), RECIPIENTS), CONTENT, ORDINARY)
    attempt = Attempt(job, RECIPIENTS, world, world, AttemptRules(), world.clock, world.events.append)
    attempt.cut_off()
    assert [each.status.value for each in await attempt.run()] == ["delivered", "delivered"]


async def test_a_recipient_that_was_refused_stays_refused_and_the_other_counts_no_try(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trial = Trial("data", monkeypatch)
    await turns()
    assert not trial.attempt.is_sending
    assert trial.attempt.has_effect
    trial.attempt.cut_off()
    refused, waiting = await trial.outcomes()
    assert isinstance(refused, Failed)
    assert isinstance(waiting, Deferred)
    assert (waiting.in_doubt, waiting.eligible_at) == (False, trial.clock.now())
    assert not trial.task.cancelled()


async def test_what_is_cut_off_behind_its_final_dot_is_in_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    trial = Trial("", monkeypatch)
    await turns()
    assert trial.attempt.is_sending
    assert trial.attempt.has_effect
    trial.attempt.cut_off()
    refused, doubtful = await trial.outcomes()
    assert isinstance(refused, Failed)
    assert isinstance(doubtful, Deferred)
    assert (doubtful.in_doubt, doubtful.eligible_at, str(doubtful.reply.enhanced)) == (True, None, "4.4.2")
    assert "mx0.a.test" in doubtful.reply.text


async def test_who_cancels_an_attempt_that_no_stop_cuts_off_hears_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    trial = Trial("", monkeypatch)
    await turns()
    trial.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await trial.task


async def test_a_reply_that_came_with_the_end_counts() -> None:
    """Cut off in the very turn in which the server's answer arrived."""
    taken: list[Any] = []

    class Talk:
        has_answers, error, bytes_received = False, None, 0

        class channel:
            @staticmethod
            def abort() -> None:
                pass

        def send(self, *_: object) -> None:
            pass

        def monotonic(self) -> float:
            return 0.0

        async def answers(self, seconds: float, until: float) -> list[Any]:
            raise asyncio.CancelledError

        def take_answers(self) -> list[str]:
            return ["the answer"]

    class Plan:
        said: ClassVar[list[Any]] = []
        recipients = ()

        def next(self) -> SendCommands:
            return SendCommands(())

        def take(self, answer: object) -> None:
            taken.append(answer)

        def lost(self, *, heard: bool) -> None:
            assert not heard

    # No channel can be made to end in that very turn, so what the session has of one is put in by hand.
    session: Any = object.__new__(Session)
    session.transactions, session._talk, session._opening = 0, Talk(), ()
    session.capabilities = NO_CAPABILITIES
    session._rules = type("SessionRules", (), {"command_timeout": 1.0})
    with pytest.raises(asyncio.CancelledError):
        await Session.transact(session, Plan(), CONTENT)  # type: ignore[arg-type]
    assert taken == ["the answer"]
