"""Fields before a message: the message below them stays as it is, however it is held."""

from __future__ import annotations

import pytest

from mailrider.smtp.content import Content
from mailrider.smtp.prepend import COPIED, prepend
from tests.support.contents import awaited

FIELD = b"Received: here\r\n"
SMALL = b"Subject: x\r\n\r\nHello.\r\n"
LARGE = SMALL + (b"y" * 78 + b"\r\n") * (COPIED // 80 + 1)


@pytest.mark.parametrize("message", [SMALL, LARGE], ids=["one piece", "several pieces"])
def test_fields_come_first(message: bytes) -> None:
    content = prepend(Content.inspect(message), FIELD, ("example.net s1",))
    assert b"".join(content.chunks()) == FIELD + message
    assert content.size == len(FIELD + message)
    assert content.header_size == len(FIELD) + Content.inspect(message).header_size
    assert content.header.startswith(FIELD)
    assert (content.eight_bit, content.signed_by) == (False, ("example.net s1",))


@pytest.mark.parametrize("field", [FIELD, "Subject: \u00e4\r\n".encode()], ids=["ascii", "8 bits"])
async def test_content_that_is_still_to_be_read_gets_them_too(field: bytes) -> None:
    content = prepend(awaited(SMALL), field, ("example.net s1",))
    assert b"".join([bytes(piece) async for piece in content.pieces()]) == field + SMALL
    assert (content.size, content.signed_by) == (len(field + SMALL), ("example.net s1",))
    assert content.eight_bit is not field.isascii()


def test_without_any_it_is_the_same_object() -> None:
    content = Content.inspect(SMALL)
    assert prepend(content, b"") is content
