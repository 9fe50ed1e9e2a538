"""mailrider for programs without asyncio: the library's `Remote`, `Smarthost` and `Queue`, to be called and waited for.

    with mailrider.sync.Remote(hostname="mx.example.org") as remote:
        report = remote.send(message, sender="a@example.org", recipients=["b@example.net"])

Each has a thread with an event loop of its own, which starts with `with`, or with the first call without it, and ends
with `close()` or the program. Any thread may call. After a fork the child starts a thread of its own with its next
call, and the parent's goes on. `on_event` is called in that thread.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures.thread  # noqa: F401 # it registers its end before ours: what is registered later runs first
import os
import threading
import weakref
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, overload

from mailrider.app import library
from mailrider.app.library import NO_DSN
from mailrider.errors import ConfigError
from mailrider.model.event import discard

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from datetime import timedelta
    from typing import Unpack

    from mailrider.app.directives import QueueDirectives, RemoteDirectives, SmarthostDirectives
    from mailrider.app.library import DSN, LoadedConfiguration, MessageLike, Report
    from mailrider.app.queued import QueuedMessage, QueuedRecipient
    from mailrider.delivery.settings import RemoteSettings
    from mailrider.delivery.smarthost_settings import SmarthostSettings
    from mailrider.dns.settings import DNSSettings
    from mailrider.model.event import Emit
    from mailrider.queue.settings import QueueSettings
    from mailrider.settings.directive import Settings
    from mailrider.signing.settings import DKIMSettings

__all__ = ["Queue", "Remote", "Smarthost", "load"]

TargetT = TypeVar("TargetT", bound="AbstractAsyncContextManager[Any]")
KindT = TypeVar("KindT", bound="Remote | Smarthost | Queue")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Running(Generic[TargetT]):
    """A target that is entered, in the loop of a thread."""

    target: TargetT
    loop: asyncio.AbstractEventLoop
    stop: asyncio.Event
    thread: threading.Thread


class InThread(Generic[TargetT]):
    """Something asynchronous, entered in the loop of a thread of its own. `make` gives a new one for each start."""

    def __init__(self, make: Callable[[], TargetT]) -> None:
        self._make = make
        self._running: _Running[TargetT] | None = None
        self._lock = threading.Lock()
        _targets.add(self)

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> None:
        """Start, if it is not running; the first call does it too. Raises what entering the target raises."""
        with self._lock:
            self._start()

    def close(self) -> None:
        """End what is running; a later call starts it anew. What others still wait for in it is cancelled."""
        with self._lock:
            running, self._running = self._running, None
        if running is not None:
            running.loop.call_soon_threadsafe(running.stop.set)
            if running.thread is not threading.current_thread():
                running.thread.join()

    def _start(self) -> _Running[TargetT]:
        if self._running is None:
            ready: Future[_Running[TargetT]] = Future()
            # A daemon: a program that forgets `close` can end. `_close_all` closes it in order before that.
            threading.Thread(target=_run, args=(self._make(), ready), name="mailrider", daemon=True).start()
            self._running = ready.result()
        return self._running

    def call(self, work: Callable[[TargetT], Coroutine[Any, Any, T]]) -> T:
        """Run something in the loop and wait for it. An interrupt (Ctrl-C) cancels it."""
        with self._lock:
            running = self._start()
            if running.thread is threading.current_thread():
                raise RuntimeError("on_event is called in the thread that delivers: it cannot wait for a delivery")
            future = asyncio.run_coroutine_threadsafe(work(running.target), running.loop)
        try:
            return future.result()
        except CancelledError:
            raise RuntimeError(f"this {type(self).__name__} was closed meanwhile") from None
        except BaseException:
            future.cancel()
            raise

    def _forget(self) -> None:
        """In a process that was forked: the thread stayed in the parent, and what it has open is the parent's."""
        self._lock = threading.Lock()
        if self._running is not None:
            _inherited.append(self._running)
            self._running = None


def _run(target: TargetT, ready: Future[_Running[TargetT]]) -> None:
    """The thread: enter the target, and leave it when that is asked for."""

    async def serve() -> None:
        stop = asyncio.Event()
        async with target:
            ready.set_result(_Running(target, asyncio.get_running_loop(), stop, threading.current_thread()))
            await stop.wait()

    try:
        asyncio.run(serve())
    except BaseException as error:
        if ready.done():
            raise
        ready.set_exception(error)


_targets: weakref.WeakSet[InThread[Any]] = weakref.WeakSet()
_inherited: list[_Running[Any]] = []  # kept for ever: closing them here would close the parent's


def _after_fork() -> None:
    for target in list(_targets):
        target._forget()


def _close_all() -> None:
    for target in list(_targets):
        target.close()


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_after_fork)
# At atexit the interpreter has stopped its pools of threads, which leaving a target needs; this comes before.
getattr(threading, "_register_atexit", atexit.register)(_close_all)


class _Sender(InThread[TargetT]):
    """Something that delivers messages at once."""

    def send(
        self: _Sender[library.Remote] | _Sender[library.Smarthost],
        message: bytes | MessageLike,
        sender: str,
        recipients: Sequence[str],
        *,
        requiretls: bool = False,
        quarantine: bool = False,
        smtputf8: bool | None = None,
        dsn: DSN = NO_DSN,
    ) -> Report:
        """As `mailrider.Remote.send`: one attempt, one result per recipient, in order."""
        return self.call(
            lambda target: target.send(
                message,
                sender,
                recipients,
                requiretls=requiretls,
                quarantine=quarantine,
                smtputf8=smtputf8,
                dsn=dsn,
            )
        )


