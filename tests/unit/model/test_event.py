"""What events are called in the log: the names are stable, for those who search."""

from __future__ import annotations

import pytest

from mailrider.model.address import Mailbox
from mailrider.model.endpoint_event import ClientLeft
from mailrider.model.envelope import Recipient
from mailrider.model.event import (
    CandidateRefused,
    ConnectionOpened,
    Event,
    LookupDidFail,
    RecipientAttempted,
    SecurityUnavailable,
    ServerTrustChanged,
)
from mailrider.model.outcome import Deferred, Delivered
from mailrider.model.queue_event import QueueShort, RecipientDone
from mailrider.model.reply import Reply

RECIPIENT = Recipient(Mailbox.parse("b@a.test"))
TAKEN = Delivered(RECIPIENT, Reply.make(250, "2.0.0", "ok"))
LATER = Deferred(RECIPIENT, Reply.make(451, "4.0.0", "later"))


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (ConnectionOpened, "connection_opened"),
        (LookupDidFail, "lookup_failed"),
        (CandidateRefused, "refused_by_policy"),
        (SecurityUnavailable, "dnssec_and_dane_off"),
        (QueueShort, "queue_disk_short"),
    ],
)
def test_an_events_name_is_its_class_in_words_unless_it_is_named(kind: type[Event], name: str) -> None:
    assert kind.kind_name() == name


@pytest.mark.parametrize(
    ("event", "name"),
    [
        (ClientLeft("e", "c", ""), "client_left"),
        (RecipientAttempted(None, "", TAKEN), "delivered"),
        (RecipientAttempted(None, "", LATER), "deferred"),
        (RecipientDone("1", "", TAKEN, 0), "queue_delivered"),
        (RecipientDone("1", "", LATER, 3), "queue_deferred"),
        (RecipientDone("1", "", LATER, 3, given_up=True), "queue_failed"),
        (ServerTrustChanged("9.9.9.9", believed=True, reason=""), "dns_server_validates_again"),
        (ServerTrustChanged("9.9.9.9", believed=False, reason=""), "dns_server_does_not_validate"),
    ],
)
def test_some_are_named_by_what_happened(event: Event, name: str) -> None:
    assert event.log_name == name
