"""The exceptions of mailrider: one root, and a family for whoever is to blame.

Results of mail are values (`model.outcome`), never exceptions. An exception says that a step could not be done:

- `LocalError`: we, or the program that calls us, asked for something impossible;
- `PeerError`: a remote server broke the protocol;
- `NetworkError`: the network between us failed;
- `ConfigError`: the configuration is wrong.

Each carries what an SMTP reply needs (`code`, `enhanced`, `public`: safe to show to a stranger) apart from its message,
which may hold private detail and goes to the log only. Unknown means temporary: the default is a 4xx.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class MailriderError(Exception):
    """Root of all errors that mailrider raises on purpose.

    Class attributes are the defaults of a family; `public` is what a remote party may read.
    """

    code: int = 451
    enhanced: str = "4.3.0"
    public: str = "Internal error, try again later"

    def __init__(
        self, message: str, *, code: int | None = None, enhanced: str | None = None, public: str | None = None
    ) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code
        if enhanced is not None:
            self.enhanced = enhanced
        if public is not None:
            self.public = public

    @property
    def permanent(self) -> bool:
        """True if trying again cannot help (a 5xx)."""
        return self.code >= 500


class LocalError(MailriderError):
    """We misused our own machinery, or the caller gave an impossible argument."""


class ShuttingDown(LocalError):
    """We were closed while somebody still waited for something: no fault, and nobody's to look into."""

    enhanced = "4.3.2"
    public = "This server is shutting down"


class InvalidValue(LocalError, ValueError):
    """Text that is not the value it claims to be (an address, a domain, a code)."""

    code = 501
    enhanced = "5.5.4"
    public = "Syntax error"


class PeerError(MailriderError):
    """The remote server did something that the protocol forbids."""

    enhanced = "4.5.0"
    public = "The remote server violated the protocol"


class NetworkError(MailriderError, ConnectionError):
    """The network failed: no route, refused, reset."""

    enhanced = "4.4.1"
    public = "No answer from the remote host"


class ConnectionLost(NetworkError):
    """The peer closed a connection that was in use."""

    enhanced = "4.4.2"
    public = "The connection was lost"


class DeadlineExceeded(NetworkError, TimeoutError):
    """The peer did not answer within the time that this step has."""

    enhanced = "4.4.2"
    public = "The connection timed out"


_INDENT = "    "  # before the lines of an excerpt


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong in a configuration: what, where, and the line it is in.

    `line` and `column` count from 1, and are 0 where the problem is not at a place. `excerpt` is the line with a mark
    under the place; `trail` are the places of the imports that led to the file, innermost first.
    """

    message: str
    file: str = ""
    line: int = 0
    column: int = 0
    excerpt: str = ""
    trail: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """`file:line:column`, as far as it is known."""
        return ":".join(str(part) for part in (self.file, self.line, self.column) if part)

    def __str__(self) -> str:
        first = f"{self.place}: {self.message}" if self.place else self.message
        excerpt = [_INDENT + line for line in self.excerpt.splitlines()]
        return "\n".join([first, *excerpt, *(f"  imported at {place}" for place in self.trail)])


class ConfigError(MailriderError):
    """The configuration is wrong; `problems` are all that were found, and the message shows each of them."""

    enhanced = "4.3.5"
    public = "System incorrectly configured"

    def __init__(self, problems: str | Iterable[Problem]) -> None:
        self.problems = (Problem(problems),) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


def in_one_line(error: BaseException | str) -> str:
    """What an error, or its text, says, for a line of the log: places and messages, no excerpts of a configuration."""
    lines = [line.strip() for line in str(error).splitlines() if not line.startswith(_INDENT)]
    return "; ".join(filter(None, lines)) or type(error).__name__


def do_all(steps: Iterable[Callable[[], object]]) -> None:
    """Take each step, whatever became of those before it.

    Raises `ConfigError` for all that was wrong, each once; if only this machine is not as it has to be, the first
    `LocalError`.
    """
    problems: list[Problem] = []
    here: LocalError | None = None
    for step in steps:
        try:
            step()
        except ConfigError as error:
            problems += error.problems
        except LocalError as error:
            here = here or error
    if problems:
        raise ConfigError(dict.fromkeys(problems))
    if here is not None:
        raise here