class Remote(_Sender[library.Remote]):
    """As `mailrider.Remote`, without asyncio: sends messages to the recipients' own mail servers."""

    def __init__(
        self,
        settings: RemoteSettings | None = None,
        *,
        on_event: Emit = discard,
        dkim: Iterable[DKIMSettings] = (),
        **directives: Unpack[RemoteDirectives],
    ) -> None:
        made = library.Remote(
            settings, on_event=on_event, dkim=dkim, **directives
        ).settings  # what is wrong is said here
        super().__init__(lambda: library.Remote(made, on_event=on_event))


class Smarthost(_Sender[library.Smarthost]):
    """As `mailrider.Smarthost`, without asyncio: sends messages to fixed servers."""

    def __init__(
        self,
        settings: SmarthostSettings | None = None,
        *,
        dns: DNSSettings | None = None,
        on_event: Emit = discard,
        **directives: Unpack[SmarthostDirectives],
    ) -> None:
        made = library.Smarthost(settings, dns=dns, on_event=on_event, **directives).settings
        super().__init__(lambda: library.Smarthost(made, dns=dns, on_event=on_event))


class Queue(InThread[library.Queue]):
    """As `mailrider.Queue`, without asyncio: what it has accepted is delivered, tried again, or bounced.

    It delivers in its thread, from `with` or the first call to `close()`; with `deliver=False` another process does.
    """

    def __init__(
        self,
        settings: QueueSettings | None = None,
        *,
        named: Mapping[str, Settings] | None = None,
        dns: DNSSettings | None = None,
        deliver: bool = True,
        on_event: Emit = discard,
        dkim: Iterable[DKIMSettings] = (),
        **directives: Unpack[QueueDirectives],
    ) -> None:
        made = library.Queue(settings, named=named, dns=dns, deliver=deliver, dkim=dkim, **directives).settings
        super().__init__(lambda: library.Queue(made, named=named, dns=dns, deliver=deliver, on_event=on_event))

    def submit(
        self,
        message: bytes | MessageLike,
        sender: str,
        recipients: Sequence[str],
        *,
        requiretls: bool = False,
        quarantine: bool = False,
        smtputf8: bool | None = None,
        dsn: DSN = NO_DSN,
        id: str | None = None,
    ) -> str:
        """As `mailrider.Queue.submit`: the message's id, once it is durable."""
        return self.call(
            lambda queue: queue.submit(
                message,
                sender,
                recipients,
                requiretls=requiretls,
                quarantine=quarantine,
                smtputf8=smtputf8,
                dsn=dsn,
                id=id,
            )
        )

    def new_id(self) -> str:
        """As `mailrider.Queue.new_id`."""

        async def new_id(queue: library.Queue) -> str:
            return queue.new_id()

        return self.call(new_id)

    def cancel(self, id: str) -> bool:
        """As `mailrider.Queue.cancel`."""
        return self.call(lambda queue: queue.cancel(id))

    def list(
        self,
        *,
        sender: str | None = None,
        recipient: str | None = None,
        domain: str | None = None,
        state: str | None = None,
        older: timedelta | float | str | None = None,
        limit: int | None = 100,
    ) -> Sequence[QueuedRecipient]:
        """As `mailrider.Queue.list`."""
        return self.call(
            lambda queue: queue.list(
                sender=sender, recipient=recipient, domain=domain, state=state, older=older, limit=limit
            )
        )

    def show(self, id: str) -> QueuedMessage | None:
        """As `mailrider.Queue.show`."""
        return self.call(lambda queue: queue.show(id))

    def retry(self, id: str) -> int:
        """As `mailrider.Queue.retry`."""
        return self.call(lambda queue: queue.retry(id))

    def idle(self) -> None:
        """As `mailrider.Queue.idle`."""
        self.call(lambda queue: queue.idle())

    def drain(self) -> None:
        """As `mailrider.Queue.drain`."""
        self.call(lambda queue: queue.drain())


class Loaded:
    """A configuration file, as `mailrider.load` gives it: its targets without asyncio."""

    def __init__(self, loaded: LoadedConfiguration) -> None:
        self._loaded = loaded

    @overload
    def target(self, name: str, *, on_event: Emit = discard) -> Remote | Smarthost | Queue: ...

    @overload
    def target(self, name: str, kind: type[KindT], *, on_event: Emit = discard) -> KindT: ...

    def target(
        self, name: str, kind: type[KindT] | None = None, *, on_event: Emit = discard
    ) -> Remote | Smarthost | Queue:
        """The target of that name, `kind` being what the program counts on; `ConfigError` if it is no such one."""
        target: Remote | Smarthost | Queue
        match self._loaded.target(name):
            case library.Remote():
                target = _wrapped(Remote, lambda: self._loaded.target(name, library.Remote, on_event=on_event))
            case library.Smarthost():
                target = _wrapped(Smarthost, lambda: self._loaded.target(name, library.Smarthost, on_event=on_event))
            case library.Queue():
                target = self.queue(name, on_event=on_event)
        if kind is not None and not isinstance(target, kind):
            raise ConfigError(f"{name} is a {type(target).__name__}, not a {kind.__name__}")
        return target

    def queue(self, name: str = "queue", *, deliver: bool = True, on_event: Emit = discard) -> Queue:
        """The queue of that name; `ConfigError` if there is none."""
        self._loaded.queue(name, deliver=deliver)  # what is wrong is said here
        return _wrapped(Queue, lambda: self._loaded.queue(name, deliver=deliver, on_event=on_event))


def _wrapped(kind: type[T], make: Callable[[], Any]) -> T:
    wrapped = kind.__new__(kind)
    InThread.__init__(wrapped, make)  # type: ignore[arg-type]
    return wrapped


def load(path: str | os.PathLike[str] | None = None) -> Loaded:
    """The configuration in a file, or the one that is found; `ConfigError` with all that is wrong with it."""
    return Loaded(library.load(path))
