"""Nodes to settings: each block is read by its settings class, each directive by its declaration.

Everything that is wrong is told, with its place; a block in which anything is wrong is `WRONG` as a whole, and reading
goes on behind it. What is not known is an error: nothing is ignored.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mailrider.config.configuration import Instance
from mailrider.config.kinds import ENDPOINTS, KINDS, TARGET, TOP_LEVEL, BlockKind, blocks_that_know, top_level_names
from mailrider.config.nearest import did_you_mean
from mailrider.config.other_programs import advice
from mailrider.config.settings import Globals
from mailrider.config.values import WRONG, Wrong, read_value
from mailrider.delivery.settings import LimitsSettings
from mailrider.endpoint.settings import EndpointSettings, SourceRule
from mailrider.errors import ConfigError
from mailrider.model.text import few
from mailrider.net.settings import SERVER_TLS, ServerTLS, ServerTLSOptions, TLSClientSettings
from mailrider.queue.settings import QueueSettings
from mailrider.settings.directive import Block, InvalidSetting, Section, directives_of
from mailrider.settings.pipeline import PipelineSettings, RouteSettings, Rule, TargetRef, TargetType
from mailrider.settings.socket_address import SOCKET_ADDRESS
from mailrider.settings.types import PathType, Unacceptable, either, show
from mailrider.signing.settings import DKIMSettings

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mailrider.config.parser import Node, Word
    from mailrider.config.secret_values import SecretValues
    from mailrider.config.source import Position, Problems
    from mailrider.settings.directive import Directive, Settings
    from mailrider.settings.types import ValueType

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_STATE_DIRECTORY = "StateDirectory"
_OFF = "off"  # as in mx_auth off
# What is there, though it is wrong, must not be told to be missing.
_STAND_INS = {"hostname": "stand-in.invalid", "tls": ServerTLS(Path("stand-in"), Path("stand-in"))}


@dataclass(slots=True)
class Binder:
    """Reads the blocks of one configuration.

    `state_dir` is where relative paths begin, `secrets` looks up what stands elsewhere. `named` are the blocks that
    can be referred to; `refused` the names of blocks that are not known, which has been told where they stand.
    """

    problems: Problems
    state_dir: Path
    secrets: SecretValues
    named: dict[str, tuple[BlockKind, Node]] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    _unnamed: list[tuple[BlockKind, Node]] = field(default_factory=list)
    _bound: dict[str, Instance[Settings] | Wrong] = field(default_factory=dict)

    def _wrong(self, at: Position, message: str) -> Wrong:
        self.problems.add(at, message)
        return WRONG

    # --- Blocks ---------------------------------------------------------------------------------

    def settings(self, cls: type[Settings], block: Node, where: str) -> Any:
        """The settings that the directives in a block make, or `WRONG`."""
        is_pipeline = issubclass(cls, RouteSettings | PipelineSettings) and not issubclass(cls, EndpointSettings)
        if is_pipeline and not block.children:
            return self._wrong(block.name.position, f"{where}: the block is empty: expected deliver_to or reject in it")
        values, given = self._values(cls, block.children or (), where)
        if WRONG in values.values():
            return WRONG
        try:
            made = cls(**_file_defaults(cls) | values)  # type: ignore[arg-type] # a class is hashable
        except InvalidSetting as error:
            if error.field in given:
                return self._wrong(given[error.field].name.position, _named(error))
            return self._wrong(block.name.position, f"{where}: {_named(error)}")
        return made if not isinstance(made, TLSClientSettings) else self._possible(made, block, given)

    def _possible(self, made: TLSClientSettings, block: Node, given: dict[str, Node]) -> Any:
        """Settings whose ciphers OpenSSL takes, or `WRONG`. Files and the rest come when it is opened."""
        from mailrider.net.tls import make_client_context  # with OpenSSL, which most commands do not need

        try:
            make_client_context(dataclasses.replace(made, cert=None, key=None, curves=()))
        except ConfigError as error:
            at = given.get(str(error).partition(":")[0], block)
            return self._wrong((at.arguments[0] if at.arguments else at.name).position, str(error))
        return made

    def globals(self, nodes: Iterable[Node]) -> tuple[Globals, bool]:
        """The global settings, and whether they are right. If not, others stand in, so that the rest can be judged."""
        values, given = self._values(Globals, nodes, TOP_LEVEL)
        wrong = {name for name, value in values.items() if value is WRONG}
        right = {name: value for name, value in values.items() if name not in wrong}
        right |= {name: value for name, value in _STAND_INS.items() if name in wrong}
        try:
            return Globals(**right), not wrong
        except InvalidSetting as error:
            self.problems.add(given[error.field].name.position, _named(error))
            return Globals(**{name: value for name, value in right.items() if name != error.field}), False

    def _values(self, cls: type[Settings], nodes: Iterable[Node], where: str) -> tuple[dict[str, Any], dict[str, Node]]:
        """What each directive of a block gives, `WRONG` among it if anything is; and where each stands first."""
        values: dict[str, Any] = {}
        given: dict[str, Node] = {}
        matched: dict[tuple[str, str], Word] = {}
        for node in nodes:
            known = self._known(cls, node, where)
            if known is None:
                values[""] = WRONG
            elif known.name in given and not known.repeatable:
                first = given[known.name].name.position
                self.problems.add(node.name.position, f"{known.name} is there twice; first at {first}")
                self._value(known, node)  # for what is wrong in it
                values[""] = WRONG
            else:
                value = self._value(known, node)
                if isinstance(value, tuple) and self._repeats(known.name, node, value, matched):
                    value = WRONG
                repeated = known.name in given and WRONG not in (value, values[known.name])
                values[known.name] = values[known.name] + value if repeated else value
                given.setdefault(known.name, node)
        return values, given

    def _repeats(self, name: str, node: Node, value: tuple[Any, ...], matched: dict[tuple[str, str], Word]) -> bool:
        """Tell of a domain or address for which a pipeline has a block already: only one of them would be used."""
        is_repeated = False
        for rule in value:
            if not isinstance(rule, Rule | SourceRule):
                return False
            for match, word in zip(rule.matches, node.arguments, strict=True):
                first = matched.setdefault((name, match.text), word)
                if first is not word:
                    text = f"{name}: {show(word.text)} has a block already, at {first.position}"
                    self.problems.add(word.position, text)
                    is_repeated = True
        return is_repeated

    def _known(self, cls: type[Settings], node: Node, where: str) -> Directive | None:
        """The declaration of a directive that may stand here."""
        name = node.name.text
        directives = {name: known for name, known in directives_of(cls).items() if not known.only_global}
        if name not in directives:
            self.problems.add(node.name.position, _unknown(name, where, directives))
        return directives.get(name)

    def _value(self, known: Directive, node: Node) -> Any:
        if isinstance(known.type, TargetType):
            return self._target(node)
        if isinstance(known.type.item, Section):
            rule = self._section(known.name, known.type.item, node)
            return WRONG if rule is WRONG else (rule,)
        if known.type is SERVER_TLS:
            return self._server_tls(known, node)
        if isinstance(known.type, Block):
            return self._block(known.name, known.type, node)
        value = read_value(known, node, self.problems, self.secrets)
        if value is WRONG or not isinstance(known.type.item or known.type, PathType):
            return value
        if known.name == "state_dir":  # it is where all others begin
            return self.state_dir
        return tuple(map(self.resolve, value)) if known.type.item else self.resolve(value)

    def _server_tls(self, known: Directive, node: Node) -> Any:
        """`tls CERT KEY { ... }`; in an endpoint the files may be left to the global directive."""
        value: Any = ServerTLS()
        if node.arguments or node.children is None:
            value = read_value(known, dataclasses.replace(node, children=None), self.problems)
        options = self.settings(ServerTLSOptions, node, known.name)
        if value is WRONG or options is WRONG:
            return WRONG
        if node.children is not None and not value.is_on and (node.arguments or options.protocols is None):
            return self._wrong(
                node.name.position, f"{known.name}: expected {known.type.expected}, or protocols in a block"
            )
        if value.is_on:
            value = ServerTLS(self.resolve(value.cert), self.resolve(value.key), position=node.name.position)
        return dataclasses.replace(value, protocols=options.protocols)

    def resolve(self, path: Path) -> Path:
        """A path of the configuration: relative ones begin at the state directory, and so does `StateDirectory/`."""
        if path.parts[:1] == (_STATE_DIRECTORY,):
            path = Path(*path.parts[1:])
        return self.state_dir / path

    def _block(self, name: str, type: Block, node: Node) -> Any:
        if not node.arguments:
            if node.children is None and not type.bare:
                return self._wrong(node.name.position, f"{name}: expected {_written(name, type)}")
            return self.settings(type.settings, node, name)
        first, *more = node.arguments
        if more or node.children is not None:
            extra = more[0] if more else first
            return self._wrong(
                extra.position, f"{name}: expected {_written(name, type)}; {show(extra.text)} is too much"
            )
        if first.text in type.shorthand:
            return type.shorthand[first.text]()
        if type.reference and first.text.startswith("&"):
            instance = self.reference(first, type.reference, name)
            return WRONG if instance is WRONG else instance.settings
        near = did_you_mean(first.text, self.named, prefix="&") if type.reference else ""
        return self._wrong(first.position, f"{name}: expected {_written(name, type)}, not {show(first.text)}{near}")

    def _section(self, name: str, type: Section, node: Node) -> Any:
        """A block with arguments before it."""
        if not node.arguments or (node.children is None and not type.bare):
            return self._wrong(node.name.position, f"{name}: expected {type.expected}: {name} {type.name}")
        values = self._arguments(name, type.arguments, node)
        settings = self.settings(type.settings, node, name)
        if settings is WRONG or WRONG in values:
            return WRONG
        try:
            made = type.accept((values, settings))
        except Unacceptable as error:
            return self._wrong(node.arguments[0].position, f"{name}: {error}")
        return dataclasses.replace(made, position=node.name.position) if isinstance(made, DKIMSettings) else made

    def _arguments(self, name: str, type: ValueType[Any], node: Node) -> tuple[Any, ...]:
        """What the words before a block mean, `WRONG` among it if any of them is."""
        values: list[Any] = []
        for word in node.arguments:
            try:
                values.append(type.accept(word.text))
            except Unacceptable as error:
                values.append(self._wrong(word.position, f"{name}: {error}"))
        return tuple(values)

    def _target(self, node: Node) -> Any:
        """What a directive inside a block delivers to. A reference stays one: two blocks may refer to each other."""
        if len(node.arguments) == 1 and node.children is None:
            name = node.arguments[0].text.removeprefix("&")
            if node.arguments[0].text != name and name in self.named and self.named[name][0].is_target:
                return TargetRef(name)
        target = self.target(node)
        return target if target is WRONG else target.settings

    # --- Instances ------------------------------------------------------------------------------

    def declare(self, kind: BlockKind, node: Node) -> None:
        """Note a block of the top level, so that it can be referred to from anywhere."""
        for extra in node.arguments[1:2]:
            self.problems.add(extra.position, f"{kind.name} takes one name; {show(extra.text)} is too much")
        word = node.arguments[0] if node.arguments else node.name
        name = word.text if node.arguments else kind.default_name
        problem = self._unusable(name, kind, node)
        if problem is None:
            self.named[name] = kind, node
        else:
            self.problems.add(word.position, problem)
            self._unnamed.append((kind, node))

    def _unusable(self, name: str, kind: BlockKind, node: Node) -> str | None:
        """Why a block cannot have this name."""
        if not node.arguments and kind.needs_name:
            return (
                f"{kind.name} at the top level needs a name, so that it can be used as {kind.name} &NAME: "
                f"expected {kind.name} NAME {{ ... }}"
            )
        if not _NAME.fullmatch(name):
            return f"expected a name of letters, digits, _ - and ., not {show(name)}"
        if name == _OFF:
            return f'no block may be named "{_OFF}": it means that there is none'
        if name in self.named:
            return f'the name "{name}" is already used, at {self.named[name][1].name.position}'
        return None

    def instances(self) -> dict[str, Instance[Settings]]:
        """All blocks that were declared and are right."""
        for kind, node in self._unnamed:
            if node.children is not None:
                self.inline(kind, node)  # for what is wrong in it
        bound = {name: self._instance(name) for name in self.named}
        return {name: instance for name, instance in bound.items() if isinstance(instance, Instance)}

    def _instance(self, name: str) -> Any:
        if name not in self._bound:
            kind, node = self.named[name]
            self._bound[name] = self.inline(kind, node, name)
        return self._bound[name]

    def inline(self, kind: BlockKind, node: Node, name: str | None = None) -> Any:
        """The instance that a block makes, or `WRONG`."""
        if node.children is None and not kind.is_target:
            return self._wrong(node.name.position, f"{kind.name}: expected a block: {kind.name} {name} {{ ... }}")
        settings = self.settings(kind.settings, node, kind.name)
        if settings is WRONG:
            return WRONG
        if isinstance(settings, LimitsSettings):
            settings = dataclasses.replace(settings, name=name)
        if isinstance(settings, QueueSettings):
            own = self.resolve(Path(name)) if name else None
            settings = dataclasses.replace(settings, name=name, location=settings.location or own)
        return Instance(kind.name, name, settings, node.name.position)

    def endpoint(self, node: Node) -> Any:
        """The block of an endpoint, with the addresses before it, or `WRONG`."""
        addresses = self._arguments(node.name.text, SOCKET_ADDRESS, node)
        if node.children is None:
            return self._wrong(node.name.position, f"{node.name}: expected a block: {node.name} ADDRESS... {{ ... }}")
        settings = self.settings(ENDPOINTS[node.name.text], node, node.name.text)
        if settings is WRONG or WRONG in addresses:
            return WRONG
        settings = dataclasses.replace(settings, listen=addresses)
        return Instance(node.name.text, None, settings, node.name.position)

    def reference(self, word: Word, kind: str, needed_by: str) -> Any:
        """The instance that `&name` means, or `WRONG`; `kind` is what it has to be, `target.` for any target."""
        name = word.text.removeprefix("&")
        if name in self.refused:
            return WRONG
        if name not in self.named:
            fitting = [each for each, (its, _) in self.named.items() if its.name.startswith(kind)]
            define = f"; it would be defined at the top level: {kind} {name} {{ ... }}" if kind in KINDS else ""
            known = f"; there are: {few(f'&{each}' for each in fitting)}" if fitting else define
            near = did_you_mean(name, fitting, prefix="&") or known
            return self._wrong(word.position, f"{needed_by}: no block is named {show(name)}{near}")
        found, node = self.named[name]
        if not found.name.startswith(kind):
            needed = "a target" if kind == TARGET else f"of kind {kind}"
            return self._wrong(
                word.position,
                f"{needed_by}: &{name} is of kind {found.name} (at {node.name.position}), but has to be {needed}",
            )
        return self._instance(name)

    def target(self, node: Node) -> Any:
        """What `deliver_to` names: `&name`, or a kind of target with a block."""
        if not node.arguments:
            return self._wrong(
                node.name.position, f"{node.name}: expected &NAME, or a target: {node.name} remote {{ ... }}"
            )
        first, *more = node.arguments
        is_reference = first.text.startswith("&")
        if more or (is_reference and node.children is not None):
            extra = more[0] if more else first
            return self._wrong(
                extra.position, f"{node.name}: expected &NAME, or a block; {show(extra.text)} is too much"
            )
        if is_reference:
            return self.reference(first, TARGET, node.name.text)
        name = TARGET + first.text.removeprefix(TARGET)
        if name in KINDS and node.children is not None:
            return self.inline(KINDS[name], node)
        targets = [kind.default_name for kind in KINDS.values() if kind.is_target]
        near = did_you_mean(first.text, self.named, prefix="&") or did_you_mean(first.text, targets)
        expected = f"&NAME or a kind of target ({', '.join(targets)}) with a block"
        return self._wrong(first.position, f"{node.name}: expected {expected}, not {show(first.text)}{near}")


@cache
def _file_defaults(cls: type[Settings]) -> dict[str, Any]:
    known = directives_of(cls).items()
    return {name: each.file_default for name, each in known if each.file_default is not None}


def _written(name: str, type: Block) -> str:
    ways = [f"{name} {{ ... }}"]
    ways += [f"{name} &NAME"] if type.reference else []
    ways += [f"{name} {word}" for word in type.shorthand]
    return either(ways)


def unknown_at_top_level(name: str) -> str:
    """What to say of a directive that the top level does not know."""
    return _unknown(name, TOP_LEVEL, top_level_names())


def _unknown(name: str, where: str, directives: Iterable[str]) -> str:
    """What to say of a directive that is not known here."""
    if name.endswith("{") and len(name) > 1:
        return f"expected a space before the {{ in {show(name)}"
    instead = advice(where, name)
    if instead:
        return f"there is no {name} {_in(where)}: {instead}"
    elsewhere = [_in(home) for home in blocks_that_know(name) if home != where]
    if elsewhere:
        return f"{name} does not stand {_in(where)}; it belongs {either(elsewhere)}"
    directives = tuple(directives)
    known = f"; known here: {few(directives)}" if directives else ", which has none"
    return f"unknown directive {show(name)} {_in(where)}{did_you_mean(name, directives) or known}"


def _in(place: str) -> str:
    return f"at {place}" if place == TOP_LEVEL else f"in {place}"


def _named(error: InvalidSetting) -> str:
    """What is wrong, with the name of the directive in front."""
    return error.problem if error.problem.startswith(error.field) else str(error)
