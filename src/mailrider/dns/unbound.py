"""DNSSEC validation in this process: libunbound (NLnet Labs), called through ctypes (RFC 4033 to 4035).

`load_library` finds the library; without it everything else of mailrider works. A `Validator` is one context of it:
it asks forwarders that need not be trusted, or recurses from the root, and checks every signature itself. The library
works in one thread of its own; its results come through a pipe that the event loop watches.

What always holds:

- a callback of the library only notes that a result is there: it calls nothing and raises nothing. The results are
  read and freed when the library has returned;
- options are set before the first question, never later: whoever wants others opens another context;
- the context is deleted in a thread (it waits for the library's own), only by the process that made it;
- a question that is given up is still counted until the library is done with it, so `MAX_IN_FLIGHT` bounds its work.
"""

from __future__ import annotations

import asyncio
import ctypes
import itertools
import os
import sys
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from mailrider.dns.slots import SharedSlots
from mailrider.errors import LocalError
from mailrider.model.domain import owner_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

    from mailrider.dns.servers import ServerAddress

# Questions that one context works on at once; more wait on our side. The library takes them from a socket that holds
# some 135 on Linux: with more, handing one over would make the loop wait.
MAX_IN_FLIGHT: Final = 100
RESULTS_A_TURN: Final = 8  # results that are read before other work of the loop has its turn
MAX_WORDS: Final = 300  # characters of the library's explanation of a failure

# Debian and most others; then where Homebrew puts it on macOS.
LIBRARY_NAMES: Final = (
    "libunbound.so.8",
    "libunbound.8.dylib",
    "/opt/homebrew/lib/libunbound.8.dylib",
    "/usr/local/lib/libunbound.8.dylib",
)

# RFC 6303 and RFC 6761 zones that the library would answer by itself: private networks use such names.
_ANSWERED_BY_DEFAULT: Final = (
    "localhost.",
    "test.",
    "invalid.",
    "onion.",
    "home.arpa.",
    "resolver.arpa.",
    "service.arpa.",
    "127.in-addr.arpa.",
    "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa.",
)

_OPTIONS: Final = (
    ("harden-dnssec-stripped", "yes"),  # a signed zone without signatures is bogus
    ("harden-below-nxdomain", "yes"),
    ("harden-glue", "yes"),
    ("harden-algo-downgrade", "no"),  # RFC 6840 5.11: one good signature is enough
    ("qname-minimisation", "yes"),  # RFC 9156
    ("val-clean-additional", "yes"),
    ("unblock-lan-zones", "yes"),  # reverse zones of private networks are asked like any other
    ("edns-buffer-size", "1232"),
    ("num-queries-per-thread", str(2 * MAX_IN_FLIGHT)),
    ("outgoing-range", str(2 * MAX_IN_FLIGHT)),
    ("msg-cache-size", "4m"),
    ("rrset-cache-size", "8m"),
    ("key-cache-size", "4m"),
    ("neg-cache-size", "1m"),
    ("infra-cache-numhosts", "10000"),
    ("trust-anchor-signaling", "no"),
    ("use-syslog", "no"),
    ("verbosity", "0"),
)
_NO_CACHE: Final = (("cache-max-ttl", "0"), ("cache-max-negative-ttl", "0"))

_CLASS_IN: Final = 1
_TYPE_NS: Final = 2


class LibraryMissing(LocalError):
    """libunbound is not installed, or cannot be loaded."""

    public = "DNSSEC validation is not available"


class ValidatorUnusable(LocalError):
    """libunbound refused an option, an anchor or a forwarder."""

    public = "DNSSEC validation could not be set up"


class _Result(ctypes.Structure):
    """`struct ub_result` of unbound.h."""

    _fields_ = (
        ("qname", ctypes.c_char_p),
        ("qtype", ctypes.c_int),
        ("qclass", ctypes.c_int),
        ("data", ctypes.c_void_p),
        ("len", ctypes.c_void_p),
        ("canonname", ctypes.c_char_p),
        ("rcode", ctypes.c_int),
        ("answer_packet", ctypes.c_void_p),
        ("answer_len", ctypes.c_int),
        ("havedata", ctypes.c_int),
        ("nxdomain", ctypes.c_int),
        ("secure", ctypes.c_int),
        ("bogus", ctypes.c_int),
        ("why_bogus", ctypes.c_char_p),
        ("was_ratelimited", ctypes.c_int),
        ("ttl", ctypes.c_int),
    )


_CALLBACK: Final = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)


