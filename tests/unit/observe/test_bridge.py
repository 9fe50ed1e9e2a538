"""Events in a program's own `logging`."""

from __future__ import annotations

import logging

import pytest

import mailrider
from mailrider.model.event import Bug, ConnectionReused
from mailrider.model.queue_event import MessageQueued

LOGGER = logging.getLogger("test.mail")
DETAIL = ConnectionReused("mx.a.test", "192.0.2.1", 2)


def test_an_event_is_a_record_with_text_level_and_fields(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "test.mail"):
        mailrider.log_to(LOGGER)(MessageQueued("abc", "a@example.org", 2, 100))
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("test.mail", logging.DEBUG)
    assert record.getMessage().startswith("message_queued message=abc ")
    assert record.__dict__["mailrider"]["event"] == "message_queued"
    assert record.__dict__["mailrider"]["sender"] == "a@example.org"


def test_a_bug_is_an_error_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    mailrider.log_to()(Bug("somewhere", ValueError("50 %s")))
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("mailrider", logging.ERROR)
    assert "ValueError: 50 %s" in record.getMessage()


@pytest.mark.parametrize(("level", "count"), [(logging.INFO, 0), (logging.DEBUG, 1)])
def test_details_are_for_debugging(caplog: pytest.LogCaptureFixture, level: int, count: int) -> None:
    with caplog.at_level(level, "test.mail"):
        mailrider.log_to(LOGGER)(DETAIL)
    assert [record.levelno for record in caplog.records] == [logging.DEBUG] * count


def test_what_the_logger_does_not_want_is_not_made() -> None:
    LOGGER.setLevel(logging.CRITICAL)
    try:
        mailrider.log_to(LOGGER)(MessageQueued("abc", "a@example.org", 2, 100))
    finally:
        LOGGER.setLevel(logging.NOTSET)
