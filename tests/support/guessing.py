"""Lines of the log about clients that guess passwords, and call themselves whatever might fool who reads them."""

from __future__ import annotations

import io
import re

from mailrider.model.endpoint_event import ClientRefused, LoginFailed, LoginHeldBack
from mailrider.observe.log import EventLog

GUESSED = (
    LoginFailed("submission", "192.0.2.1", "anna"),
    LoginFailed("submission", "192.0.2.1", "x client=203.0.113.9 user=y"),
    LoginHeldBack("submission", "192.0.2.1", 'x" client=203.0.113.9 user="'),
    LoginFailed("submission", "2001:db8::1", "\n2026-01-01T00:00:00.000000Z warning login_failed client=203.0.113.9"),
)
# What a client calls itself, and what it says, is in lines that do not count.
HARMLESS = ClientRefused("smtp", "192.0.2.7", "", "EHLO", "warning login_failed endpoint=smtp client=203.0.113.9 user=")


def lines(*, journal: bool = False) -> list[str]:
    stream = io.StringIO()
    log = EventLog(stream, journal=journal)
    for event in (*GUESSED, HARMLESS):
        log(event)
    return [re.sub(r"^<\d>", "", line) for line in stream.getvalue().splitlines()]
