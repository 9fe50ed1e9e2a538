"""Settings: fields that carry their directive, and are valid or do not exist."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from mailrider.settings.directive import Block, InvalidSetting, Settings, block, directive, directives_of, settings
from mailrider.settings.types import BOOLEAN, PORT, TIMEOUT, many

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mailrider.settings.directive import Duration, Setting


@settings
class Inner(Settings):
    """A block."""

    wait: Duration = directive(TIMEOUT, default=timedelta(seconds=5), unit="a unit", doc="How long.")


def _inner(value: Any) -> Inner:
    if value == "broken":
        raise InvalidSetting("elsewhere", "it is broken")
    return Inner(wait=value)


@settings
class Outer(Settings):
    """Another."""

    port: Setting[int | None, int | str | None] = directive(PORT, default=None, doc="A port.", required=True)
    ports: Setting[tuple[int, ...], Iterable[int]] = directive(many(PORT), default=(), doc="Ports.", repeatable=True)
    strict: Setting[bool, bool] = directive(BOOLEAN, default=False, doc="Whether.", shown_default="it depends")
    inner: Setting[Inner | None, Inner | None] = directive(block(Inner), default=None, doc="A block.")
    lenient: Setting[Inner | None, Inner | float | str | None] = directive(
        block(Inner, convert=_inner, reference="inner", shorthand={"off": Inner}, bare=True), default=None, doc="One."
    )
    note: str = ""

    def _validate(self) -> None:
        if self.strict and self.port is None:
            raise InvalidSetting("strict", "strict needs port")


def test_fields_hold_their_typed_values() -> None:
    made = Outer(port="25", ports=[26, 27], inner=Inner(wait=1.5), lenient=3, note="x")
    assert (made.port, made.ports, made.strict, made.note) == (25, (26, 27), False, "x")
    assert made.inner == Inner(wait=timedelta(seconds=1.5))
    assert made.lenient == Inner(wait="3s")


def test_defaults_are_taken_as_they_are() -> None:
    assert Outer() == Outer(port=None, ports=(), strict=False, inner=None, lenient=None)


def test_none_is_for_fields_whose_default_it_is() -> None:
    assert Outer(port=None).port is None
    with pytest.raises(InvalidSetting, match="strict: expected yes or no, not None"):
        Outer(strict=None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "field", "message"),
    [
        ({"port": 0}, "port", "port: expected a whole number from 1 to 65535, not 0"),
        ({"ports": [1, "x"]}, "ports", 'ports: expected a whole number from 1 to 65535, not "x"'),
        ({"strict": 0}, "strict", "strict: expected yes or no, not 0"),
        ({"inner": 3}, "inner", "inner: expected Inner(...), not 3"),
        ({"lenient": "broken"}, "lenient", "lenient: it is broken"),
        ({"lenient": -1}, "lenient", "lenient: expected a duration longer than 0, such as 1h5m, 30s or 150ms, not -1"),
        ({"strict": True}, "strict", "strict: strict needs port"),
    ],
)
def test_nonsense_is_refused_with_field_value_and_what_was_expected(
    given: dict[str, Any], field: str, message: str
) -> None:
    with pytest.raises(ValueError, match=r"^[a-z]+: ") as caught:
        Outer(**given)
    assert isinstance(caught.value, InvalidSetting)
    assert (caught.value.field, str(caught.value)) == (field, message)
    assert caught.value.problem == message.removeprefix(f"{field}: ")


def test_settings_are_values() -> None:
    made = Outer(port=25)
    assert made == Outer(port="25")
    assert hash(made) == hash(Outer(port=25))
    assert dataclasses.replace(made, port=26) == Outer(port=26)
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.port = 26  # type: ignore[misc]
    with pytest.raises(TypeError):
        Outer(25)  # type: ignore[call-arg]
    assert not hasattr(made, "__dict__")


def test_replacing_a_field_validates_it() -> None:
    with pytest.raises(InvalidSetting):
        dataclasses.replace(Outer(), port=0)


def test_directives_are_those_of_the_fields_in_order() -> None:
    known = directives_of(Outer)
    assert list(known) == ["port", "ports", "strict", "inner", "lenient"]
    assert [each.name for each in known.values()] == list(known)
    port, strict = known["port"], known["strict"]
    assert (port.type, port.default, port.doc, port.required, port.repeatable) == (PORT, None, "A port.", True, False)
    assert (strict.shown_default, known["ports"].repeatable) == ("it depends", True)
    assert directives_of(Inner)["wait"].unit == "a unit"


def test_a_block_knows_what_is_in_it() -> None:
    inner, lenient = (directives_of(Outer)[name].type for name in ("inner", "lenient"))
    assert isinstance(inner, Block)
    assert isinstance(lenient, Block)
    assert (inner.settings, inner.name, inner.reference, dict(inner.shorthand), inner.bare) == (
        Inner,
        "block",
        None,
        {},
        False,
    )
    assert (lenient.name, lenient.reference, dict(lenient.shorthand), lenient.bare) == (
        "block or &name",
        "inner",
        {"off": Inner},
        True,
    )
