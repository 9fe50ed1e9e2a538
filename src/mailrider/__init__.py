"""mailrider: a secure outbound mail-delivery engine.

The public names; where they come from is an internal matter.
"""

from importlib.metadata import version

from mailrider.app.library import DSN, LoadedConfiguration, Queue, Remote, Report, Result, Smarthost, load
from mailrider.delivery.settings import LimitsSettings as Limits
from mailrider.delivery.settings import RemoteSettings
from mailrider.delivery.smarthost_settings import LMTPSettings, SmarthostSettings
from mailrider.dns.settings import DNSSettings
from mailrider.errors import ConfigError, MailriderError
from mailrider.model.outcome import Status
from mailrider.model.security import Mechanism, MXLevel, Security, TLSLevel
from mailrider.net.settings import TLSClientSettings
from mailrider.policy.settings import DNSSEC, MTASTS, Dane, LocalPolicy
from mailrider.queue.settings import QueueSettings

__all__ = [
    "DNSSEC",
    "DSN",
    "MTASTS",
    "ConfigError",
    "DNSSettings",
    "Dane",
    "LMTPSettings",
    "Limits",
    "LoadedConfiguration",
    "LocalPolicy",
    "MXLevel",
    "MailriderError",
    "Mechanism",
    "Queue",
    "QueueSettings",
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
]

__version__ = version("mailrider")
