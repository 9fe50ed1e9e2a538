"""A private internet on loopback: DNS, mail servers, policy hosts and an authority, made from a `World`.

    async with Internet(folder) as internet:
        print(internet.configuration)

No root, no outside network. `folder` gets the authority's certificate and a configuration that uses it all.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Self

from mailrider.config import quoted
from mailrider.lab.ca import CA
from mailrider.lab.dns import LabDNS
from mailrider.lab.mx import LabMX
from mailrider.lab.sts import REPORT_PATH, LabSTS
from mailrider.lab.world import World, build_world

if TYPE_CHECKING:
    from pathlib import Path


DNS_ADDRESS = "127.0.2.53"
POLICY_ADDRESS = "127.0.2.99"
SMTP_PORT, DNS_PORT, HTTPS_PORT = 2525, 5300, 8443
HOSTNAME = "sender.test"

_CONFIGURATION = """\
# The lab of mailrider, on loopback. It works while `mailrider lab` runs.
hostname {hostname}
state_dir {state}
dns {{
    server {dns}
}}
tls_client {{
    root_ca {root}
}}
target.remote lab {{
    port {port}
    prohibited_addresses none
    mx_auth {{
        mtasts {{
            cache ram
            https_port {https_port}
            root_ca {root}
        }}
        dane
        dnssec
    }}
}}
deliver_to &lab
"""


class Internet:
    """The lab's servers, running while it is entered. Ports are as given; 0 takes any free one for DNS and HTTPS."""

    def __init__(
        self, folder: Path, *, port: int = SMTP_PORT, dns_port: int = DNS_PORT, https_port: int = HTTPS_PORT
    ) -> None:
        self.folder = folder
        self.ca = CA()
        self.world: World = build_world(self.ca, port, POLICY_ADDRESS)
        self.dns = LabDNS({**self.world.zones, HOSTNAME: {"A": "127.0.2.250"}}, DNS_ADDRESS, dns_port)
        self.sts = LabSTS(self.ca, self.world.policies, POLICY_ADDRESS, https_port)
        self.servers: dict[str, LabMX] = {
            host.name: LabMX(host.script, host.address, port, port_state=host.port_state) for host in self.world.hosts
        }
        self._stack = AsyncExitStack()

    @property
    def configuration(self) -> str:
        """What makes mailrider deliver within the lab."""
        return _CONFIGURATION.format(
            hostname=HOSTNAME,
            state=quoted(f"{self.folder}/state"),
            dns=self.dns.server,
            root=quoted(f"{self.folder}/root.pem"),
            port=self.world.port,
            https_port=self.sts.port,
        )

    @property
    def configuration_file(self) -> Path:
        """Where `configuration` stands as a file."""
        return self.folder / "mailrider.conf"

    def _ask_for_posted_reports(self) -> None:
        """TLS reports by POST (RFC 8460 3), at the policy host, whose port is known now."""
        url = f"https://mta-sts.sts.test:{self.sts.port}{REPORT_PATH}"
        self.dns.zones["_smtp._tls.sts.test"] = {"TXT": f"v=TLSRPTv1; rua={url}"}

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.dns)
            await stack.enter_async_context(self.sts)
            self._ask_for_posted_reports()
            for server in self.servers.values():
                await stack.enter_async_context(server)
            self._stack = stack.pop_all()
        self.ca.write_root(self.folder)
        self.configuration_file.write_text(self.configuration)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()
