"""The global settings: what stands at the top level of a configuration, outside all blocks."""

from __future__ import annotations

import enum
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import platformdirs

from mailrider.dns.settings import DNSSettings
from mailrider.net.settings import SERVER_TLS, ServerTLS, TLSClientSettings
from mailrider.reporting.settings import TLSRPTSettings
from mailrider.settings.directive import InvalidSetting, Settings, block, directive, optional, settings
from mailrider.settings.socket_address import SOCKET_ADDRESS, Scheme
from mailrider.settings.types import BOOLEAN, DOMAIN, IP_ADDRESS, MAILBOX, PATH, ValueType, Words, choice, integer, many

if TYPE_CHECKING:
    from mailrider.model.address import Mailbox
    from mailrider.settings.directive import IPAddresses, Maybe, OptionalDomain, OptionalPath, Setting
    from mailrider.settings.socket_address import SocketAddress


class LogFormat(enum.StrEnum):
    """How the log is written."""

    TEXT = "text"
    JSON = "json"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class LogPlace:
    """How the log is written, and where: `path` None is standard error."""

    format: LogFormat = LogFormat.TEXT
    path: Path | None = None


_FORMATS: Final = choice(LogFormat, stderr=LogFormat.TEXT)


def _log_place(value: object) -> LogPlace:
    if isinstance(value, LogPlace):
        return value
    words = tuple(value) if isinstance(value, tuple | list) else (value,)
    if words[:1] != ("file",):
        (word,) = words
        return LogPlace(_FORMATS.convert(word))
    _, path, *rest = words
    if not os.path.isabs(path) or rest not in ([], ["json"], ["text"]):
        raise ValueError
    return LogPlace(LogFormat(rest[0]) if rest else LogFormat.TEXT, Path(path))


MAX_WORKERS: Final = 256
AUTO: Final = 0
"""Of `workers`: as many as there are processors for this process."""


_COUNT: Final = integer(1, MAX_WORKERS)


WORKERS: Final = ValueType(
    f"1 to {MAX_WORKERS}, or auto",
    f"a whole number from 1 to {MAX_WORKERS}, or auto",
    lambda value: AUTO if value in ("auto", AUTO) else _COUNT.convert(value),
    choices=("auto",),
)


LOG: Final = ValueType(
    "text | json | off | file PATH [json]",
    "text, json, off, or file with an absolute path, and json behind it",
    _log_place,
    words=Words.WORDS,
)


# The configuration of the system's daemon. Its folders are the system's, whoever reads it: the daemon runs without
# root, and all users have to find its socket.
SYSTEM_CONFIG: Final = Path("/etc/mailrider/mailrider.conf")
SYSTEM_STATE_DIR: Final = Path("/var/lib/mailrider")
SYSTEM_RUNTIME_DIR: Final = Path("/run/mailrider")


def default_state_dir(*, system: bool = False) -> Path:
    """Where state is kept if nobody says otherwise: the system's place for root, the user's own for others."""
    if system or os.geteuid() == 0:
        return SYSTEM_STATE_DIR
    return Path(platformdirs.user_state_dir("mailrider"))


def default_runtime_dir(*, system: bool = False) -> Path:
    """Where sockets are put if nobody says otherwise."""
    if system or os.geteuid() == 0:
        return SYSTEM_RUNTIME_DIR
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # of the user having none that is his alone
            return Path(platformdirs.user_runtime_dir("mailrider"))
    except (Warning, PermissionError):
        return default_state_dir() / "run"


