"""SMTP replies and enhanced status codes (RFC 5321 4.2, RFC 3463, RFC 5248)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache

from mailrider.errors import InvalidValue
from mailrider.model.text import UNSAFE
from mailrider.model.value import value

MAX_QUOTE = 512  # characters of a remote server's text that we repeat to others

_ENHANCED = re.compile(r"([245])\.([0-9]{1,3})\.([0-9]{1,3})(?= |\Z)")


@dataclass(frozen=True, slots=True, order=True)
class EnhancedCode:
    """class.subject.detail, as `5.1.1` (RFC 3463)."""

    klass: int
    subject: int
    detail: int

    def __post_init__(self) -> None:
        if self.klass not in (2, 4, 5) or not (0 <= self.subject <= 999 and 0 <= self.detail <= 999):
            raise InvalidValue(f"not an enhanced status code: {self}")

    @classmethod
    def parse(cls, text: str) -> EnhancedCode:
        """Exactly `c.s.d`. Raises `InvalidValue`."""
        match = _ENHANCED.fullmatch(text)
        if match is None:
            raise InvalidValue(f"not an enhanced status code: {text[:40]!r}")
        return _enhanced(int(match[1]), int(match[2]), int(match[3]))

    def __str__(self) -> str:
        return f"{self.klass}.{self.subject}.{self.detail}"


@lru_cache(maxsize=1024)
def _enhanced(klass: int, subject: int, detail: int) -> EnhancedCode:
    return EnhancedCode(klass, subject, detail)


def split_enhanced(text: str) -> tuple[EnhancedCode | None, str]:
    """The enhanced code that begins a reply's text, if one does, and what follows it."""
    match = _ENHANCED.match(text)
    if match is None:
        return None, text
    return _enhanced(int(match[1]), int(match[2]), int(match[3])), text[match.end() + 1 :]


@value
class Reply:
    """One complete reply: `code` 200 to 599, its lines of text without codes, the enhanced code if it has a right one.

    No line has a control character (`model.text`). The class of an enhanced code always equals that of the code; a
    peer's that does not is dropped. `is_positive`: 2xx. `is_transient`: 4xx, the same command may succeed later.
    `is_permanent`: 5xx, it will not.
    """

    code: int
    enhanced: EnhancedCode | None = None
    lines: tuple[str, ...] = ("",)
    is_positive: bool = field(init=False, repr=False, compare=False)
    is_transient: bool = field(init=False, repr=False, compare=False)
    is_permanent: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 200 <= self.code <= 599:
            raise InvalidValue(f"reply code {self.code} is not within 200 to 599")
        if self.enhanced is not None and self.enhanced.klass != self.code // 100:
            raise InvalidValue(f"enhanced code {self.enhanced} contradicts reply code {self.code}")
        if not self.lines or UNSAFE.search("".join(self.lines)):
            raise InvalidValue(f"a reply is lines of printable text, not {self.lines!r:.300}")
        self.is_positive = self.code < 300  # type: ignore[misc] # frozen to others
        self.is_transient = 400 <= self.code < 500  # type: ignore[misc] # as above
        self.is_permanent = self.code >= 500  # type: ignore[misc] # as above

    @classmethod
    def make(cls, code: int, enhanced: str | None, text: str) -> Reply:
        """A reply of our own: `Reply.make(451, "4.4.1", "No answer")`."""
        return cls(code, None if enhanced is None else EnhancedCode.parse(enhanced), (clean_text(text),))

    @classmethod
    def from_lines(cls, code: int, lines: tuple[str, ...]) -> Reply:
        """A reply as received: control characters become spaces, the enhanced code is taken off the lines' text."""
        lines = tuple(UNSAFE.sub(" ", line) for line in lines)
        enhanced, _ = split_enhanced(lines[0])
        if enhanced is None or enhanced.klass != code // 100:
            return cls(code, None, lines)
        return cls(code, enhanced, tuple(_without(enhanced, line) for line in lines))

    @property
    def status(self) -> EnhancedCode:
        """The enhanced code, or the class alone (`4.0.0`) where the server gave none."""
        return self.enhanced or _enhanced(2 if self.code < 400 else self.code // 100, 0, 0)

    @property
    def text(self) -> str:
        """All lines as one line of printable text."""
        return " ".join(self.lines).strip()

    def __str__(self) -> str:
        code = str(self.code) if self.enhanced is None else f"{self.code} {self.enhanced}"
        text = self.text
        return f"{code} {text}" if text else code


def _without(enhanced: EnhancedCode, line: str) -> str:
    code, rest = split_enhanced(line)
    return rest if code == enhanced else line


def clean_text(text: str) -> str:
    """Text safe to log and to send: control characters become single spaces, the ends are trimmed."""
    return UNSAFE.sub(" ", text).strip()


def quote_reply(host: str, reply: Reply) -> Reply:
    """A remote server's reply as we repeat it to others: `HOST said: TEXT`, bounded.

    It has an enhanced code: the class alone where the server gave none (RFC 3463 3).
    """
    enhanced = None if 300 <= reply.code < 400 else reply.status  # there is no class 3
    return Reply(reply.code, enhanced, (f"{host} said: {reply.text}"[:MAX_QUOTE],))
