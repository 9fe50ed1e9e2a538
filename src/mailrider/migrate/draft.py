"""A configuration that is being written, line by line, each with where it comes from.

A line that our language does not take in its place is not written: it becomes a note that says why. So what is written
loads.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from mailrider.config import UnwritableError, loads, quoted
from mailrider.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mailrider.migrate.postfix_files import Parameter

MAX_SHOWN: Final = 120  # characters of a line of the other program that a comment repeats
INDENT: Final = "    "

_UNWRITABLE: Final = "\uffff"  # no character, and it never will be one

_AROUND: Final = "hostname a.test\ntarget.remote trial {\n}\n"
# Where a line of each kind of block stands, as short as it can be.
_TRIALS: Final = {
    "top": "%s\n",
    "target.remote": _AROUND + "target.remote r {\n%s\n}\n",
    "target.smtp": "hostname a.test\ntarget.smtp s {\nhost tls://a.test:465\n%s\n}\n",
    "host": "hostname a.test\ntarget.smtp s {\n%s\n}\n",
    "target.lmtp": "hostname a.test\ntarget.lmtp s {\n%s\n}\n",
    "target.queue": _AROUND + "target.queue q {\ntarget &trial\n%s\n}\n",
    "submission": _AROUND + "submission tcp://127.0.0.1:587 {\ndeliver_to &trial\n%s\n}\n",
    "rejecting": "hostname a.test\nsubmission tcp://127.0.0.1:587 {\n%s\n}\n",
    "tls_client": "hostname a.test\ntls_client {\n%s\n}\n",
    "trust": _AROUND + "submission tcp://127.0.0.1:587 {\nsender_domains a.test\ndeliver_to &trial\n%s\n}\n",
    "sender_domains": _AROUND + "submission tcp://127.0.0.1:587 {\ntrust 10.0.0.0/8\ndeliver_to &trial\n%s\n}\n",
    "authorize_sender": _AROUND + "submission tcp://127.0.0.1:587 {\nauth users\ndeliver_to &trial\ncheck {\n"
    "authorize_sender {\n%s\n}\n}\n}\n",
    "destination": _AROUND + "submission tcp://127.0.0.1:587 {\n%s {\ndeliver_to &trial\n}\ndeliver_to &trial\n}\n",
}


def argument(text: str) -> str:
    """A text as one argument; what no argument can be is `refused` in whatever line it stands."""
    try:
        return quoted(text)
    except UnwritableError:
        return _UNWRITABLE


def refused(kind: str, line: str) -> str:
    """Why a line cannot stand in such a block; empty if it can."""
    if _UNWRITABLE in line:
        return "no argument can be such a text"
    if any(not char.isprintable() for char in line.replace("\n", "")):
        return "it holds characters that cannot be seen"
    try:
        loads(_TRIALS[kind] % line, environment={})
    except ConfigError as error:
        return error.problems[0].message
    return ""


def shown(parameter: Parameter) -> str:
    """A line of the other program for a comment: bounded, on one line, and without what may be a password."""
    value = parameter.value
    is_secret = "password" in parameter.name and any(each in value for each in ("static:", "inline:"))
    text = f"{parameter.name} = {'...' if is_secret else value}" if parameter.name else value
    return comment(text)


def comment(text: str) -> str:
    """Text as it may stand in a comment."""
    clean = "".join(char if char.isprintable() else " " for char in text)
    return (clean if len(clean) <= MAX_SHOWN else clean[:MAX_SHOWN] + " ...").rstrip("\\ ")


@dataclass(slots=True)
class DraftBlock:
    """One block: what stands before its brace, and its lines, each with comments of its own."""

    kind: str
    head: str = ""
    lines: list[tuple[list[str], str]] = field(default_factory=list)

    def text(self) -> str:
        """The block as a configuration has it."""
        inner = INDENT if self.head else ""
        body = [
            line
            for comments, directive in self.lines
            for line in (*(f"{inner}# {each}" for each in comments), *(inner + each for each in directive.split("\n")))
        ]
        return "\n".join([f"{self.head} {{", *body, "}"] if self.head else body)


@dataclass(slots=True)
class Draft:
    """All blocks in their order, and what is to be said of lines that are in none of them."""

    blocks: list[DraftBlock] = field(default_factory=list)
    notes: list[tuple[Parameter, str]] = field(default_factory=list)
    done: set[tuple[str, int, str]] = field(default_factory=set)

    def block(self, kind: str, head: str = "") -> DraftBlock:
        """A new block behind the others."""
        made = DraftBlock(kind, head)
        self.blocks.append(made)
        return made

    def put(
        self, block: DraftBlock, line: str, parameter: Parameter | None = None, *remarks: str, kind: str = ""
    ) -> bool:
        """Write a line, if our language takes it; otherwise a note why not."""
        reason = refused(kind or block.kind, line)
        if reason:
            if parameter is not None:
                self.note(parameter, f"{line}: {reason}")
            return False
        self.add(block, line, parameter, *remarks)
        return True

    def add(self, block: DraftBlock, text: str, parameter: Parameter | None = None, *remarks: str) -> None:
        """Write what is known to be right."""
        comments = [] if parameter is None else [f"{parameter.where} {shown(parameter)}"]
        block.lines.append(([*comments, *map(comment_long, remarks)], text))
        if parameter is not None:
            self.seen(parameter)

    def note(self, parameter: Parameter, reason: str) -> None:
        """Say why a line is not in a block, or where it is."""
        if (parameter, reason) not in self.notes:
            self.notes.append((parameter, reason))
        self.seen(parameter)

    def seen(self, parameter: Parameter) -> None:
        """Note that a line was dealt with."""
        self.done.add((parameter.file, parameter.line, parameter.name))

    def is_seen(self, parameter: Parameter) -> bool:
        """True if a line stands somewhere already."""
        return (parameter.file, parameter.line, parameter.name) in self.done

    def text(self, head: str) -> str:
        """The whole configuration."""
        pieces = [head, *(block.text() for block in self.blocks if block.head or block.lines)]
        if self.notes:
            pieces.append("\n".join(self._noted()))
        return "\n\n".join(pieces) + "\n"

    def _noted(self) -> Iterator[str]:
        yield "# What has no line of its own, and why:"
        for parameter, reason in sorted(self.notes, key=lambda each: (each[0].file, each[0].line)):
            yield "#"
            yield f"# {parameter.where} {shown(parameter)}"
            yield f"#   {comment_long(reason)}"


def comment_long(text: str) -> str:
    """A reason in full, on one line."""
    return "".join(char if char.isprintable() else " " for char in text)[:1000].rstrip("\\ ")
