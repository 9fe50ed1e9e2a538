"""Who may hand in mail because of its address: printers and programs of a private network (`trust`).

An address proves little, so what it allows is little: the sender of the envelope, From and Sender have to be of
`sender_domains`, and the null reverse-path is refused. What always holds:

- only private networks can be trusted: from public ones an address is anybody's;
- the default gateway and our own addresses do not count, unless they are named as a single address (`/32`): in a
  container the port is often served by a proxy, and then the whole world comes from there;
- behind a proxy that announces its clients (PROXY protocol) the announced address counts; the proxy's own never does.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from mailrider.endpoint.pipeline.authorize import named_in, refused
from mailrider.endpoint.pipeline.check import PASSED
from mailrider.errors import InvalidValue
from mailrider.model.ip import networks
from mailrider.model.reply import Reply

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from ipaddress import IPv4Address, IPv6Address

    from mailrider.endpoint.pipeline.check import Arrival, CheckResult
    from mailrider.model.address import Mailbox, ReversePath
    from mailrider.model.domain import Domain
    from mailrider.model.envelope import Envelope
    from mailrider.settings.types import IPNetwork
    from mailrider.smtp.content import Content

# RFC 1918, RFC 3927, RFC 4193, RFC 4291 2.5.6, and loopback. Not RFC 6598: the other customers of a provider use it.
PRIVATE: Final = networks(
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "169.254.0.0/16",
    "127.0.0.0/8",
    "fc00::/7",
    "fe80::/10",
    "::1/128",
)

NOT_TRUSTED: Final = Reply.make(550, "5.7.1", "Mail is not taken from your address")
NO_SENDER: Final = Reply.make(550, "5.7.1", "Mail from your network needs a sender")
WRONG_SENDER: Final = Reply.make(550, "5.7.1", "Mail of that sender's domain is not taken from your network")


def is_private(network: IPNetwork) -> bool:
    """True if all of it is out of the public's reach."""
    # `subnet_of` wants the same version, and says so by a TypeError.
    return any(network.version == each.version and network.subnet_of(each) for each in PRIVATE)  # type: ignore[arg-type] # one version


class Trust:
    """The networks that are trusted at an endpoint.

    `is_own` tells our own addresses from others, `gateways` are those of the default routes.
    """

    def __init__(
        self,
        networks: Collection[IPNetwork],
        domains: Collection[Domain],
        is_own: Callable[[IPv4Address | IPv6Address], bool],
        gateways: Callable[[], Collection[IPv4Address | IPv6Address] | None],
    ) -> None:
        self._named = {each.network_address for each in networks if each.prefixlen == each.max_prefixlen}
        self._networks = tuple(networks)
        self._domains = frozenset(domains)
        self._is_own = is_own
        self._gateways = gateways

    def covers(self, client: str, *, announced: str | None) -> bool:
        """True if that client needs no login. `announced`: by a proxy, empty for the proxy itself; None: no proxy."""
        if not client or announced == "":
            return False
        address = ip_address(client.partition("%")[0])
        if address in self._named:
            return True
        # An address of the other version is in no network.
        if not any(address in each for each in self._networks):
            return False
        gateways = self._gateways()
        # Where the system does not tell the gateway, any address may be it.
        return not (gateways is None or address in gateways or address.is_loopback or self._is_own(address))

    def sender_refusal(self, sender: ReversePath) -> Reply | None:
        """Why a trusted client may not send as this one."""
        if sender.mailbox is None:
            return NO_SENDER
        return None if self._may_use(sender.mailbox) else WRONG_SENDER

    def _may_use(self, mailbox: Mailbox) -> bool:
        return mailbox.domain in self._domains

    async def examine(self, envelope: Envelope, content: Content, arrival: Arrival) -> CheckResult:
        """See `Check`: who is trusted writes under `sender_domains` only."""
        if not arrival.trusted:
            return PASSED
        who = arrival.client or "a client of a trusted network"
        try:
            foreign = next((each for each in named_in(envelope, content) if not self._may_use(each)), None)
        except InvalidValue as error:
            return refused(who, str(error))
        return PASSED if foreign is None else refused(who, f"mail of {foreign} is not taken from this network")
