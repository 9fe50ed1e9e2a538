"""Every event has a line: a level, a stable name, and fields that say something."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
import re
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

import mailrider
from mailrider.model.address import Mailbox
from mailrider.model.domain import Domain
from mailrider.model.endpoint_event import ClientTurnedAway, LoginFailed, MailTaken
from mailrider.model.envelope import Recipient
from mailrider.model.event import (
    DEBUG,
    AddressFailed,
    Bug,
    CandidateRefused,
    CandidatesFound,
    ConnectionJudged,
    ConnectionOpened,
    Event,
    RecipientSettled,
    RootKeysMissing,
    Validity,
)
from mailrider.model.outcome import Deferred, Delivered, Failed
from mailrider.model.queue_event import DestinationDown, HeldAfterDeaths, MessageQueued, RecipientDone
from mailrider.model.reply import Reply
from mailrider.model.route import Candidate, Candidates
from mailrider.model.security import Mechanism, MXLevel, Refusal, Security, TLSLevel
from mailrider.model.tls_session import PoliciesSeen, STSSeen, TLSSessionSeen
from mailrider.model.value import value
from mailrider.mtasts.policy import STSMode
from mailrider.observe.describe import describe
from mailrider.policy.sts.events import (
    PolicyExpired,
    PolicyFetched,
    PolicyFetchFailed,
    RecordLookupFailed,
    RecordUnusable,
    RefreshCrashed,
)
from tests.support.problems import problem

if TYPE_CHECKING:
    from collections.abc import Iterator

A, MX = Domain("a.test"), Domain("mx.a.test")
RECIPIENT = Recipient(Mailbox.parse("x@a.test"))
SECURE = Security(MXLevel.DNSSEC, TLSLevel.AUTHENTICATED, Mechanism.DANE, "TLSv1.3", "AES")
REPLY = Reply.make(250, "2.0.0", "Ok")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
SEEN = PoliciesSeen("a.test")
TWO = (problem("it expired"), problem("its name is wrong"))

# A value for each type that a field may have. A new type is added here, and looked at in the log once.
SAMPLES: dict[str, Any] = {
    "str": "text",
    "int": 7,
    "float": 1.5,
    "bool": True,
    "Validity": Validity.SECURE,
    "tuple[int, ...]": (20326, 38696),
    "NextHop": A,
    "Domain": A,
    "Reply": REPLY,
    "tuple[TLSProblem, ...]": (problem("expired"),),
    "TLSProblem": problem("an alert"),
    "Refusal": Refusal("dane", 451, "4.7.1", "no match"),
    "Security": SECURE,
    "Outcome": Delivered(RECIPIENT, REPLY),
    "Candidates": Candidates(A, (Candidate(MX, 10),)),
    "BaseException": ZeroDivisionError("a bug"),
    "Exception": ZeroDivisionError("a bug"),
    "datetime": NOW,
    "timedelta": timedelta(seconds=5),
    "tuple[str, ...]": ("one", "two"),
    "STSMode": STSMode.ENFORCE,
    "STSSeen": STSSeen(("version: STSv1",), ("mx.a.test",)),
    "PoliciesSeen": PoliciesSeen("a.test", STSSeen(("version: STSv1",), ("mx.a.test",))),
}


def every_event() -> Iterator[type[Event]]:
    for module in pkgutil.walk_packages(mailrider.__path__, "mailrider."):
        if "event" in module.name:
            importlib.import_module(module.name)
    return _below(Event)


def _below(kind: type[Event]) -> Iterator[type[Event]]:
    for below in kind.__subclasses__():
        # A class with slots is made twice; the first one is nobody's.
        if getattr(sys.modules[below.__module__], below.__name__, None) is below:
            yield below
        yield from _below(below)


def sample(kind: type[Event]) -> Event:
    values = {}
    for each in dataclasses.fields(kind):
        words = str(each.type).removesuffix(" | None")
        values[each.name] = SAMPLES[words.rpartition(".")[2] if "[" not in words else words]
    return kind(**values)


EVENTS = sorted(set(every_event()), key=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", EVENTS, ids=lambda kind: kind.__name__)
def test_every_event_has_a_line(kind: type[Event]) -> None:
    line = describe(sample(kind))
    assert line.level in {"debug", "info", "warning", "error"}
    assert re.fullmatch(r"[a-z][a-z0-9_]*", line.name)
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", name) for name in line.fields)
    assert all(isinstance(value, str | int | float | bool | None) for value in line.fields.values())
    # These are the log's own.
    assert not line.fields.keys() & {"event", "level", "timestamp", "exception", "exc_info", "stack_info"}
    # What is wanted under debug only is never more than that.
    assert line.level == "debug" or kind.level is not DEBUG


def test_there_are_events_at_all() -> None:
    assert len(EVENTS) > 20


def test_a_delivery_says_all_that_matters_in_one_line() -> None:
    line = describe(RecipientSettled(A, "s@b.test", Delivered(RECIPIENT, REPLY, "mx.a.test", "192.0.2.1", SECURE)))
    assert (line.level, line.name) == ("info", "delivered")
    assert line.fields == {
        "recipient": "x@a.test",
        "sender": "s@b.test",
        "mx": "mx.a.test",
        "address": "192.0.2.1",
        "mx_level": "dnssec",
        "tls_level": "authenticated",
        "authenticated_by": "dane",
        "tls_version": "TLSv1.3",
        "code": 250,
        "enhanced": "2.0.0",
        "text": "Ok",
        "tries": 0,
    }


def test_what_did_not_arrive_is_a_warning_and_says_what_is_special_about_it() -> None:
    later = Deferred(RECIPIENT, Reply.make(451, "4.4.2", "Lost"), in_doubt=True, eligible_at=NOW)
    line = describe(RecipientSettled(None, "", later))
    assert (line.level, line.name, line.fields["sender"]) == ("warning", "deferred", "<>")
    assert (line.fields["in_doubt"], line.fields["eligible_at"]) == ("yes", "2026-01-01T00:00:00Z")
    assert "mx" not in line.fields
    never = Failed(RECIPIENT, Reply(550, None, ("Nobody",)))
    assert describe(RecipientSettled(A, "", never)).fields["enhanced"] == "5.0.0"


def test_candidates_stand_by_preference_in_one_field() -> None:
    found = Candidates(A, (Candidate(MX, 10), Candidate(A, 20)), authentic=True)
    assert describe(CandidatesFound(found)).fields == {
        "next_hop": "a.test",
        "mx": "10 mx.a.test, 20 a.test",
        "authentic": "yes",
    }


def test_a_refusal_names_the_policy_and_why() -> None:
    line = describe(CandidateRefused(A, "mx.a.test", None, Refusal("dane", 451, "4.7.1", "no match")))
    assert (line.level, line.name) == ("warning", "refused_by_policy")
    assert line.fields == {
        "next_hop": "a.test",
        "mx": "mx.a.test",
        "policy": "dane",
        "code": 451,
        "enhanced": "4.7.1",
        "reason": "no match",
    }


def test_connections_in_clear_say_why() -> None:
    line = describe(ConnectionOpened("mx", "192.0.2.1", None, None, "not offered"))
    assert line.fields == {"mx": "mx", "address": "192.0.2.1", "tls": "none", "reason": "not offered"}
    judged = describe(ConnectionJudged(A, "mx", "192.0.2.1", Security(), "no TLS"))
    assert (judged.fields["tls_level"], judged.fields["reason"]) == ("none", "no TLS")


def test_an_address_that_failed_says_at_what_stage_and_with_what_words() -> None:
    line = describe(AddressFailed(A, "mx", None, "lookup", Reply.make(451, "4.4.3", "SERVFAIL")))
    assert line.fields == {"next_hop": "a.test", "mx": "mx", "stage": "lookup", "reply": "451 4.4.3 SERVFAIL"}


def test_a_bug_keeps_its_exception_for_the_traceback() -> None:
    error = ZeroDivisionError("a bug")
    line = describe(Bug("delivery to a.test", error))
    assert (line.level, line.error, line.fields["error"]) == ("error", error, "ZeroDivisionError: a bug")


def test_the_end_of_a_queued_recipient_says_which_message_where_it_went_and_when_it_is_tried_again() -> None:
    outcome = Deferred(RECIPIENT, Reply.make(451, "4.7.1", "mx.a.test said: Later"), "mx.a.test", "192.0.2.1")
    line = describe(RecipientDone("0d7m3k9q2xv4t", "", outcome, 2, NOW))
    assert (line.level, line.name) == ("warning", "queue_deferred")
    assert line.fields == {
        "message": "0d7m3k9q2xv4t",
        "recipient": str(RECIPIENT),
        "sender": "<>",
        "mx": "mx.a.test",
        "address": "192.0.2.1",
        "mx_level": "none",
        "tls_level": "none",
        "tries": 2,
        "retry_at": "2026-01-01T00:00:00Z",
        "reply": "451 4.7.1 mx.a.test said: Later",
    }


@pytest.mark.parametrize(
    ("event", "name", "shown"),
    [
        pytest.param(PolicyFetched(A, "1", STSMode.ENFORCE, timedelta(days=7), True), "max_age", 604800, id="duration"),
        pytest.param(HeldAfterDeaths(("a1", "b2")), "messages", "a1 b2", id="ids"),
        pytest.param(RootKeysMissing((20326, 38696)), "tags", "20326 38696", id="numbers"),
        pytest.param(
            TLSSessionSeen(SEEN, "mx", "me", "1", "2", None, TWO),
            "pkix",
            "it expired; its name is wrong",
            id="sentences",
        ),
        pytest.param(RefreshCrashed(A, KeyError()), "error", "KeyError", id="an exception without words"),
        pytest.param(RefreshCrashed(A, ValueError("x")), "error", "ValueError: x", id="an exception"),
        pytest.param(PolicyExpired(A, STSMode.ENFORCE, NOW), "fetched", "2026-01-01T00:00:00Z", id="moment"),
    ],
)
def test_no_value_has_python_s_own_form(event: Event, name: str, shown: object) -> None:
    assert describe(event).fields[name] == shown


@pytest.mark.parametrize(
    ("in_force", "consequence"),
    [
        (None, "mail goes as if the domain had no MTA-STS policy"),
        (STSMode.ENFORCE, "the policy that was fetched before stays in force"),
    ],
)
def test_a_policy_that_cannot_be_had_is_told_with_how_mail_goes_meanwhile(
    in_force: STSMode | None, consequence: str
) -> None:
    for event in (
        PolicyFetchFailed(A, "status", problem("status 404"), in_force),
        RecordLookupFailed(A, "SERVFAIL", in_force),
        RecordUnusable(A, "two records", in_force),
    ):
        fields = describe(event).fields
        assert (fields["in_force"], fields["consequence"]) == (in_force, consequence)


def test_numbers_are_readable_and_the_null_sender_is_seen() -> None:
    assert describe(DestinationDown("a.test", 32.050890850759764, Reply(451, None, ("x",)))).fields["seconds"] == 32.051
    for event in (
        MessageQueued("0d7m3k9q2xv4t", "", 1, 100),
        MailTaken("smtp", "192.0.2.1", "", "ESMTP", "", 1, 9, REPLY),
    ):
        assert describe(event).fields["sender"] == "<>"


def test_that_a_client_is_turned_away_again_is_a_detail() -> None:
    for is_repeated, level in ((False, "warning"), (True, "debug")):
        line = describe(ClientTurnedAway("smtp", "192.0.2.1", "too many", is_repeated))
        assert (line.level, line.fields) == (level, {"endpoint": "smtp", "client": "192.0.2.1", "reason": "too many"})


def test_what_a_limit_of_ours_holds_back_is_no_warning_and_is_told_once() -> None:
    held_back = Deferred(RECIPIENT, Reply.make(451, "4.4.5", "our limit"), eligible_at=NOW)
    assert describe(RecipientSettled(A, "", held_back)).level == "info"
    assert describe(RecipientDone("1", "", held_back, 0, NOW)).level == "info"
    assert describe(RecipientDone("1", "", held_back, 0, NOW, is_repeated=True)).level == "debug"
    assert describe(RecipientDone("1", "", held_back, 0, given_up=True, is_repeated=True)).level == "warning"


@pytest.mark.parametrize("kind", [PolicyFetchFailed, LoginFailed, DestinationDown], ids=lambda kind: kind.__name__)
def test_what_wants_attention_is_a_warning(kind: type[Event]) -> None:
    assert describe(sample(kind)).level == "warning"


def test_any_event_with_an_exception_is_an_error_with_a_traceback() -> None:
    line = describe(sample(RefreshCrashed))
    assert (line.level, line.error) == ("error", SAMPLES["Exception"])


def test_an_event_that_nobody_described_has_its_own_fields() -> None:
    @value
    class SomethingNewHappened(Event):
        where: Domain
        times: int

    line = describe(SomethingNewHappened(A, 3))
    assert (line.level, line.name, line.fields) == ("info", "something_new_happened", {"where": "a.test", "times": 3})