class Library:
    """The loaded library, with the types of the functions that are used."""

    def __init__(self, handle: ctypes.CDLL) -> None:
        context, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
        self.create = _declare(handle, "ub_ctx_create", context)
        self.delete = _declare(handle, "ub_ctx_delete", None, context)
        self.set_log = _declare(handle, "ub_ctx_debugout", number, context, ctypes.c_void_p)
        self.set_option = _declare(handle, "ub_ctx_set_option", number, context, text, text)
        self.set_forwarder = _declare(handle, "ub_ctx_set_fwd", number, context, text)
        self.set_tls = _declare(handle, "ub_ctx_set_tls", number, context, number)
        self.add_anchor = _declare(handle, "ub_ctx_add_ta", number, context, text)
        self.run_thread = _declare(handle, "ub_ctx_async", number, context, number)
        self.descriptor = _declare(handle, "ub_fd", number, context)
        self.process = _declare(handle, "ub_process", number, context)
        self.free = _declare(handle, "ub_resolve_free", None, ctypes.c_void_p)
        self.ask = _declare(
            handle,
            "ub_resolve_async",
            *(number, context, text, number, number, ctypes.c_void_p, _CALLBACK, ctypes.c_void_p),
        )
        self._words = _declare(handle, "ub_strerror", text, number)
        self._version = _declare(handle, "ub_version", text)

    @property
    def version(self) -> str:
        """As `1.17.1`."""
        version: bytes = self._version()
        return version.decode("ascii", "replace")

    def words(self, error: int) -> str:
        """What an error number means."""
        words: bytes = self._words(error)
        return words.decode("ascii", "replace")


def _declare(handle: ctypes.CDLL, name: str, returns: Any, *takes: Any) -> Any:
    function = getattr(handle, name)
    function.restype, function.argtypes = returns, takes
    return function


def load_library(names: Sequence[str] = LIBRARY_NAMES) -> Library:
    """The library, by the first name under which it can be loaded. Raises `LibraryMissing`."""
    problems: list[str] = []
    for name in names:
        try:
            return Library(ctypes.CDLL(name))
        except (OSError, AttributeError) as error:
            problems.append(str(error))
    raise LibraryMissing(f"libunbound cannot be loaded (Debian: apt-get install libunbound8): {problems[0]}")


@dataclass(frozen=True, slots=True)
class Upstreams:
    """Whom a validator asks: forwarders, or the root and below if none."""

    forwarders: tuple[ServerAddress, ...] = ()
    tls_roots: str = ""  # the file with the certificates to trust, where forwarders are asked over TLS

    @property
    def over_tls(self) -> bool:
        """True if they are asked over TLS: all are then."""
        return any(server.tls_name for server in self.forwarders)


@dataclass(frozen=True, slots=True)
class Validated:
    """What the library says to one question: `packet` is the answer as a DNS message.

    `secure`: every part of it is signed, up to an anchor. `bogus`: signatures are missing or wrong, `why` says which.
    `error`: the library could not ask at all, in its words; then there is nothing else.
    """

    packet: bytes = b""
    secure: bool = False
    bogus: bool = False
    why: str = ""
    error: str = ""


CLOSED: Final = Validated(error="the validator is closed")


