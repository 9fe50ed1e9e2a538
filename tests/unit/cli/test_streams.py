"""The words of the command line, whatever the locale made of them."""

from __future__ import annotations

import os
import sys

import pytest

from mailrider.cli.streams import command_line


@pytest.mark.parametrize(
    ("octets", "word"),
    [
        (b"b\xc3\xbccher.test", "b\u00fccher.test"),
        (b"--to", "--to"),
        (b"Caf\xe9", "Caf\udce9"),
    ],
    ids=["UTF-8", "ASCII", "neither: it stays as Python read it"],
)
def test_words_that_the_locale_could_not_read_are_utf_8(
    octets: bytes, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As under LC_ALL=C without Python's UTF-8 mode: each octet that is not ASCII by itself.
    given = octets.decode("ascii", "surrogateescape")
    assert os.fsencode(given) == octets
    monkeypatch.setattr(sys, "argv", ["mailrider", given])
    assert command_line() == [word]
