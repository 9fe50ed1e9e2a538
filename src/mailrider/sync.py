"""mailrider for programs without asyncio: the library's `Remote`, `Smarthost` and `Queue`, to be called and waited for.

    with mailrider.sync.Remote(hostname="mx.example.org") as remote:
        report = remote.send(message, sender="a@example.org", recipients=["b@example.net"])

Each has a thread with an event loop of its own, which starts with `with`, or with the first call without it, and ends
with `close()`, with the program, or when nothing refers to it any more. Any thread may call. After a fork the child
starts a thread of its own with its next call, and the parent's goes on. `on_event` is called in that thread.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures.thread  # noqa: F401 # it registers its end before ours: what is registered later runs first
import os
import threading
import weakref
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Self, TypeVar, overload

from mailrider.app import library, senders
from mailrider.errors import ConfigError
from mailrider.model.event import discard

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from contextlib import AbstractAsyncContextManager

    from mailrider.app.library import LoadedConfiguration
    from mailrider.model.event import Emit

__all__ = ["Queue", "Remote", "Smarthost", "load"]

TargetT = TypeVar("TargetT", bound="AbstractAsyncContextManager[Any]")
TargetT_co = TypeVar("TargetT_co", bound="AbstractAsyncContextManager[Any]", covariant=True)
KindT = TypeVar("KindT", bound="Remote | Smarthost | Queue")
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Running(Generic[TargetT_co]):
    """A target that is entered, in the loop of a thread."""

    target: TargetT_co
    loop: asyncio.AbstractEventLoop
    stop: asyncio.Event
    thread: threading.Thread


class InThread(Generic[TargetT_co]):
    """Something asynchronous, entered in the loop of a thread of its own. `make` gives a new one for each start."""

    def __init__(self, make: Callable[[], TargetT_co]) -> None:
        self._make = make
        self._running: _Running[TargetT_co] | None = None
        self._lock = threading.RLock()  # a handler of signals may call, too
        self._let_go: weakref.finalize[..., Any] | None = None  # what ends it, if nobody closes it and it is gone
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
            if self._let_go is not None:
                self._let_go()
        if running is not None and running.thread is not threading.current_thread():
            running.thread.join()

    def _start(self) -> _Running[TargetT_co]:
        if self._running is None:
            ready: Future[_Running[TargetT_co]] = Future()
            # A daemon: a program that forgets `close` can end. `_close_all` closes it in order before that.
            thread = threading.Thread(target=_run, args=(self._make(), ready), name="mailrider", daemon=True)
            try:
                thread.start()
                started = ready.result()
            except BaseException:  # an interrupt (Ctrl-C), if it did not fail: it is left as soon as it is entered
                _leaving.add(thread)
                ready.add_done_callback(_stop_started)
                raise
            if self._running is None:
                self._running = started
                self._let_go = weakref.finalize(self, _stop, started)
                self._let_go.atexit = False  # `_close_all` comes before
            else:  # a handler of signals called meanwhile
                _stop(started)
        return self._running

    def call(self, work: Callable[[TargetT_co], Coroutine[Any, Any, T]]) -> T:
        """Run something in the loop and wait for it. An interrupt (Ctrl-C) cancels it."""
        with self._lock:
            running = self._start()
            if running.thread is threading.current_thread():
                raise RuntimeError("on_event is called in the thread that delivers: it cannot wait for a delivery")
            future = asyncio.run_coroutine_threadsafe(work(running.target), running.loop)
        try:
            return future.result()
        except CancelledError:
            raise RuntimeError(f"this {type(running.target).__name__} was closed meanwhile") from None
        except BaseException:
            future.cancel()
            raise

    def _forget(self) -> None:
        """In a process that was forked: the thread stayed in the parent, and what it has open is the parent's."""
        self._lock = threading.RLock()
        if self._running is not None:
            _inherited.append(self._running)
            self._running = None
        if self._let_go is not None:
            self._let_go.detach()


def _stop(running: _Running[Any]) -> None:
    with suppress(RuntimeError):  # its loop has ended
        running.loop.call_soon_threadsafe(running.stop.set)
    _leaving.add(running.thread)


def _stop_started(ready: Future[_Running[Any]]) -> None:
    if ready.exception() is None:
        _stop(ready.result())


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
_leaving: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
_inherited: list[_Running[Any]] = []  # kept for ever: closing them here would close the parent's


