"""Directives: what a setting is called, takes and means; declared once, on the field that holds it.

Settings are frozen dataclasses, made with `@settings` from `Settings`. Each field is a
`directive(...)`, which names its value type, default, unit and meaning; from that come the
conversion and the checks when one is constructed (by a program or from a configuration file), the
errors, and the reference manual.

- A settings value is valid: constructing one with nonsense raises `InvalidSetting`, which says
  field, value and what was expected.
- Fields take what their value type accepts (`connect_timeout=30`, `min_tls_level="authenticated"`)
  and hold the typed value (`timedelta`, `TLSLevel`). `Setting[Holds, Takes]` says so to a type
  checker.
- No text is parsed here beyond single words, and nothing is read from anywhere.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, dataclass_transform

from mailrider.errors import ConfigError
from mailrider.settings.types import Unacceptable, ValueType

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import timedelta
    from pathlib import Path

    from mailrider.errors import Problem
    from mailrider.model.domain import Domain
    from mailrider.settings.types import IPAddress

    Holds = TypeVar("Holds", covariant=True)
    Takes = TypeVar("Takes", contravariant=True)

    class Setting(Generic[Holds, Takes]):
        """For type checkers: a field that holds one type and may be constructed from another."""

        def __get__(self, instance: object, owner: type | None = None) -> Holds: ...
        def __set__(self, instance: object, value: Takes) -> None: ...

    Held = TypeVar("Held")
    Maybe = Setting[Held | None, Held | None]
    Duration = Setting[timedelta, timedelta | float | str]
    OptionalDomain = Setting[Domain | None, Domain | str | None]
    OptionalPath = Setting[Path | None, Path | str | None]
    Paths = Setting[tuple[Path, ...], Iterable[Path | str]]
    IPAddresses = Setting[tuple[IPAddress, ...], Iterable[IPAddress | str]]

_KEY = "mailrider.directive"

SettingsT = TypeVar("SettingsT")


class InvalidSetting(Unacceptable):
    """A setting that cannot be; `field` names it, `problem` says why not and what was expected."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


@dataclass(frozen=True, slots=True)
class MissingSecret:
    """Stands for a secret that could not be looked up; whoever needs it is told the problem (`revealed`)."""

    problem: Problem


def revealed(secret: SettingsT | MissingSecret) -> SettingsT:
    """A secret, for use. Raises `ConfigError` if it is missing."""
    if isinstance(secret, MissingSecret):
        raise ConfigError([secret.problem])
    return secret


@dataclass(frozen=True, slots=True)
class Block(ValueType[Any]):
    """A directive whose value is a settings class, written as a block.

    `reference`: the kind of instance that `&name` may refer to here, if any. `shorthand`: words that may stand instead
    of a block, with what they mean. `bare`: the name alone, without a block, means an empty block.
    """

    settings: type[Settings] = field(kw_only=True)
    reference: str | None = None
    shorthand: Mapping[str, Callable[[], Settings]] = field(default_factory=dict)
    bare: bool = False


@dataclass(frozen=True, slots=True)
class Section(Block):
    """A block with arguments before it: `destination example.org { ... }`. `arguments` is the type of each of them.

    It is converted from a pair: the arguments, and the settings.
    """

    arguments: ValueType[Any] = field(kw_only=True)

    def written(self, value: object) -> object:
        """See `ValueType`: the arguments; the block is right by itself."""
        match value:
            case (words, Settings()):
                return Block.written(self, words)
            case _:
                return Block.written(self, value)


def block(settings: type[Settings], *, convert: Callable[[Any], Settings] | None = None, **options: Any) -> Block:
    """The value type of a directive with a block. `convert` takes what else a program may give;
    `options` are those of `Block`."""

    def same(value: object) -> Settings:
        if not isinstance(value, settings):
            raise TypeError
        return value

    written = "block or &name" if options.get("reference") else "block"
    return Block(
        written, f"{settings.public_name or settings.__name__}(...)", convert or same, settings=settings, **options
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Directive:
    """What is known of a setting.

    - `shown_default` says the default to people, where it is no plain value;
    - `file_default`: the default in a configuration file, where it is another one than that of programs;
    - `inherits`: where it is not given, the global directive of the same name holds;
    - `only_global`: it exists at the top level only, and is copied from there;
    - `required`: once inheritance is done, None will not do;
    - `state_path`: the default is this path in the state directory;
    - `secret`: what is given holds a secret: no error, log or `repr` repeats any of it.
    """

    name: str = ""  # that of the field
    type: ValueType[Any]
    default: object
    doc: str
    shown_default: str = ""
    file_default: object = None
    unit: str = ""
    repeatable: bool = False
    inherits: bool = False
    only_global: bool = False
    required: bool = False
    state_path: str | None = None
    secret: bool = False


def directive(type: ValueType[Any], *, default: Any, **facts: Any) -> Any:
    """A dataclass field that carries its `Directive`, made of `facts`. It takes None only where that is the default."""
    carried = Directive(type=type, default=default, **facts)
    return field(default=default, metadata={_KEY: carried}, repr=not carried.secret)


def optional(type: ValueType[Any], **facts: Any) -> Any:
    """A `directive` that may be None, and is so unless it is given."""
    return directive(type, default=None, **facts)


class Settings:
    """The base of all settings: converts and validates every field when one is made.

    `public_name`: the name that programs know the class by, if it is not its own; errors say that one.
    """

    __slots__ = ()

    public_name: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for name, known in directives_of(type(self)).items():
            value = getattr(self, name)
            if value is known.default:  # typed already; the only way for None
                continue
            if known.secret and isinstance(value, MissingSecret):
                continue
            object.__setattr__(self, name, _accept(known, value))
        self._validate()

    def _validate(self) -> None:
        """Raise `InvalidSetting` where fields that are right by themselves do not fit together."""


def _accept(known: Directive, value: object) -> object:
    if known.secret:
        return _accept_secret(known, value)
    try:
        return known.type.accept(value)
    except InvalidSetting as error:
        raise InvalidSetting(known.name, error.problem) from error
    except Unacceptable as error:
        raise InvalidSetting(known.name, str(error)) from error


def _accept_secret(known: Directive, value: object) -> object:
    """As others, and nothing of what was given is in the error, nor in what it is chained to."""
    try:
        return known.type.accept(value)
    except Unacceptable:
        pass
    raise InvalidSetting(known.name, f"expected {known.type.expected}")


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(directive, field))
def settings(cls: type[SettingsT]) -> type[SettingsT]:
    """Class decorator: a frozen, slotted, keyword-only dataclass."""
    return dataclass(frozen=True, slots=True, kw_only=True)(cls)


def directives_of(cls: type[Settings]) -> Mapping[str, Directive]:
    """The directives of a settings class by name, in the order of declaration."""
    return _directives_of(cls)  # type: ignore[arg-type] # a class is hashable, whatever its instances are


@cache
def _directives_of(cls: type[Settings]) -> Mapping[str, Directive]:
    fields = dataclasses.fields(cls)  # type: ignore[arg-type] # every Settings is a dataclass
    carried = {each.name: each.metadata[_KEY] for each in fields if _KEY in each.metadata}
    named = {name: dataclasses.replace(known, name=name) for name, known in carried.items()}
    return MappingProxyType(named)
