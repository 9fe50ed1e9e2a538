"""Who may try a password: guessing is slow, and keeps nobody else out."""

from __future__ import annotations

import asyncio

import pytest

from mailrider.endpoint import logins as module
from mailrider.endpoint.logins import (
    AT_ONCE,
    BUSY,
    HELD_BACK,
    MAX_GOOD,
    OF_CLIENT,
    OF_KNOWN,
    OF_USER,
    STRANGERS,
    LoginFinding,
    Logins,
)
from mailrider.model.reply import Reply
from mailrider.smtp.sasl import Credentials
from mailrider.testing.clock import FakeClock

GOOD = Credentials("anna@here.test", "open sesame")
BAD = Credentials("anna@here.test", "wrong")
HOME, STRANGER = "192.0.2.1", "198.51.100.1"


class Passwords:
    """Knows one password of everybody, and waits for `gate`."""

    def __init__(self) -> None:
        self.asked = 0
        self.gate: asyncio.Event | None = None

    async def verify(self, credentials: Credentials) -> bool | Reply:
        self.asked += 1
        if self.gate is not None:
            await self.gate.wait()
        return credentials.password == "open sesame"


class World:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.logins = Logins(self.clock)
        self.passwords = Passwords()

    async def tried(self, client: str, credentials: Credentials) -> bool | Reply:
        return await self.logins.verify(self.passwords, client, credentials)

    async def guess(self, client: str, times: int, credentials: Credentials = BAD) -> None:
        for _ in range(times):
            await self.tried(client, credentials)


async def test_a_client_that_guesses_has_to_wait_and_learns_nothing_meanwhile() -> None:
    world = World()
    await world.guess(STRANGER, OF_CLIENT[0][0])
    asked = world.passwords.asked
    assert await world.tried(STRANGER, BAD) is HELD_BACK
    assert await world.tried(STRANGER, GOOD) is HELD_BACK
    assert world.passwords.asked == asked
    await world.clock.advance(61)
    assert await world.tried(STRANGER, GOOD) is True


async def test_who_goes_on_guessing_waits_longer() -> None:
    world = World()
    for _ in range(100):
        await world.guess(STRANGER, 10, Credentials(f"user{world.passwords.asked}", "wrong"))
        await world.clock.advance(61)
    # Within an hour and two thirds: the limit of an hour counts twice, that of a minute not at all.
    assert world.passwords.asked <= 2 * OF_CLIENT[1][0]


async def test_a_stranger_cannot_lock_a_user_out_of_his_own_address() -> None:
    world = World()
    assert await world.tried(HOME, GOOD) is True
    for number in range(OF_USER[1][0] * 2):
        await world.tried(f"198.51.100.{number}", BAD)
    assert await world.tried("203.0.113.7", GOOD) is HELD_BACK, "for this user others have guessed too often"
    assert await world.tried(HOME, GOOD) is True


async def test_nor_does_a_neighbour_behind_the_same_address() -> None:
    world = World()
    assert await world.tried(HOME, GOOD) is True
    await world.guess(HOME, 100, Credentials("bob@here.test", "wrong"))
    assert await world.tried(HOME, GOOD) is True


async def test_a_known_client_does_not_guess_for_ever_either() -> None:
    world = World()
    await world.tried(HOME, GOOD)
    await world.guess(HOME, OF_KNOWN[0][0])
    assert await world.tried(HOME, GOOD) is HELD_BACK
    await world.clock.advance(61)
    assert await world.tried(HOME, GOOD) is True


async def test_a_name_in_other_letters_is_the_same_user() -> None:
    world = World()
    for number in range(OF_USER[0][0]):
        await world.tried(
            f"198.51.100.{number}", Credentials("ANNA@here.test" if number % 2 else "anna@HERE.test", "x")
        )
    assert await world.tried("203.0.113.7", BAD) is HELD_BACK


@pytest.mark.parametrize("client", ["127.0.0.1", "::1", "uid 1000", "local"])
async def test_a_web_mail_on_this_machine_is_not_one_client(client: str) -> None:
    world = World()
    for number in range(100):
        assert await world.tried(client, Credentials(f"user{number}", "wrong")) is False
    assert await world.tried(client, GOOD) is True


