"""What a program uses with `async with`: opened when it is entered, for the event loop of whoever enters it.

What delivers is imported then: a program that only may send starts without it.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from contextlib import AsyncExitStack
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from mailrider.clock import SystemClock
from mailrider.dns.settings import DNSSettings
from mailrider.model.event import discard

if TYPE_CHECKING:
    from collections.abc import Callable

    from mailrider.app.assemble import Engine
    from mailrider.delivery.limits.shares import Shares
    from mailrider.model.event import Emit, Event

OpenedT = TypeVar("OpenedT")


def own_limits() -> Shares:
    """Limits that are shared with nobody."""
    from mailrider.delivery.limits.shares import Shares

    return Shares(SystemClock())


class AsyncContext(ABC, Generic[OpenedT]):
    """Something that is used with `async with`; subclasses say what is opened then.

    `limits_here` gives the limits for the running loop: a `LoadedConfiguration` lets its targets share them.
    """

    def __init__(self, dns: DNSSettings | None, on_event: Emit) -> None:
        if dns is not None and not isinstance(dns, DNSSettings):
            raise TypeError(f"dns is mailrider.DNSSettings(...), not {type(dns).__name__}")
        self._dns = dns
        self._emit = harmless(on_event)
        self.limits_here: Callable[[], Shares] = own_limits
        self._stack = AsyncExitStack()
        self._opened: OpenedT | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @abstractmethod
    async def _open(self, stack: AsyncExitStack) -> OpenedT:
        """Open it; `stack` closes it."""

    async def _open_engine(self, stack: AsyncExitStack, dns: DNSSettings | None) -> Engine:
        from mailrider.app.assemble import open_engine

        engine = open_engine(dns or DNSSettings(), self._emit, shares=self.limits_here())
        return await stack.enter_async_context(engine)

    async def __aenter__(self) -> Self:
        if self._opened is not None:
            raise RuntimeError(f"this {type(self).__name__} is entered already")
        async with AsyncExitStack() as stack:
            self._opened = await self._open(stack)
            self._loop = asyncio.get_running_loop()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._opened = None
        await self._stack.aclose()

    @property
    def opened(self) -> OpenedT:
        """What delivers, while this is entered."""
        if self._opened is None:
            name = type(self).__name__
            raise RuntimeError(f"use `async with {name}(...) as {name.lower()}`")
        return self._opened

    def _here(self) -> OpenedT:
        """The same, for a call from the loop in which it was entered.

        Its connections and timers belong to that loop; in another one nothing would ever wake.
        """
        opened = self.opened
        if asyncio.get_running_loop() is not self._loop:
            name = type(self).__name__
            raise RuntimeError(f"this {name} was entered in another event loop; make one {name} for each event loop")
        return opened


def harmless(on_event: Emit) -> Emit:
    """A listener as an `Emit`, which never fails: its exceptions are told to the event loop's handler, not to us.

    From a thread, where there is no loop, they go where that handler sends them unless told otherwise: to the log. Even
    a `CancelledError` of its own is none of ours: whoever wants to cancel a delivery cancels its task.
    """
    if not callable(on_event):
        raise TypeError(f"on_event is a function that takes an event, not {type(on_event).__name__}")
    if iscoroutinefunction(on_event) or iscoroutinefunction(type(on_event).__call__):
        raise TypeError("on_event is an ordinary function, not an async one: it is called, and nobody awaits it")
    if on_event is discard:
        return discard

    def emit(event: Event) -> None:
        try:
            on_event(event)
        except (Exception, asyncio.CancelledError) as error:
            text = f"on_event raised for {type(event).__name__}"
            try:
                loop = asyncio.get_running_loop()
            except RuntimeError:
                logging.getLogger("mailrider").error(text, exc_info=error)
            else:
                loop.call_exception_handler({"message": text, "exception": error})

    return emit
