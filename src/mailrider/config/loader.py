"""From a file, or a text, to a `Configuration`; or a `ConfigError` with everything that is wrong.

`load` reads files, and nothing else does: the rest of this package is given a function for it.
"""

from __future__ import annotations

import dataclasses
import os
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mailrider.config.bind import Binder, unknown_at_top_level
from mailrider.config.configuration import Configuration, Instance, SettingsT, complete, targets_within
from mailrider.config.expand import MAX_FILE, Allowance, Expander, decode
from mailrider.config.kinds import ENDPOINTS, KINDS
from mailrider.config.other_programs import other_program
from mailrider.config.secret_values import SecretValues, read_secret
from mailrider.config.settings import SYSTEM_CONFIG, Globals, default_runtime_dir, default_state_dir
from mailrider.config.snapshot import CarriedText, Recorded, record_files, record_secrets
from mailrider.config.source import Position, Problems, Source, TooMuch
from mailrider.config.values import WRONG, read_value
from mailrider.endpoint.faults import address_faults, login_faults, relay_holes
from mailrider.errors import ConfigError, InvalidValue, Problem
from mailrider.model.domain import Domain
from mailrider.queue.settings import QueueSettings
from mailrider.settings.directive import InvalidSetting, directives_of
from mailrider.settings.pipeline import TargetRef
from mailrider.settings.socket_address import MAX_PATH, SENDMAIL_SOCKET, Scheme

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from mailrider.config.parser import Node
    from mailrider.endpoint.settings import EndpointSettings
    from mailrider.reporting.settings import TLSRPTSettings
    from mailrider.settings.directive import Settings
    from mailrider.settings.socket_address import SocketAddress

SEARCHED = (Path("mailrider.conf"), SYSTEM_CONFIG)


_MEANT: Final = "so it is only used if you name it: mailrider -c FILE"


def read_file(path: Path) -> bytes:
    """A file's octets, no more of them than show that it is too large."""
    with path.open("rb") as file:
        return file.read(MAX_FILE + 1)


def find_config(searched: Iterable[Path] = SEARCHED) -> Path | None:
    """The configuration file that is used if none is named; None if there is none."""
    return next(filter(_is_there, searched), None)


def refuse_foreign(path: Path) -> None:
    """Raises `ConfigError` for a configuration that was found, not named, and that somebody else wrote or could write.

    Whoever can put a file where another user, root above all, runs a command, would choose where that user's mail goes
    and what is read and written in that user's name. A link counts as what it is and as what it leads to.
    """
    try:
        found = (path.lstat(), path.stat())
    except OSError:
        return  # reading it will say what is wrong
    own = os.geteuid()
    for each in found:
        if each.st_uid not in (0, own):
            raise ConfigError([Problem(f"it belongs to user {each.st_uid}, {_MEANT}", str(path))])
    if found[1].st_mode & stat.S_IWOTH:
        raise ConfigError([Problem(f"everybody may write to it (chmod o-w), {_MEANT}", str(path))])


def _is_there(path: Path) -> bool:
    """True also for what we may not look at: reading it will say so, which is better than to go on without it."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def default_text() -> str:
    """The built-in configuration: deliver to the world, with every policy that never stops mail on its own account."""
    return f"""hostname {own_name()}
