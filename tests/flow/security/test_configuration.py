"""From the text of a configuration to what happens on the wire: `mx_auth` by reference, `local_policy`, quarantine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import mailrider
from mailrider.lab.ca import Kind
from mailrider.lab.dns import LabDNS
from mailrider.model.event import SecurityUnavailable, ServerTrustChanged
from tests.flow.security.net import MESSAGE, SecureNet, ee, fate, levels, send, told_nothing

if TYPE_CHECKING:
    from pathlib import Path

DELIVERED = "delivered", 250, "2.0.0"
REFUSED = "deferred", 451, "4.7.1"

# As the pages that this project comes from have it: policies at the top level, shared by reference.
SHARED = """
hostname client.test
state_dir {state}
dns {{
    server {dns}
    timeout 30s
}}
tls_client {{
    root_ca {root}
}}

mx_auth outbound_policy {{
    dane
    mtasts {{
        cache {cache}
        https_port {https_port}
        root_ca {root}
    }}
    {more}
}}

target.remote first {{
    port {port}
    prohibited_addresses none
    mx_auth &outbound_policy
}}

target.remote second {{
    port {port}
    prohibited_addresses none
    mx_auth &outbound_policy
    tls_client {{
        protocols tls1.3
        root_ca {root}
    }}
}}

