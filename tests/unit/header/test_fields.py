"""Fields that we write: no line of them can hold a line end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrider.header.fields import UnsafeField, compose_field


@pytest.mark.parametrize(
    ("name", "lines", "fold", "field"),
    [
        ("Subject", ("a",), " ", "Subject: a\r\n"),
        ("Subject", ("a", "b"), " ", "Subject: a\r\n b\r\n"),
        ("Received", ("from a", "by b"), "\t", "Received: from a\r\n\tby b\r\n"),
        ("Subject", ("",), " ", "Subject:\r\n"),
        ("Subject", (), " ", "Subject:\r\n"),
        ("Subject", ("ü\u2028\x85",), " ", "Subject: ü\u2028\x85\r\n"),
    ],
)
def test_a_field_is_a_name_and_lines(name: str, lines: tuple[str, ...], fold: str, field: str) -> None:
    assert compose_field(name, *lines, fold=fold) == field


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("Subject", ("a\r\nX: y",)),
        ("Subject", ("a\rX: y",)),
        ("Subject", ("a\nX: y",)),
        ("Subject", ("a\0",)),
        ("Subject", ("a", "b\n")),
        ("Subject", ("a", "")),
        ("Subject", ("a", " ")),
        ("Subject", ("ü" * 499,)),
        ("Sub ject", ("a",)),
        ("X:", ("a",)),
        ("X\r\nY", ("a",)),
        ("", ("a",)),
    ],
)
def test_what_could_become_another_field_is_never_written(name: str, lines: tuple[str, ...]) -> None:
    with pytest.raises(UnsafeField):
        compose_field(name, *lines)


@pytest.mark.parametrize("fold", ["", "a", "\r\n ", " x", "\n"])
def test_what_folds_is_white_space(fold: str) -> None:
    with pytest.raises(UnsafeField):
        compose_field("Subject", "a", "b", fold=fold)


def test_no_line_is_longer_than_rfc_5322_allows() -> None:
    field = compose_field("A" * 76, "ü" * 459, "x" * 918)
    assert max(len(line.encode()) for line in field.split("\r\n")) <= 998
    with pytest.raises(UnsafeField):
        compose_field("A", "x" * 919)


@given(st.text(alphabet="a\r\n\0: \tü", max_size=8), st.lists(st.text(alphabet="a\r\n\0: \tü", max_size=8), max_size=3))
def test_a_field_is_one_field_or_none(name: str, lines: list[str]) -> None:
    try:
        field = compose_field(name, *lines)
    except UnsafeField:
        return
    first, *others = field.removesuffix("\r\n").split("\r\n")
    assert first.startswith(f"{name}:")
    assert all(line[0] in " \t" and line.strip(" \t") for line in others)
    assert not set("\r\n\0") & set(first.join(others))