@settings
class Globals(Settings):
    """What holds for everything, unless a block says otherwise."""

    hostname: OptionalDomain = optional(
        DOMAIN,
        doc="Our name, with which we greet other servers. It should resolve to our address, and our address to it.",
    )
    origin: OptionalDomain = optional(
        DOMAIN,
        shown_default="`hostname`",
        doc="The domain of addresses without one in mail that is submitted, such as cron's mail to `root`.",
    )
    aliases: OptionalPath = optional(
        PATH,
        shown_default="none",
        doc="A file of aliases(5), such as `/etc/aliases`: who gets submitted mail for `root` and other names of "
        "`origin`. More about it stands in [submission](submission.md#aliases).",
    )
    postmaster: Setting[Mailbox | None, Mailbox | str | None] = optional(
        MAILBOX,
        shown_default="none",
        doc="Who is told if a notification cannot be delivered to its sender: otherwise only the log tells of it. "
        "Choose somebody's address on another machine.",
    )
    state_dir: Setting[Path, Path | str | None] = optional(
        PATH,
        shown_default="`/var/lib/mailrider` for root and in `/etc/mailrider/mailrider.conf`, the user's state folder "
        "otherwise",
        doc="The directory for what must survive a restart. Relative paths in the configuration are relative to it, "
        "and `StateDirectory/` at the beginning of a path stands for it. A `state_dir` that is relative begins in the "
        "folder of the configuration file.",
    )
    runtime_dir: Setting[Path, Path | str | None] = optional(
        PATH,
        shown_default="`/run/mailrider` for root and in `/etc/mailrider/mailrider.conf`, the user's runtime folder "
        "otherwise",
        doc="The directory for sockets.",
    )
    autogenerated_msg_domain: OptionalDomain = optional(
        DOMAIN,
        shown_default="`hostname`",
        doc="The domain of the sender of messages that we write ourselves, such as bounces.",
    )
    tls_client: Setting[TLSClientSettings, TLSClientSettings] = directive(
        block(TLSClientSettings),
        default=TLSClientSettings(),
        shown_default="that of each directive in it",
        doc="How connections that we open use TLS. One inside a target replaces it as a whole.",
    )
    tls: Setting[ServerTLS, ServerTLS | str] = directive(
        SERVER_TLS,
        default=ServerTLS(),
        shown_default="off",
        doc="Our certificate for endpoints: PEM files with the chain and its key.",
    )
    openmetrics: Setting[SocketAddress | None, SocketAddress | str | None] = optional(
        SOCKET_ADDRESS,
        shown_default="none",
        doc="Where the daemon shows its counters, at `/metrics`: `tcp://127.0.0.1:9749`. Everybody who can connect can "
        "read them. Requests have to name an IP address, `localhost` or the global `hostname`: under a name of its own "
        "a web page could make a browser read them.",
    )
    log: Setting[LogPlace, LogPlace | LogFormat | str | tuple[str, ...]] = directive(
        LOG,
        default=LogPlace(),
        shown_default="text",
        doc="How the log is written, on standard error. `text` (or `stderr`): lines of key=value. `json`: an object a "
        "line. `off`: not at all. `file PATH`: what the daemon tells goes to that file, which is opened again at SIGHUP"
        " (so that logrotate may move it away), and is never a symbolic link; with `json` behind it as objects. Under"
        " systemd's journal each line of standard error has its priority, and lines of text no time of their own.",
    )
    debug: Setting[bool, bool] = directive(
        BOOLEAN, default=False, doc="Write the SMTP dialogue and every decision to the log."
    )
    workers: Setting[int, int | str] = directive(
        WORKERS,
        default=1,
        doc="How many processes carry mail. 1: the daemon is one process. More: a supervisor starts so many workers, "
        "each of which accepts and delivers for itself, on a core of its own; one that dies is started again. `auto`: "
        "as many as the daemon may use processors (affinity, and `cpu.max` of its control group). From 1 or to 1 it "
        "changes with a restart only, else with a reload. The chapter All cores of the guide says more.",
    )
    own_addresses: IPAddresses = directive(
        many(IP_ADDRESS),
        default=(),
        repeatable=True,
        doc="Addresses that reach us through NAT, beside those of our interfaces. An MX host that has one of them is "
        "ourselves, and is not delivered to.",
    )
    tlsrpt: Maybe[TLSRPTSettings] = optional(
        block(TLSRPTSettings), shown_default="off", doc="Send TLS reports (RFC 8460) to the domains that ask for them."
    )
    dns: Setting[DNSSettings, DNSSettings] = directive(
        block(DNSSettings),
        default=DNSSettings(),
        shown_default="that of each directive in it",
        doc="The resolver.",
    )

    def _validate(self) -> None:
        where = self.openmetrics
        if where is not None and (where.scheme is not Scheme.TCP or where.ip is None):
            raise InvalidSetting("openmetrics", f"openmetrics: expected tcp://ADDRESS:PORT, not {where}")
        if self.tls.protocols is not None and not self.tls.is_on:
            raise InvalidSetting(
                "tls", "tls: protocols need the certificate beside them: tls CERT KEY { protocols ... }"
            )
        for name, default in (("state_dir", default_state_dir), ("runtime_dir", default_runtime_dir)):
            if getattr(self, name) is None:
                object.__setattr__(self, name, default())
        if self.autogenerated_msg_domain is None:
            object.__setattr__(self, "autogenerated_msg_domain", self.hostname)