async def test_one_client_has_few_passwords_under_way_and_others_are_looked_at() -> None:
    world = World()
    world.passwords.gate = asyncio.Event()
    tries = [asyncio.ensure_future(world.tried(STRANGER, GOOD)) for _ in range(250)]
    await asyncio.sleep(0)
    assert sum(each.done() for each in tries) == 250 - AT_ONCE
    other = asyncio.ensure_future(world.tried(HOME, GOOD))
    world.passwords.gate.set()
    assert await other is True
    verdicts = await asyncio.gather(*tries)
    assert (verdicts.count(True), verdicts.count(BUSY)) == (AT_ONCE, 250 - AT_ONCE)


async def test_strangers_together_leave_places_for_those_who_are_known() -> None:
    world = World()
    await world.tried(HOME, GOOD)
    world.passwords.gate = asyncio.Event()
    tries = [asyncio.ensure_future(world.tried(f"198.51.100.{number}", GOOD)) for number in range(STRANGERS + 5)]
    await asyncio.sleep(0)
    known = asyncio.ensure_future(world.tried(HOME, GOOD))
    await asyncio.sleep(0)
    assert not known.done()
    world.passwords.gate.set()
    assert await known is True
    assert (await asyncio.gather(*tries)).count(BUSY) == 5


async def test_a_password_file_that_cannot_be_read_counts_against_nobody() -> None:
    world = World()
    later = Reply.make(454, "4.7.0", "Later")

    class Broken:
        async def verify(self, _: Credentials) -> bool | Reply:
            return later

    for _ in range(50):
        assert await world.logins.verify(Broken(), STRANGER, GOOD) is later
    assert await world.tried(STRANGER, GOOD) is True


async def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is not known any more is held back as a stranger is, once strangers have guessed at the user's password."""
    monkeypatch.setattr(module, "MAX_USERS", 3)
    world = World()
    homes = [f"192.0.2.{number}" for number in range(MAX_GOOD + 2)]
    for home in homes:
        await world.tried(home, GOOD)
    await world.guess("127.0.0.1", OF_USER[0][0])
    assert [await world.tried(home, GOOD) for home in homes] == [HELD_BACK] * 2 + [True] * MAX_GOOD
    users = [Credentials(f"user{number}", "open sesame") for number in range(5)]
    for user in users:
        await world.tried(HOME, user)
    for user in users:
        await world.guess("127.0.0.1", OF_USER[0][0], Credentials(user.user, "wrong"))
    assert [await world.tried(HOME, user) for user in users] == [HELD_BACK] * 2 + [True] * 3


class Workers:
    """Two processes of one daemon, which tell each other what they find out."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.passwords = Passwords()
        self.told: list[LoginFinding] = []
        self.second = Logins(self.clock)
        self.first = Logins(self.clock, self._tell)

    def _tell(self, finding: LoginFinding) -> None:
        self.told.append(finding)
        self.second.learn(finding)


async def test_who_guesses_at_several_workers_has_no_more_tries() -> None:
    workers = Workers()
    for _ in range(OF_CLIENT[0][0]):
        assert await workers.first.verify(workers.passwords, STRANGER, BAD) is False
    assert await workers.second.verify(workers.passwords, STRANGER, BAD) == HELD_BACK


async def test_who_has_logged_in_at_one_worker_is_known_to_all() -> None:
    workers = Workers()
    assert await workers.first.verify(workers.passwords, HOME, GOOD) is True
    for _ in range(OF_USER[0][0]):
        await workers.second.verify(workers.passwords, "203.0.113.9", BAD)
        await workers.clock.advance(1)
    assert await workers.second.verify(workers.passwords, HOME, GOOD) is True


async def test_what_a_known_client_does_again_is_not_told() -> None:
    workers = Workers()
    for _ in range(3):
        await workers.first.verify(workers.passwords, HOME, GOOD)
    assert [each.is_right for each in workers.told] == [True]
    await workers.first.verify(workers.passwords, HOME, BAD)
    assert workers.told[-1] == LoginFinding(HOME, GOOD.user, is_right=False, was_known=True)
