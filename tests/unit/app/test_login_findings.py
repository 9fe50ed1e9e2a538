"""What workers found out about passwords is not forgotten when they are replaced."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from mailrider.app import login_findings as module
from mailrider.app.login_findings import DAY, STEP, LoginFindings
from mailrider.endpoint.logins import HELD_BACK, OF_CLIENT, LoginFinding, Logins
from mailrider.smtp.sasl import Credentials
from mailrider.testing.clock import FakeClock

if TYPE_CHECKING:
    from mailrider.model.reply import Reply

GUESSER, HOME = "198.51.100.1", "192.0.2.1"
MOST_A_DAY = OF_CLIENT[-1][0]


class Passwords:
    """Every one is wrong but one."""

    async def verify(self, credentials: Credentials) -> bool | Reply:
        return credentials.password == "right"


def wrong(client: str = GUESSER, user: str = "anna") -> dict[str, object]:
    return asdict(LoginFinding(client, user, is_right=False, was_known=False))


def successor(findings: LoginFindings, clock: FakeClock) -> Logins:
    """A worker that starts now, and hears everything as it comes over the link."""
    logins = Logins(clock)
    for frame in findings.frames(clock.monotonic()):
        for at, body in json.loads(json.dumps(frame)):
            logins.learn(LoginFinding(**body), at)
    return logins


async def may_try(logins: Logins, client: str = GUESSER, user: str = "somebody") -> bool:
    return await logins.verify(Passwords(), client, Credentials(user, "a guess")) != HELD_BACK


async def test_a_guesser_has_no_more_tries_a_day_because_a_worker_was_replaced() -> None:
    clock, findings = FakeClock(), LoginFindings()
    for number in range(MOST_A_DAY):
        findings.note(wrong(user=f"user{number}"), clock.monotonic())
        await clock.advance(600)
    assert not await may_try(successor(findings, clock))
    assert await may_try(successor(findings, clock), HOME)


async def test_what_is_a_day_ago_counts_no_more() -> None:
    clock, findings = FakeClock(), LoginFindings()
    for number in range(MOST_A_DAY):
        findings.note(wrong(user=f"user{number}"), clock.monotonic())
    await clock.advance(DAY)
    assert await may_try(successor(findings, clock))
    assert list(findings.frames(clock.monotonic())) == []


async def test_who_is_known_stays_known() -> None:
    clock, findings = FakeClock(), LoginFindings()
    findings.note(asdict(LoginFinding(HOME, "anna", is_right=True, was_known=False)), clock.monotonic())
    await clock.advance(7 * DAY)
    for number in range(10):
        findings.note(wrong(f"203.0.113.{number}"), clock.monotonic())
    logins = successor(findings, clock)
    assert not await may_try(logins, GUESSER, "anna"), "of a stranger who guesses her password there are enough"
    assert await may_try(logins, HOME, "anna")


def test_it_is_bounded_and_keeps_the_latest() -> None:
    clock, findings = FakeClock(), LoginFindings()
    for number in range(module.MAX_WRONG + 1):
        findings.note(wrong(f"client {number}"), clock.monotonic())
    frames = list(findings.frames(clock.monotonic()))
    assert max(map(len, frames)) == STEP
    kept = [body["client"] for frame in frames for _, body in frame]
    assert (len(kept), kept[0], kept[-1]) == (module.MAX_WRONG, "client 1", f"client {module.MAX_WRONG}")