def _after_fork() -> None:
    for target in list(_targets):
        target._forget()


def _close_all() -> None:
    for target in list(_targets):
        target.close()
    for thread in list(_leaving):
        with suppress(RuntimeError):  # the system had no thread for it: it never ran
            thread.join()


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_after_fork)
# At atexit the interpreter has stopped its pools of threads, which leaving a target needs; this comes before.
getattr(threading, "_register_atexit", atexit.register)(_close_all)


def _waited_for(
    method: Callable[Concatenate[TargetT, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[InThread[TargetT], P], T]:
    """A method of a target, called in its thread and waited for; it takes the same and returns what that returns."""

    @wraps(method)
    def call(self: InThread[TargetT], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.call(lambda target: method(target, *args, **kwargs))

    call.__doc__ = f"As `{method.__name__}` of the class of that name in `mailrider`, waited for."
    return call


class _Target(InThread[TargetT_co]):
    """A target of the library. Each start has a copy of it: after a fork the one of the parent is still entered."""

    def __init__(self, target: TargetT_co) -> None:
        super().__init__(partial(copy, target))


def _constructed_as(
    make: Callable[P, TargetT],
) -> Callable[[Callable[[Any], None]], Callable[Concatenate[_Target[TargetT], P], None]]:
    """A constructor that takes what that of a class of the library takes."""

    def decorate(_: Callable[[Any], None]) -> Callable[Concatenate[_Target[TargetT], P], None]:
        @wraps(make.__init__)
        def construct(self: _Target[TargetT], /, *args: P.args, **kwargs: P.kwargs) -> None:
            _Target.__init__(self, make(*args, **kwargs))

        return construct

    return decorate


class BlockingRemote(_Target[senders.Remote]):
    """As `mailrider.Remote`, without asyncio: sends messages to the recipients' own mail servers."""

    meant = senders.Remote

    @_constructed_as(senders.Remote)
    def __init__(self) -> None: ...

    send = _waited_for(senders.Remote.send)


class BlockingSmarthost(_Target[senders.Smarthost]):
    """As `mailrider.Smarthost`, without asyncio: sends messages to fixed servers."""

    meant = senders.Smarthost

    @_constructed_as(senders.Smarthost)
    def __init__(self) -> None: ...

    send = _waited_for(senders.Smarthost.send)


class BlockingQueue(_Target[library.Queue]):
    """As `mailrider.Queue`, without asyncio: what it has accepted is delivered, tried again, or bounced.

    It delivers in its thread, from `with` or the first call to `close()`; with `deliver=False` another process does.
    """

    meant = library.Queue

    @_constructed_as(library.Queue)
    def __init__(self) -> None: ...

    submit = _waited_for(library.Queue.submit)
    cancel = _waited_for(library.Queue.cancel)
    list = _waited_for(library.Queue.list)
    show = _waited_for(library.Queue.show)
    retry = _waited_for(library.Queue.retry)
    idle = _waited_for(library.Queue.idle)
    drain = _waited_for(library.Queue.drain)

    def new_id(self) -> str:
        """As `mailrider.Queue.new_id`."""

        async def new_id(queue: library.Queue) -> str:
            return queue.new_id()

        return self.call(new_id)


Remote = BlockingRemote
Smarthost = BlockingSmarthost
Queue = BlockingQueue


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
        match self._loaded.target(name, on_event=on_event):
            case senders.Remote() as found:
                target = _around(Remote, found)
            case senders.Smarthost() as found:
                target = _around(Smarthost, found)
            case library.Queue() as found:
                target = _around(Queue, found)
        if kind is not None and not isinstance(target, kind):
            raise ConfigError(f"{name} is a {target.meant.__name__}, not a {kind.meant.__name__}")
        return target

    def queue(self, name: str = "queue", *, deliver: bool = True, on_event: Emit = discard) -> Queue:
        """The queue of that name; `ConfigError` if there is none."""
        return _around(Queue, self._loaded.queue(name, deliver=deliver, on_event=on_event))


def _around(kind: type[T], target: Any) -> T:
    made = kind.__new__(kind)
    _Target.__init__(made, target)  # type: ignore[arg-type] # a kind is a _Target
    return made


def load(path: str | os.PathLike[str] | None = None) -> Loaded:
    """The configuration in a file, or the one that is found; `ConfigError` with all that is wrong with it."""
    return Loaded(library.load(path))
