"""Arguments that several commands take: domains, numbers, spans of time, texts. What is none is a mistake of usage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import click

from mailrider.errors import InvalidValue
from mailrider.model.domain import Domain
from mailrider.settings.types import DURATION, MAX_NUMBER, integer

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class ParsedType(click.ParamType[T], Generic[T]):
    """What `parse` makes of a word; it raises `InvalidValue`."""

    def __init__(self, name: str, parse: Callable[[str], T]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> T:
        if not isinstance(value, str):
            return value  # type: ignore[no-any-return] # a default, which is one already
        try:
            return self._parse(value)
        except InvalidValue as error:
            self.fail(str(error), param, ctx)


DOMAIN: Final = ParsedType("domain", Domain.parse)
SPAN: Final = ParsedType("time", DURATION.accept)


def whole_number(least: int, most: int = MAX_NUMBER) -> ParsedType[int]:
    """Whole numbers within bounds, in plain digits: Python would take those of all alphabets, `1_0` and `+1`."""
    return ParsedType("number", integer(least, most).accept)


def readable(text: str) -> str:
    """A text that can be looked for: no queue holds octets that are not UTF-8."""
    if any("\ud800" <= each <= "\udfff" for each in text):
        raise InvalidValue("expected text in UTF-8")
    return text


TEXT: Final = ParsedType("text", readable)
