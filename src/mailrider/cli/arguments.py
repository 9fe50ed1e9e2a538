"""Arguments that several commands take: domains, spans of time. What is none is a mistake of usage."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

import click

from mailrider.errors import InvalidValue
from mailrider.model.domain import Domain
from mailrider.settings.types import DURATION, Unacceptable

if TYPE_CHECKING:
    from typing import Any


class _DomainType(click.ParamType[Domain]):
    name = "domain"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Domain:
        if isinstance(value, Domain):
            return value
        try:
            return Domain.parse(value)
        except InvalidValue as error:
            self.fail(str(error), param, ctx)


class _SpanType(click.ParamType[timedelta]):
    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        if isinstance(value, timedelta):
            return value
        try:
            return DURATION.accept(value)
        except Unacceptable as error:
            self.fail(str(error), param, ctx)


DOMAIN: Final = _DomainType()
SPAN: Final = _SpanType()
