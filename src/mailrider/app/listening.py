"""Where a configuration listens, and whether it has any work: what is asked before anything of it is opened."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mailrider.config import placed
from mailrider.errors import ConfigError
from mailrider.net.listen import NoIPv6

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mailrider.config import Configuration
    from mailrider.endpoint.sockets import Sockets
    from mailrider.settings.socket_address import SocketAddress


def has_work(configuration: Configuration) -> None:
    """Raises `ConfigError` if there is nothing to run."""
    if not configuration.endpoints and not any(each.kind == "target.queue" for each in configuration.targets.values()):
        raise ConfigError(
            "there is nothing to run: expected an endpoint (submission, smtp, lmtp) or a target.queue in the file"
        )


def name_of(configuration: Configuration) -> str:
    """What the log calls it."""
    return str(configuration.path or "built-in")


def host_names(configuration: Configuration) -> list[str]:
    """Under which the counters may be asked for."""
    return [each.ascii for each in (configuration.globals.hostname,) if each is not None]


def mail_addresses_of(configuration: Configuration) -> list[SocketAddress]:
    """Where a configuration accepts mail."""
    return [address for endpoint in configuration.endpoints for address in endpoint.settings.listen]


def addresses_of(configuration: Configuration) -> Sequence[SocketAddress]:
    """Where a configuration listens."""
    addresses = mail_addresses_of(configuration)
    metrics = configuration.globals.openmetrics
    return addresses if metrics is None or metrics.ip is None else [*addresses, metrics]


def bind(configuration: Configuration, sockets: Sockets) -> None:
    """Bind every socket that the configuration needs, and is not there. Raises `LocalError`."""
    for endpoint in configuration.endpoints:
        with placed(endpoint):
            for address in endpoint.settings.listen:
                try:
                    sockets.bind(address)
                except NoIPv6:
                    if address.ipv4_counterpart not in endpoint.settings.listen:
                        raise