deliver_to &first
"""


def load(net: SecureNet, folder: Path, *, cache: str = "ram", more: str = "") -> mailrider.LoadedConfiguration:
    text = SHARED.format(
        state=folder / "state",
        dns=net.dns.server,
        root=net.root,
        https_port=net.sts.port,
        port=net.port,
        cache=cache,
        more=more,
    )
    file = folder / "mailrider.conf"
    file.write_text(text)
    return mailrider.load(file)


@pytest.mark.parametrize("target", ["first", "second"])
async def test_targets_share_their_policies_by_reference(target: str, tmp_path: Path) -> None:
    async with SecureNet() as net:
        certificate = net.ca.issue(["mx.dane.test"], Kind.SELF_SIGNED)
        await net.add("dane.test", certificate, mx_signed=True, host_signed=True, tlsa=ee(certificate))
        await net.add("danebad.test", mx_signed=True, host_signed=True, tlsa=f"3 1 1 {'00' * 32}")
        await net.add("sts.test")
        net.publish("sts.test", "enforce", "mx.sts.test")
        await net.add("stsbad.test", Kind.EXPIRED)
        net.publish("stsbad.test", "enforce", "mx.stsbad.test")
        await net.add("plain.test", None)
        names = ["dane.test", "danebad.test", "sts.test", "stsbad.test", "plain.test"]
        async with load(net, tmp_path).target(target, mailrider.Remote) as remote:
            report = await remote.send(MESSAGE, "a@client.test", [f"x@{name}" for name in names])
        fates = [fate(result) for result in report]
        assert fates == [DELIVERED, REFUSED, DELIVERED, REFUSED, DELIVERED]
        # `dnssec` is not listed, so nobody has that level.
        assert levels(report[0]) == ("none", "authenticated", "dane")
        assert levels(report[2]) == ("mtasts", "authenticated", "pkix")
        assert told_nothing(net.mx["danebad.test"])
        assert told_nothing(net.mx["stsbad.test"])


async def test_the_policies_on_disk_outlive_the_process_and_serve_both_targets(tmp_path: Path) -> None:
    async with SecureNet() as net:
        await net.add("sts.test")
        net.publish("sts.test", "enforce", "mx.sts.test")
        async with load(net, tmp_path, cache="fs").target("first", mailrider.Remote) as remote:
            assert fate(await send(remote, "x@sts.test")) == DELIVERED
        assert len(list((tmp_path / "state/mtasts_cache").iterdir())) == 1
        # A new process; and somebody hides the policy and strips STARTTLS.
        del net.zones["_mta-sts.sts.test"], net.zones["mta-sts.sts.test"]
        net.mx["sts.test"].script = type(net.mx["sts.test"].script)()
        async with load(net, tmp_path, cache="fs").target("second", mailrider.Remote) as remote:
            assert fate(await send(remote, "x@sts.test")) == REFUSED
        assert net.sts.fetches("sts.test") == 1


LOCAL = {
    # what local_policy says, and what becomes of mail to: in clear, self-signed, PKIX; a literal in clear, with TLS
    "": "delivered delivered delivered delivered delivered",
    "local_policy off": "delivered delivered delivered delivered delivered",
    "local_policy": "deferred delivered delivered deferred delivered",
    "local_policy { min_tls_level authenticated\n }": "deferred deferred delivered deferred deferred",
    "local_policy { min_tls_level none\n min_mx_level mtasts\n }": "deferred deferred deferred deferred deferred",
}


@pytest.mark.parametrize(("line", "expected"), LOCAL.items(), ids=[line or "nothing" for line in LOCAL])
async def test_local_policy_binds_every_destination_address_literals_included(
    line: str, expected: str, tmp_path: Path
) -> None:
    async with SecureNet() as net:
        clear = await net.add("clear.test", None)
        await net.add("self.test", Kind.SELF_SIGNED)
        good = await net.add("good.test")
        recipients = ["x@clear.test", "x@self.test", "x@good.test", f"x@[{clear.address}]", f"x@[{good.address}]"]
        async with load(net, tmp_path, more=line).target("first", mailrider.Remote) as remote:
            report = await remote.send(MESSAGE, "a@client.test", recipients)
        assert [result.status.value for result in report] == expected.split()
        refused = [result for result in report if result.status != "delivered"]
        enhanced = "4.7.0" if "min_mx_level" in line else "4.7.1"
        assert {str(result.reply.status) for result in refused} <= {enhanced}
        if "min_mx_level" in line:
            assert clear.opened == good.opened == 0, "the MX minimum is checked before connecting"


async def test_a_quarantined_message_goes_nowhere_and_asks_nobody(tmp_path: Path) -> None:
    async with SecureNet() as net:
        server = await net.add("good.test")
        async with load(net, tmp_path).target("first", mailrider.Remote) as remote:
            (result,) = await remote.send(MESSAGE, "a@client.test", ["x@good.test"], quarantine=True)
        assert fate(result) == ("failed", 550, "5.7.0")
        assert server.opened == 0
        assert not net.dns.queries


async def test_behind_a_resolver_beyond_loopback_dnssec_and_dane_are_off_and_one_event_says_why() -> None:
    events: list[object] = []
    settings = mailrider.RemoteSettings(
        hostname="client.test", dns=mailrider.DNSSettings(server=["192.0.2.53"]), mx_auth=[mailrider.Dane()]
    )
    async with mailrider.Remote(settings, on_event=events.append):
        pass
    (event,) = events
    assert isinstance(event, SecurityUnavailable)
    assert "192.0.2.53" in event.reason


async def test_a_forwarder_on_loopback_that_does_not_validate_turns_dane_off_and_the_log_says_so() -> None:
    events: list[object] = []
    async with LabDNS({"iana.org": {"MX": "10 mx.iana.org"}}, "127.0.9.53") as dns:
        settings = mailrider.RemoteSettings(
            hostname="client.test", dns=mailrider.DNSSettings(server=[dns.server]), mx_auth=[mailrider.Dane()]
        )
        async with mailrider.Remote(settings, on_event=events.append):
            pass
    changed, off = events
    assert isinstance(changed, ServerTrustChanged)
    assert isinstance(off, SecurityUnavailable)
    assert "iana.org, which is signed, comes without AD" in off.reason


@pytest.mark.parametrize(("kind", "expected"), [(Kind.VALID, "authenticated"), (Kind.SELF_SIGNED, "encrypted")])
async def test_without_mx_auth_nothing_is_enforced_and_tls_is_used_all_the_same(kind: Kind, expected: str) -> None:
    async with SecureNet() as net:
        await net.add("good.test", kind, mx_signed=True, host_signed=True, tlsa=f"3 1 1 {'00' * 32}")
        net.publish("good.test", "enforce", "mx.other.test")
        async with net.remote() as remote:
            result = await send(remote, "x@good.test")
        assert (fate(result), levels(result)[:2]) == (DELIVERED, ("none", expected))
        assert not net.dns.asked(f"_{net.port}._tcp.mx.good.test", "TLSA")
        assert not net.dns.asked("_mta-sts.good.test", "TXT")
