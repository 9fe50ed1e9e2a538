"""A check by rspamd, over HTTP (`POST /checkv2`): https://rspamd.com/doc/architecture/protocol.html

rspamd's own action is mapped to ours as the operator wishes. Whatever keeps us from having a word of it (it is down or
slow, it answers nonsense) leads to `io_error_action`: by default the message is deferred. The message is streamed; the
answer is bounded. Who sends gets rspamd's `smtp_message`, if there is one, and nothing else of what it says.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Self

import aiohttp
from yarl import URL

from mailrider.clock import after
from mailrider.endpoint.pipeline.check import (
    NOT_NOW,
    PASSED,
    REFUSED,
    CheckAction,
    CheckAvailable,
    CheckResult,
    CheckUnavailable,
)
from mailrider.model.reply import Reply, clean_text

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from mailrider.clock import Clock
    from mailrider.endpoint.pipeline.check import Arrival
    from mailrider.endpoint.pipeline.settings import RspamdOptions
    from mailrider.model.envelope import Envelope
    from mailrider.smtp.content import Content

MAX_ANSWER: Final = 1024 * 1024  # octets: what rspamd says of all its symbols stays far below
MAX_TEXT: Final = 200  # characters of its text that we repeat
MAX_CHECKS: Final = 100  # under way at once, each a connection; further ones wait within their time


class _NoAnswer(Exception):
    """rspamd did not say anything that we understand."""


@dataclass(frozen=True, slots=True)
class _Answer:
    action: str
    score: str
    text: str


class RspamdCheck:
    """Asks rspamd; use it as `async with`."""

    def __init__(self, url: str, options: RspamdOptions, clock: Clock) -> None:
        self._url = url
        self._options = options
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None
        self._is_down = False
        self._actions: Mapping[str, CheckAction] = {
            "no action": CheckAction.PASS,
            "greylist": options.greylist_action,
            "soft reject": options.soft_reject_action,
            "add header": options.add_header_action,
            "rewrite subject": options.rewrite_subj_action,
            "quarantine": CheckAction.QUARANTINE,
            "reject": options.reject_action,
            "discard": options.reject_action,
        }

    async def __aenter__(self) -> Self:
        path = self._url.removeprefix("unix://") if self._url.startswith("unix://") else None
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=MAX_CHECKS)
            if path is None
            else aiohttp.UnixConnector(path, limit=MAX_CHECKS),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),  # ours is the Deadline in `_ask`
            trust_env=False,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def examine(self, envelope: Envelope, content: Content, arrival: Arrival) -> CheckResult:
        """See `Check`."""
        try:
            answer = await self._ask(envelope, content, arrival)
            action = self._actions.get(answer.action)
            if action is None:
                raise _NoAnswer(f"its answer has an unknown action: {answer.action}")
        except _NoAnswer as error:
            return self._without_answer(str(error))
        found = PASSED
        if action is not CheckAction.PASS:
            reason = f"{answer.action}, score {answer.score}"
            found = CheckResult(action, "rspamd", reason, _reply(action, answer.text))
        if self._is_down:
            self._is_down = False
            return replace(found, news=CheckAvailable(self._name))
        return found

    def _without_answer(self, reason: str) -> CheckResult:
        action, news = self._options.io_error_action, None
        if not self._is_down:
            self._is_down = True
            news = CheckUnavailable(self._name, action.value, reason)
        return CheckResult(action, "rspamd", f"no usable answer: {reason}", NOT_NOW, news)

    @property
    def _name(self) -> str:
        return f"rspamd {self._url}"

    async def _ask(self, envelope: Envelope, content: Content, arrival: Arrival) -> _Answer:
        if self._session is None:
            raise _NoAnswer("the check is not open")
        base = URL("http://localhost") if self._url.startswith("unix://") else URL(self._url)
        headers = [*_facts(envelope, arrival), ("Content-Length", str(content.size))]
        try:
            async with after(self._clock, self._options.timeout.total_seconds()):
                async with self._session.post(
                    base / "checkv2", data=_pieces(content), headers=headers, allow_redirects=False
                ) as response:
                    return _understood(response.status, await _read(response))
        except TimeoutError as error:
            raise _NoAnswer(f"it did not answer within {self._options.timeout.total_seconds():g} s") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _NoAnswer(clean_text(str(error))[:MAX_TEXT] or type(error).__name__) from error


def _facts(envelope: Envelope, arrival: Arrival) -> list[tuple[str, str]]:
    facts = [
        ("From", str(envelope.sender)),
        ("IP", arrival.client or ""),
        ("Helo", arrival.helo),
        ("User", arrival.user or ""),
        ("MTA-Name", arrival.hostname),
        ("Queue-Id", arrival.id),
    ]
    given = [(name, clean_text(value)) for name, value in facts if value]
    return given + [("Rcpt", str(each.mailbox)) for each in envelope.recipients]


async def _pieces(content: Content) -> AsyncIterator[bytes]:
    async for piece in content.pieces():
        yield bytes(piece)


async def _read(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_chunked(65536):
        body += chunk
        if len(body) > MAX_ANSWER:
            raise _NoAnswer(f"its answer has more than {MAX_ANSWER} octets")
    return bytes(body)


def _understood(status: int, body: bytes) -> _Answer:
    if status != 200:
        raise _NoAnswer(f"status {status}")
    try:
        answer: Any = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _NoAnswer("its answer is not JSON") from error
    action = answer.get("action") if isinstance(answer, dict) else None
    if not isinstance(action, str):
        raise _NoAnswer("its answer names no action")
    messages = answer.get("messages")
    text = messages.get("smtp_message") if isinstance(messages, dict) else None
    score = answer.get("score")
    return _Answer(
        clean_text(action)[:MAX_TEXT],
        f"{score:g}" if isinstance(score, int | float) else "unknown",
        clean_text(text)[:MAX_TEXT] if isinstance(text, str) else "",
    )


def _reply(action: CheckAction, text: str) -> Reply:
    usual = REFUSED if action is CheckAction.REJECT else NOT_NOW
    return Reply(usual.code, usual.enhanced, (text,)) if text else usual
