"""What a rule of a pipeline matches, and how it is shown."""

from __future__ import annotations

import pytest

from mailrider.model.address import Mailbox
from mailrider.settings.pipeline import MATCH


@pytest.mark.parametrize(
    ("text", "shown", "is_address"),
    [("Example.ORG", "example.org", False), ("Joe@Example.ORG", "joe@example.org", True)],
)
def test_a_match_is_shown_as_it_is_compared(text: str, shown: str, is_address: bool) -> None:
    match = MATCH.accept(text)
    assert (str(match), match.is_address) == (shown, is_address)
    assert match.fits(Mailbox.parse("JOE@example.org"))
