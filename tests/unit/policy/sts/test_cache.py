"""Cached policies: their age, their files, and the memory that they may take."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrider.errors import InvalidValue
from mailrider.model.domain import Domain
from mailrider.mtasts.policy import MAX_MX_LINES, MAX_POLICY_SIZE, MXPattern, STSMode, STSPolicy, parse_policy
from mailrider.policy.sts.cache import (
    MAX_ENTRY,
    SKEW,
    CachedPolicy,
    PolicyStore,
    age_at,
    decode_entry,
    encode_entry,
    is_from_future,
)
from mailrider.policy.sts.lookup import policy_seen
from mailrider.testing.clock import FakeClock
from tests.unit.mtasts.test_policy import domains, policies

NOW = datetime(2026, 2, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
POLICY = STSPolicy(STSMode.ENFORCE, timedelta(days=7), (MXPattern(Domain("mx.example.com")),))
ENTRY = CachedPolicy(Domain("example.com"), POLICY, "id1", NOW)

# --- Age ----------------------------------------------------------------------------------------

AGES = {
    # fetched, noticed, now -> age
    "fetched just now": (NOW, None, NOW, timedelta(0)),
    "fetched an hour ago": (NOW, None, NOW + HOUR, HOUR),
    "fetched long ago": (NOW, None, NOW + timedelta(days=400), timedelta(days=400)),
    "a moment ahead, as clocks are": (NOW, None, NOW - SKEW, timedelta(0)),
    "fetched in the future, seen for the first time": (NOW, None, NOW - HOUR, timedelta(0)),
    "fetched in the future, noticed a while ago": (NOW, NOW - 3 * HOUR, NOW - HOUR, 2 * HOUR),
    "fetched in the future, noticed later than now": (NOW, NOW - HOUR, NOW - 3 * HOUR, timedelta(0)),
    "the clock has passed the stamp": (NOW, NOW - timedelta(days=9000), NOW + HOUR, HOUR),
}


@pytest.mark.parametrize(("fetched", "noticed", "now", "age"), AGES.values(), ids=AGES)
def test_how_old_an_entry_is(fetched: datetime, noticed: datetime | None, now: datetime, age: timedelta) -> None:
    assert age_at(replace(ENTRY, fetched=fetched, noticed=noticed), now) == age


def test_which_stamps_lie_in_the_future() -> None:
    assert not is_from_future(ENTRY, NOW)
    assert not is_from_future(ENTRY, NOW - SKEW)
    assert is_from_future(ENTRY, NOW - SKEW - timedelta(seconds=1))


stamps = st.datetimes(datetime(1971, 1, 1), datetime(2100, 1, 1)).map(lambda naive: naive.replace(tzinfo=UTC))


@given(stamps, stamps, st.timedeltas(timedelta(0), timedelta(days=400)))
def test_an_entry_from_the_future_ages_from_when_it_was_noticed(
    fetched: datetime, noticed: datetime, later: timedelta
) -> None:
    entry = replace(ENTRY, fetched=fetched, noticed=noticed)
    if is_from_future(entry, noticed + later):
        assert age_at(entry, noticed + later) == later
    else:
        assert age_at(entry, noticed + later) == max(noticed + later - fetched, timedelta(0))


@pytest.mark.parametrize(
    "stamp",
    [
        NOW.replace(tzinfo=None),
        NOW.astimezone(timezone(HOUR)),
        datetime(9999, 12, 31, tzinfo=UTC),
    ],
)
def test_stamps_are_in_utc_and_such_as_a_clock_can_show(stamp: datetime) -> None:
    with pytest.raises(InvalidValue):
        replace(ENTRY, fetched=stamp)
    with pytest.raises(InvalidValue):
        replace(ENTRY, noticed=stamp)


def test_an_entry_has_a_valid_id() -> None:
    with pytest.raises(InvalidValue):
        replace(ENTRY, id="../../etc/passwd")


# --- Files --------------------------------------------------------------------------------------

entries = st.builds(
    CachedPolicy,
    domain=domains,
    policy=policies,
    id=st.from_regex(r"\A[A-Za-z0-9]{1,32}\Z"),
    fetched=stamps,
    noticed=st.none() | stamps,
)


@given(entries)
def test_what_is_encoded_is_decoded_again(entry: CachedPolicy) -> None:
    assert decode_entry(encode_entry(entry)) == entry


@pytest.mark.parametrize("line", ["mx: mx{}.good.test\n", "mx: *.ü.ü.ü.ü.ü.ü.ü.ü.ü.ü.ü.ü.ü.ü.ü.ü.ü.ü.ü.ü{}\n"])
def test_a_policy_as_large_as_allowed_fits_into_a_file(line: str) -> None:
    served = b"version: STSv1\nmode: enforce\nmax_age: 604800\n"
    for number in range(MAX_MX_LINES):
        more = line.format(number).encode()
        if len(served + more) > MAX_POLICY_SIZE:
            break
        served += more
    entry = replace(ENTRY, policy=parse_policy(served))
    assert len(served) > MAX_POLICY_SIZE - 100
    assert decode_entry(encode_entry(entry)) == entry


def test_what_a_file_looks_like() -> None:
    lines = encode_entry(replace(ENTRY, noticed=NOW + HOUR)).decode().splitlines()
    assert lines.pop(1).startswith("sha256: ")
    assert lines == [
        "mailrider mta-sts 1",
        "domain: example.com",
        "id: id1",
        "fetched: 2026-02-01T12:00:00+00:00",
        "noticed: 2026-02-01T13:00:00+00:00",
        "",
        "version: STSv1",
        "mode: enforce",
        "max_age: 604800",
        "mx: mx.example.com",
    ]


@given(entries, st.data())
def test_any_damage_is_found(entry: CachedPolicy, data: st.DataObject) -> None:
    good = encode_entry(entry)
    at = data.draw(st.integers(0, len(good) - 1))
    octet = data.draw(st.integers(0, 255))
    for damaged in (good[:at], good[:at] + bytes([octet]) + good[at + 1 :], good + bytes([octet])):
        if damaged != good:
            with pytest.raises(InvalidValue):
                decode_entry(damaged)


def test_every_prefix_of_a_file_is_damaged() -> None:
    good = encode_entry(ENTRY)
    for end in range(len(good)):
        with pytest.raises(InvalidValue):
            decode_entry(good[:end])


def forged(**changes: str) -> bytes:
    """An entry as somebody would write it who can compute a checksum."""
    fields = {"domain": "example.com", "id": "id1", "fetched": "2026-02-01T12:00:00+00:00"}
    fields |= {name: value for name, value in changes.items() if name != "policy"}
    policy = changes.get("policy", "version: STSv1\nmode: enforce\nmx: mx.example.com\nmax_age: 604800\n")
    rest = "".join(f"{name}: {value}\n" for name, value in fields.items()) + "\n" + policy
    return f"mailrider mta-sts 1\nsha256: {hashlib.sha256(rest.encode()).hexdigest()}\n{rest}".encode()


FORGERIES = {
    "no domain": forged(domain="../passwd"),
    "no id": forged(id="a-b"),
    "no time": forged(fetched="yesterday"),
    "a time without a zone": forged(fetched="2026-02-01T12:00:00"),
    "a time in another zone": forged(fetched="2026-02-01T12:00:00+02:00"),
    "the end of time": forged(fetched="9999-12-31T23:59:59+00:00"),
    "noticed at no time": forged(noticed="never"),
    "no policy": forged(policy=""),
    "a policy for too long": forged(policy="version: STSv1\nmode: enforce\nmx: a.example\nmax_age: 99999999\n"),
    "a policy that is not ASCII": forged(policy="version: STSv1\nmode: none\nmax_age: 1\nx: é\n"),
    "another version of the file": forged().replace(b"mta-sts 1", b"mta-sts 2"),
    "too large": forged(policy="x: y\n" * MAX_ENTRY),
    "nothing": b"",
    "zeros, as a power cut leaves them": bytes(4096),
}


def test_a_forgery_that_is_right_in_everything_is_believed() -> None:
    assert decode_entry(forged()) == ENTRY


@pytest.mark.parametrize("data", FORGERIES.values(), ids=FORGERIES)
def test_a_file_that_is_wrong_in_anything_is_damaged(data: bytes) -> None:
    with pytest.raises(InvalidValue):
        decode_entry(data)


@given(st.binary(max_size=300))
def test_anything_can_stand_in_a_file(data: bytes) -> None:
    with pytest.raises(InvalidValue):
        decode_entry(data)


# --- Memory -------------------------------------------------------------------------------------


def entry_for(name: str, mx: int = 1) -> CachedPolicy:
    policy = STSPolicy(STSMode.ENFORCE, timedelta(days=7), (MXPattern(Domain("mx.example.com")),) * mx)
    return CachedPolicy(Domain(name), policy, "id1", NOW)


async def test_the_ram_store_keeps_the_last_entry_of_a_domain() -> None:
    store = PolicyStore(FakeClock())
    newer = replace(ENTRY, id="id2")
    assert await store.load(ENTRY.domain) is None
    await store.save(ENTRY)
    await store.save(newer)
    assert await store.load(ENTRY.domain) == newer
    assert await store.domains() == [ENTRY.domain]
    await store.discard(ENTRY)  # has been replaced, so it is not this one's to remove
    assert await store.load(ENTRY.domain) == newer
    await store.discard(newer)
    assert await store.load(ENTRY.domain) is None


async def test_the_ram_store_keeps_a_policy_in_force_whatever_strangers_make_it_fetch() -> None:
    clock = FakeClock()
    fresh = replace(entry_for("victim.example"), fetched=clock.now())
    store = PolicyStore(clock, capacity=64 * 2 * fresh.weight)
    await store.save(fresh)
    for number in range(1000):
        await store.save(replace(entry_for(f"d{number}.evil.example"), fetched=clock.now()))
        await store.save(replace(entry_for(f"large.d{number}.example", mx=40), fetched=clock.now()))
    assert await store.load(fresh.domain) == fresh


async def test_the_ram_store_lets_what_has_ended_or_demands_nothing_go_first() -> None:
    clock = FakeClock()
    store = PolicyStore(clock, capacity=64 * entry_for("a.example").weight)
    ended = replace(entry_for("ended.test"), fetched=clock.now() - timedelta(days=8))
    none = CachedPolicy(Domain("none.test"), STSPolicy(STSMode.NONE, timedelta(days=7)), "id1", clock.now())
    held = [replace(entry_for(f"d{number}.test"), fetched=clock.now()) for number in range(64)]
    for entry in (ended, none, *held):
        await store.save(entry)
    assert set(await store.domains()) == {entry.domain for entry in held}


# --- The lines as they were fetched ---------------------------------------------------------------

WRITTEN = b'version: STSv1\r\nmode: enforce \nmx: mx.example.com\nnote: \xe2\x80\xa8 w\xc3\xa4rt "\\\nmax_age: 604800\n'


def test_a_file_keeps_the_lines_as_they_were_fetched() -> None:
    entry = replace(ENTRY, policy=parse_policy(WRITTEN))
    kept = decode_entry(encode_entry(entry)).policy
    assert kept.lines == entry.policy.lines
    assert kept.lines[1::2] == ("mode: enforce ", 'note: \u2028 w\u00e4rt "\\')


def test_a_version_that_knows_no_lines_reads_the_same_policy() -> None:
    file = encode_entry(replace(ENTRY, policy=parse_policy(WRITTEN)))
    assert parse_policy(file.partition(b"\n\n")[2]) == POLICY


def test_a_file_of_a_version_that_kept_no_lines_is_read_and_shown_in_its_plain_form() -> None:
    rest = b"domain: example.com\nid: id1\nfetched: 2026-02-01T12:00:00+00:00\n\n" + POLICY.encode()
    entry = decode_entry(b"mailrider mta-sts 1\nsha256: %s\n" % hashlib.sha256(rest).hexdigest().encode() + rest)
    assert (entry, entry.policy.lines) == (ENTRY, ())
    assert policy_seen(entry.policy).lines == (
        "version: STSv1",
        "mode: enforce",
        "max_age: 604800",
        "mx: mx.example.com",
    )


def test_damaged_lines_are_a_damaged_file() -> None:
    rest = (
        b"domain: example.com\nid: id1\nfetched: 2026-02-01T12:00:00+00:00\n\n" + POLICY.encode() + b'line: "a" "b"\n'
    )
    with pytest.raises(InvalidValue):
        decode_entry(b"mailrider mta-sts 1\nsha256: %s\n" % hashlib.sha256(rest).hexdigest().encode() + rest)


def test_lines_take_memory_that_is_counted() -> None:
    bare = CachedPolicy(Domain("example.com"), POLICY, "id1", NOW)
    long = replace(bare, policy=replace(POLICY, lines=("x" * 255,) * 64))
    assert long.weight - bare.weight >= 64 * 255
