"""What a worker tells the others without words: that its stores take no mail now."""

from __future__ import annotations

from mailrider.app.worker import StoreTroubles
from mailrider.model.daemon_event import RunningAsRoot
from mailrider.model.queue_event import QueueAvailable, QueueHasSpace, QueueShort, QueueUnavailable

SHORT = QueueShort(1, 2)
UNAVAILABLE = QueueUnavailable("the disk is gone")


def test_who_has_any_trouble_refuses_until_all_of_it_is_over() -> None:
    told = list[bool]()
    troubles = StoreTroubles(told.append)
    for event in (SHORT, UNAVAILABLE, SHORT, QueueHasSpace(), QueueAvailable()):
        troubles(event)
    assert told == [True]
    troubles(QueueHasSpace())
    assert told == [True, False]


def test_an_end_without_a_beginning_changes_nothing() -> None:
    told = list[bool]()
    troubles = StoreTroubles(told.append)
    for event in (QueueHasSpace(), RunningAsRoot()):
        troubles(event)
    assert told == []


def test_it_listens_to_nothing_else() -> None:
    troubles = StoreTroubles(lambda _: None)
    assert troubles.listener_for(QueueShort) is troubles
    assert troubles.listener_for(QueueAvailable) is troubles
    assert troubles.listener_for(RunningAsRoot) is None