class Validator:
    """One context of the library; use it with `async with`. `anchors` are DS or DNSKEY records in zone-file form.

    Names in `insecure` are not validated (RFC 7646). Without `caches` the library keeps no answer.
    """

    def __init__(
        self,
        library: Library,
        upstreams: Upstreams,
        anchors: Sequence[str],
        *,
        insecure: Sequence[str] = (),
        caches: bool = True,
    ) -> None:
        self._library = library
        self._upstreams = upstreams
        self._anchors = tuple(anchors)
        self._insecure = tuple(insecure)
        self._caches = caches
        self._context: int | None = None
        self._made_by = 0
        self._descriptor = -1
        self._numbers = itertools.count(1)
        self._waiting: dict[int, tuple[str, asyncio.Future[Validated]]] = {}  # with the owner of the slot
        self._arrived: deque[tuple[int, int, int | None]] = deque()
        self._handing_out: asyncio.Handle | None = None
        self._slots = SharedSlots(MAX_IN_FLIGHT)
        # Kept as long as this object, which outlives its context: the library calls it.
        self._callback = _CALLBACK(self._note)

    async def __aenter__(self) -> Self:
        context = self._library.create()
        if not context:
            raise ValidatorUnusable("libunbound made no context: out of memory or descriptors")
        self._context, self._made_by = context, os.getpid()
        try:
            self._configure(context)
            self._descriptor = self._library.descriptor(context)
            asyncio.get_running_loop().add_reader(self._descriptor, self._process)
            if self._upstreams.over_tls:
                await self._try_tls()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End every question, and the library's thread."""
        context, self._context = self._context, None
        if context is None:
            return
        if self._descriptor >= 0:
            asyncio.get_running_loop().remove_reader(self._descriptor)
        if self._handing_out is not None:
            self._handing_out.cancel()
        for _, _, result in self._arrived:
            if result:
                self._library.free(result)
        self._arrived.clear()
        for number in tuple(self._waiting):
            future = self._forget(number)
            if future is not None and not future.done():
                future.set_result(CLOSED)
        # After a fork the thread to wait for is not here; when the interpreter ends, no thread of ours can wait.
        if os.getpid() == self._made_by and not sys.is_finalizing():
            await asyncio.to_thread(self._library.delete, context)

    async def ask(self, name: str, record_type: int) -> Validated:
        """The answer to one question; `name` is absolute. Waits as long as the library does: bound it."""
        owner = owner_of(name)
        await self._slots.take(owner)
        context = self._context
        if context is None or os.getpid() != self._made_by:
            self._slots.give_back(owner)
            return CLOSED
        future: asyncio.Future[Validated] = asyncio.get_running_loop().create_future()
        error = self._begin(name, record_type, future)
        return Validated(error=error) if error else await future

    def _begin(self, name: str, record_type: int, future: asyncio.Future[Validated]) -> str:
        """Hand a question to the library, which has a slot; its error, if it does not take it."""
        number = next(self._numbers)
        self._waiting[number] = owner_of(name), future
        wire_name = f"{name}.".encode("ascii")
        error = self._library.ask(self._context, wire_name, record_type, _CLASS_IN, number, self._callback, None)
        if not error:
            return ""
        self._forget(number)
        return self._library.words(error)

    # Set-up -----------------------------------------------------------------------------------------------------------

    def _configure(self, context: int) -> None:
        upstreams = self._upstreams
        self._check(self._library.set_log(context, None), "to log nothing")
        for name, value in (*_OPTIONS, *(() if self._caches else _NO_CACHE)):
            self._set(context, name, value)
        for zone in _ANSWERED_BY_DEFAULT:
            self._set(context, "local-zone", f"{zone} transparent")
        for zone in self._insecure:
            self._set(context, "domain-insecure", zone)
        if any(server.ip.is_loopback for server in upstreams.forwarders):
            self._set(context, "do-not-query-localhost", "no")
        if upstreams.over_tls:
            if not upstreams.tls_roots:  # it would verify no certificate then
                raise ValidatorUnusable("DNS over TLS: no file with the system's trusted certificates is known")
            self._set(context, "tls-cert-bundle", upstreams.tls_roots)
            self._check(self._library.set_tls(context, 1), "TLS to the forwarders")
        for place in map(_forwarder, upstreams.forwarders):
            self._check(self._library.set_forwarder(context, place.encode("ascii")), f"forwarder {place}")
        for anchor in self._anchors:
            self._check(self._library.add_anchor(context, anchor.encode("ascii")), f"trust anchor {anchor}")
        self._check(self._library.run_thread(context, 1), "a thread")

    async def _try_tls(self) -> None:
        """Debian builds the library without TLS, which only shows when its thread starts, at the first question."""
        await self._slots.take(owner_of(""))
        error = self._begin("", _TYPE_NS, asyncio.get_running_loop().create_future())
        if error:
            raise ValidatorUnusable(
                f"libunbound {self._library.version} cannot ask over TLS ({error}): Debian's is built without it"
            )

    def _set(self, context: int, name: str, value: str) -> None:
        error = self._library.set_option(context, f"{name}:".encode("ascii"), value.encode())
        self._check(error, f"option {name}: {value}")

    def _check(self, error: int, what: str) -> None:
        if error:
            raise ValidatorUnusable(f"libunbound {self._library.version} refused {what}: {self._library.words(error)}")

    # Results ----------------------------------------------------------------------------------------------------------

    def _note(self, number: int, error: int, result: int | None) -> None:
        self._arrived.append((number, error, result))

    def _process(self) -> None:
        """The library has results: read them, free them, wake who waits."""
        if self._context is None or os.getpid() != self._made_by:
            return
        self._library.process(self._context)
        if self._arrived and self._handing_out is None:
            self._hand_out()

    def _hand_out(self) -> None:
        """Read the oldest results, and go on at the loop's next turn: those who waited have work to do with them."""
        for _ in range(min(RESULTS_A_TURN, len(self._arrived))):
            number, error, result = self._arrived.popleft()
            answer = Validated(error=self._library.words(error)) if error else _read(result)
            if result:
                self._library.free(result)
            future = self._forget(number)
            if future is not None and not future.done():
                future.set_result(answer)
        self._handing_out = asyncio.get_running_loop().call_soon(self._hand_out) if self._arrived else None

    def _forget(self, number: int) -> asyncio.Future[Validated] | None:
        waiting = self._waiting.pop(number, None)
        if waiting is None:
            return None
        owner, future = waiting
        self._slots.give_back(owner)
        return future


def _forwarder(server: ServerAddress) -> str:
    """As libunbound writes it: `192.0.2.1@53`, `192.0.2.1@853#dns.example`."""
    return f"{server.ip}@{server.port}" + (f"#{server.tls_name}" if server.tls_name else "")


def _read(address: int | None) -> Validated:
    if not address:
        return Validated(error="no result")
    result = _Result.from_address(address)
    packet = ctypes.string_at(result.answer_packet, result.answer_len) if result.answer_packet else b""
    why = (result.why_bogus or b"").decode("ascii", "replace")[:MAX_WORDS]
    return Validated(
        packet, bool(result.secure), bool(result.bogus), "".join(c if " " <= c <= "~" else "?" for c in why)
    )
