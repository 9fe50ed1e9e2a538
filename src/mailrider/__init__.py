"""mailrider: a secure outbound mail-delivery engine.

The public names; where they come from is an internal matter. Each is imported when it is first asked for, so that
`import mailrider` costs next to nothing (PEP 562).
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mailrider.app.library import LoadedConfiguration, Queue, load
    from mailrider.app.queued import PastTry, QueuedMessage, QueuedRecipient
    from mailrider.app.senders import DKIM, Remote, Smarthost
    from mailrider.app.submission import DSN, Report, Result
    from mailrider.delivery.settings import LimitsSettings as Limits
    from mailrider.delivery.settings import RemoteSettings
    from mailrider.delivery.smarthost_settings import LMTPSettings, SmarthostSettings
    from mailrider.dns.settings import DNSSettings
    from mailrider.errors import ConfigError, MailriderError
    from mailrider.model.event import Emit, Event
    from mailrider.model.outcome import Status
    from mailrider.model.security import Mechanism, MXLevel, Security, TLSLevel
    from mailrider.net.settings import TLSClientSettings
    from mailrider.observe.bridge import log_to
    from mailrider.policy.settings import DNSSEC, MTASTS, Dane, LocalPolicy
    from mailrider.queue.settings import QueueSettings
    from mailrider.signing.settings import ModifySettings

    __version__: str

__all__ = [
    "DKIM",
    "DNSSEC",
    "DSN",
    "MTASTS",
    "ConfigError",
    "DNSSettings",
    "Dane",
    "Emit",
    "Event",
    "LMTPSettings",
    "Limits",
    "LoadedConfiguration",
    "LocalPolicy",
    "MXLevel",
    "MailriderError",
    "Mechanism",
    "ModifySettings",
    "PastTry",
    "Queue",
    "QueueSettings",
    "QueuedMessage",
    "QueuedRecipient",
    "Remote",
    "RemoteSettings",
    "Report",
    "Result",
    "Security",
    "Smarthost",
    "SmarthostSettings",
    "Status",
    "TLSClientSettings",
    "TLSLevel",
    "load",
    "log_to",
]

# Where each public name comes from; the imports above say the same to type checkers, and a test compares.
_HOMES = {
    "app.library": ("LoadedConfiguration", "Queue", "load"),
    "app.queued": ("PastTry", "QueuedMessage", "QueuedRecipient"),
    "app.senders": ("DKIM", "Remote", "Smarthost"),
    "app.submission": ("DSN", "Report", "Result"),
    "delivery.settings": ("RemoteSettings",),
    "delivery.smarthost_settings": ("LMTPSettings", "SmarthostSettings"),
    "dns.settings": ("DNSSettings",),
    "errors": ("ConfigError", "MailriderError"),
    "model.event": ("Emit", "Event"),
    "model.outcome": ("Status",),
    "model.security": ("MXLevel", "Mechanism", "Security", "TLSLevel"),
    "net.settings": ("TLSClientSettings",),
    "observe.bridge": ("log_to",),
    "policy.settings": ("DNSSEC", "MTASTS", "Dane", "LocalPolicy"),
    "queue.settings": ("QueueSettings",),
    "signing.settings": ("ModifySettings",),
}
_SOURCES = {name: (module, name) for module, names in _HOMES.items() for name in names}
_SOURCES["Limits"] = ("delivery.settings", "LimitsSettings")


if not TYPE_CHECKING:  # to a type checker it would say that every name exists

    def __getattr__(name):
        if name == "__version__":
            from importlib.metadata import version

            found = version("mailrider")
        elif name in _SOURCES:
            from importlib import import_module

            module, inside = _SOURCES[name]
            found = getattr(import_module(f"mailrider.{module}"), inside)
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