dns {{
    validate auto
}}
target.remote remote {{
    mx_auth {{
        mtasts {{ cache ram }}
        dane
        dnssec
    }}
}}
target.queue queue {{
    target &remote
}}
{_default_endpoint()}
deliver_to &remote
"""


def _default_endpoint() -> str:
    """Mail from programs of this machine, into the queue; unix sockets have short names only."""
    addresses = [f"tcp://127.0.0.1:{587 if os.geteuid() == 0 else 2587}"]
    path = default_runtime_dir() / SENDMAIL_SOCKET
    if len(os.fsencode(path)) <= MAX_PATH and '"' not in str(path):
        addresses.append(f'"unix://{path}"')
    return f"submission {' '.join(addresses)} {{\n    deliver_to &queue\n}}"


def own_name() -> str:
    """What this machine calls itself."""
    try:
        return Domain.parse(socket.gethostname()).ascii
    except InvalidValue:
        return "localhost"


def load(
    path: str | os.PathLike[str] | None = None,
    *,
    environment: Mapping[str, str] = os.environ,
    debug: bool = False,
) -> Configuration:
    """The configuration in a file; without one, in the first that `find_config` finds, or the built-in one.

    `debug`: as if the top level said so.

    Raises `ConfigError` with all problems, a missing file included.
    """
    source, problems, file = _open(path)
    return _load(source, problems, environment, read_file, file, debug=debug)


def load_to_carry(
    path: str | os.PathLike[str] | None = None,
    *,
    environment: Mapping[str, str] = os.environ,
    debug: bool = False,
) -> tuple[Configuration, CarriedText]:
    """As `load`; and what another process needs to read the same with `load_carried`."""
    source, problems, file = _open(path)
    place = None if file is None else str(file)
    carried = CarriedText(source.name, str(source.directory), place, source.text, debug=debug)
    configuration = _load(
        source,
        problems,
        Recorded(environment, carried.environment),
        record_files(read_file, carried.files),
        file,
        record_secrets(read_secret, carried.secrets),
        debug=debug,
    )
    return configuration, carried


def load_carried(carried: CarriedText) -> Configuration:
    """The configuration that another process has read: nothing but the record is asked."""
    source = Source(carried.name, carried.text, Path(carried.directory))
    path = None if carried.path is None else Path(carried.path)
    problems = Problems(carried.name)
    return _load(
        source, problems, carried.environment, carried.read_file, path, carried.read_secret, debug=carried.debug
    )


def _open(path: str | os.PathLike[str] | None) -> tuple[Source, Problems, Path | None]:
    """The text of a configuration, where problems of it belong, and its file if it is one. Raises `ConfigError`."""
    file = find_config() if path is None else Path(path)
    if path is None and file is not None and file != SYSTEM_CONFIG:
        refuse_foreign(file)
    if file is None:
        return Source("built-in", default_text(), Path()), Problems("built-in"), None
    problems = Problems(str(file))
    try:
        content = read_file(file)
    except OSError as error:
        raise ConfigError([Problem(f"cannot read the configuration: {error.strerror}", str(file))]) from error
    source = decode(str(file), content, file.parent, problems)
    if source is None:
        raise ConfigError(problems.in_order())
    return source, problems, file


def loads(
    text: str,
    *,
    name: str = "text",
    directory: Path = Path(),
    environment: Mapping[str, str] = os.environ,
    read: Callable[[Path], bytes] = read_file,
) -> Configuration:
    """The configuration in a text. `name` stands in errors, imports are relative to `directory` and go by `read`."""
    source = Source(name, text.replace("\r\n", "\n"), directory)
    return _load(source, Problems(name), environment, read, None)


def _load(
    source: Source,
    problems: Problems,
    environment: Mapping[str, str],
    read: Callable[[Path], bytes],
    path: Path | None,
    read_secret: Callable[[Path], bytes] = read_secret,
    *,
    debug: bool = False,
) -> Configuration:
    if (foreign := other_program(source.text)) is not None:
        problems.add(Position(source, foreign[0]), foreign[1])
        raise ConfigError(problems.in_order())
    try:
        nodes = Expander(problems, environment, read, Allowance(problems)).expand(source)
        secrets = SecretValues(environment, read_secret)
        configuration = _bind(nodes, source.directory, problems, path, secrets, debug=debug)
    except TooMuch:
        configuration = None
    if configuration is None:
        raise ConfigError(problems.in_order())
    return configuration


def _bind(
    nodes: Iterable[Node],
    directory: Path,
    problems: Problems,
    path: Path | None,
    secrets: SecretValues,
    *,
    debug: bool,
) -> Configuration | None:
    """The configuration that the directives make; None if anything is wrong."""
    defaults = _default_dirs(path)
    binder = Binder(problems, _state_dir(nodes, directory) or defaults["state_dir"], secrets)
    global_nodes, deliver_to, endpoint_nodes = _sort(nodes, binder)
    global_settings, globals_are_right = binder.globals(global_nodes)
    instances = binder.instances()
    targets = [binder.target(node) for node in deliver_to]
    endpoints = [binder.endpoint(node) for node in endpoint_nodes]
    given = {node.name.text for node in global_nodes}
    missing: dict[str, Any] = {name: default for name, default in defaults.items() if name not in given}
    if debug:
        missing["debug"] = True
    global_settings = dataclasses.replace(global_settings, **missing)
    completed = {name: _complete(instance, global_settings, problems) for name, instance in instances.items()}
    used = tuple(
        completed[target.name] if target.name else _complete(target, global_settings, problems)
        for target in targets
        if target is not WRONG
    )
    ready = tuple(_complete(each, global_settings, problems) for each in endpoints if each is not WRONG)
    everything = (*completed.values(), *used, *ready)
    for endpoint in ready:
        _refuse_unsafe(endpoint, completed, problems)
    _refuse_shared_addresses(ready, problems)
    _refuse_circles(completed, problems)
    _refuse_reports_without_queue(global_nodes, global_settings.tlsrpt, completed, problems)
    _refuse_shared_locations(everything, problems)
    configuration = Configuration(global_settings, completed, used, path, ready, tuple(dict.fromkeys(secrets.files)))
    return configuration if globals_are_right and not problems else None


def _refuse_unsafe(
    endpoint: Instance[EndpointSettings], instances: Mapping[str, Instance[Settings]], problems: Problems
) -> None:
    """Tell of what an endpoint must not be: above all an open relay."""

    def find(name: str) -> Settings | None:
        return instances[name].settings if name in instances else None

    if endpoint.position is not None:
        settings = endpoint.settings
        for fault in (*address_faults(settings), *login_faults(settings), *relay_holes(settings, find)):
            problems.add(endpoint.position, f"{endpoint.kind}: {fault}")


def _refuse_shared_addresses(endpoints: Iterable[Instance[EndpointSettings]], problems: Problems) -> None:
    """Tell of an address at which two endpoints would listen: chance would say which of them a client gets."""
    taken: dict[SocketAddress, Instance[EndpointSettings]] = {}
    for endpoint in endpoints:
        for address in endpoint.settings.listen:
            first = taken.setdefault(dataclasses.replace(address, scheme=Scheme.TCP), endpoint)
            again = first is not endpoint or endpoint.settings.listen.count(address) > 1
            if again and endpoint.position is not None:
                where = f"{first.kind} (at {first.position})"
                problems.add(endpoint.position, f"{endpoint.kind}: {address} is already listened at, by {where}")


def _refuse_reports_without_queue(
    nodes: Iterable[Node],
    tlsrpt: TLSRPTSettings | None,
    instances: Mapping[str, Instance[Settings]],
    problems: Problems,
) -> None:
    """Tell of TLS reports that would go through a target that is no queue: nothing would try again."""
    through = None if tlsrpt is None else tlsrpt.through
    if not isinstance(through, TargetRef) or through.name not in instances:
        return
    if not isinstance(instances[through.name].settings, QueueSettings):
        blocks = (node for node in nodes if node.name.text == "tlsrpt")
        lines = (each for block in blocks for each in block.children or () if each.name.text == "through")
        for each in lines:
            there = instances[through.name]
            problem = f"through: {through} is of kind {there.kind}, but has to be of kind target.queue"
            problems.add(each.arguments[0].position, problem)


def _refuse_circles(instances: Mapping[str, Instance[Settings]], problems: Problems) -> None:
    """Tell of queues that lead to each other, and so nowhere."""
    told: set[str] = set()
    for name, instance in instances.items():
        chain = [name]
        target = _target_of(instance.settings)
        while isinstance(target, TargetRef) and target.name in instances and target.name not in chain:
            chain.append(target.name)
            target = _target_of(instances[target.name].settings)
        if isinstance(target, TargetRef) and target.name == name and name not in told and instance.position is not None:
            told.update(chain)
            circle = " -> ".join([*chain, name])
            problems.add(instance.position, f"{instance.label} leads in a circle, and so nowhere: {circle}")


def _target_of(settings: object) -> object:
    """What a queue delivers by, through queues that stand in it."""
    while isinstance(settings, QueueSettings):
        settings = settings.target
    return settings


def _refuse_shared_locations(instances: Iterable[Instance[Settings]], problems: Problems) -> None:
    """Tell of two queues that would keep their messages in one directory."""
    taken: dict[Path, tuple[QueueSettings, Position]] = {}
    for instance in instances:
        for queue in targets_within(instance.settings):
            if not isinstance(queue, QueueSettings) or queue.location is None or instance.position is None:
                continue
            first, position = taken.setdefault(queue.location, (queue, instance.position))
            if first is not queue:
                problems.add(
                    instance.position,
                    f"{instance.label}: the queue at {position} is in the directory {queue.location}, too: "
                    "give each its own location",
                )


def _default_dirs(path: Path | None) -> dict[str, Path]:
    """Where state and sockets are if a file does not say."""
    system = path is not None and Path(os.path.abspath(path)) == SYSTEM_CONFIG
    return {"state_dir": default_state_dir(system=system), "runtime_dir": default_runtime_dir(system=system)}


def _state_dir(nodes: Iterable[Node], directory: Path) -> Path | None:
    """The state directory that is given; it has to be known before any path is read. What is wrong is told later."""
    known = directives_of(Globals)["state_dir"]
    for node in nodes:
        if node.name.text == known.name:
            path = read_value(known, node, Problems())
            if path is not WRONG:
                return Path(os.path.abspath(directory / path))
    return None


def _sort(nodes: Iterable[Node], binder: Binder) -> tuple[list[Node], list[Node], list[Node]]:
    """Declare the instances; return the global directives, what messages are delivered to, and the endpoints."""
    endpoints: list[Node] = []
    global_nodes: list[Node] = []
    deliver_to: list[Node] = []
    for node in nodes:
        name = node.name.text
        if name in KINDS:
            binder.declare(KINDS[name], node)
        elif name == "deliver_to":
            deliver_to.append(node)
        elif name in ENDPOINTS:
            endpoints.append(node)
        elif name in directives_of(Globals):
            global_nodes.append(node)
        else:
            binder.problems.add(node.name.position, unknown_at_top_level(name))
            if node.children is not None:
                binder.refused |= {word.text for word in node.arguments[:1]}
    return global_nodes, deliver_to, endpoints


def _complete(instance: Instance[SettingsT], global_settings: Globals, problems: Problems) -> Instance[SettingsT]:
    try:
        settings = complete(instance.settings, global_settings)
    except InvalidSetting as error:
        if instance.position is not None:
            problems.add(instance.position, f"{instance.label} has no {error.field}: {error.problem}")
        return instance
    return Instance(instance.kind, instance.name, settings, instance.position)
