"""What the files of Postfix say, and the draft that is written of them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from mailrider.migrate.draft import Draft, comment, refused
from mailrider.migrate.postfix_files import Parameter, Values, parse_table
from mailrider.migrate.postfix_table import SIMPLE, reason

if TYPE_CHECKING:
    from collections.abc import Callable

    from mailrider.migrate.draft import DraftBlock
    from mailrider.migrate.postfix_files import PostfixService

MAX_ENTRIES: Final = 500  # of a table that are translated
TEXT_TABLES: Final = frozenset({"hash", "texthash", "btree", "lmdb", "cdb", "dbm", "sdbm"})
PORTS: Final = {"smtp": 25, "submission": 587, "submissions": 465, "smtps": 465}


@dataclass(slots=True)
class PostfixSource:
    """Both files, and what was written of them so far. `own_name`: the host's name, where main.cf does not say it.

    `services` None: there is no master.cf. `read` gives the text of a file that they name, or nothing.
    """

    parameters: list[Parameter]
    services: list[PostfixService] | None
    read: Callable[[str], str | None]
    own_name: str
    draft: Draft = field(default_factory=Draft)
    values: Values = field(init=False)
    given: dict[str, Parameter] = field(init=False)

    def __post_init__(self) -> None:
        self.given = {each.name: each for each in self.parameters if each.name}
        name = self.given["myhostname"].value if "myhostname" in self.given else self.own_name
        domain = name.partition(".")[2] or name
        self.values = Values(
            self.given,
            {
                "myhostname": name,
                "mydomain": domain,
                "myorigin": "$myhostname",
                "config_directory": "/etc/postfix",
                "mydestination": "$myhostname, localhost.$mydomain, localhost",
            },
        )

    def note_odd_lines(self) -> None:
        """Say what is wrong with lines that are given again, or are no parameters."""
        for each in self.parameters:
            if each.name and self.given[each.name] is not each:
                self.draft.note(each, f"it is given again in line {self.given[each.name].line}, which counts")
            elif not each.name:
                self.draft.note(each, "it is no parameter")

    def note_the_rest(self) -> None:
        """Say of each parameter that stands nowhere yet why it does not."""
        for each in self.parameters:
            if not self.draft.is_seen(each):
                self.draft.note(each, reason(each.name))

    @property
    def origin(self) -> str:
        """The domain of addresses without one."""
        origin = self.values.of("myorigin")
        return (self.read(origin) or "").strip() if origin.startswith("/") else origin

    def simple(self, kind: str, block: DraftBlock, *, trial: str = "", silent: bool = False) -> None:
        """The parameters that become one line of that kind of block. `silent`: they were told already."""
        for name, simple in SIMPLE.items():
            parameter = self.given.get(name)
            if simple.kind != kind or parameter is None:
                continue
            line = simple.write(self.values.of(name))
            if silent:
                if line and not refused(trial or block.kind, line):
                    self.draft.add(block, line)
            elif not line:
                self.draft.note(parameter, f"{comment(self.values.of(name))!r} has no counterpart")
            else:
                self.draft.put(block, line, parameter, kind=trial)

    def table(self, name: str) -> tuple[list[tuple[str, str, str]], str]:
        """The entries (where, key, value) of the tables that a parameter names, and what could not be read."""
        found: list[tuple[str, str, str]] = []
        problems: list[str] = []
        for table in _tables(self.values.of(name)):
            kind, _, where = table.removeprefix("proxy:").partition(":")
            if kind == "inline":
                pairs = re.findall(r"([^\s{},=]+)\s*=\s*([^{},]+)", where)
                found += [(name, key, value.strip()) for key, value in pairs]
            elif kind in TEXT_TABLES:
                text = self.read(where)
                if text is None:
                    problems.append(f"{where} cannot be read")
                else:
                    found += [(f"{where}:{line}", key, value) for line, key, value in parse_table(text)]
            else:
                problems.append(f"a table of the kind {kind} is not read")
        if len(found) > MAX_ENTRIES:
            problems.append(f"only the first {MAX_ENTRIES} entries were read")
        return found[:MAX_ENTRIES], "; ".join(problems)


def _tables(value: str) -> list[str]:
    """The tables of a list; those that stand in braces hold commas of their own."""
    return [each for each in re.findall(r"(?:[^,\s{]|\{[^{}]*\})+", value) if ":" in each]
