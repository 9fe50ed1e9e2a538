"""Security events and counters for each connection: which levels it has, by which mechanism, and what was refused."""

from __future__ import annotations

from typing import Any

import mailrider
from mailrider.lab.ca import Kind
from mailrider.lab.mx_script import MXTLS, MXScript, TLSFault
from mailrider.lab.sts import PolicyHost
from mailrider.lab.zones import Fault
from mailrider.model import event as events
from mailrider.observe.describe import describe
from mailrider.observe.metrics import Metrics, fan_out
from mailrider.policy.sts import events as mtasts_events
from tests.flow.security.net import WAIVED, SecureNet, ee, send


class Observed(SecureNet):
    """A net whose senders are counted."""

    def __init__(self) -> None:
        super().__init__()
        self.metrics = Metrics()

    def observed(self, **directives: Any) -> mailrider.Remote:
        return mailrider.Remote(self.settings(**directives), on_event=fan_out(self.events.append, self.metrics))

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"mailrider_{name}_total", labels) or 0.0

    def only(self, kind: type[events.Event]) -> Any:
        (event,) = self.happened(kind)
        return event


async def test_each_connection_tells_its_levels_its_mechanism_and_why() -> None:
    async with Observed() as net:
        certificate = net.ca.issue(["mx.dane.test"], Kind.SELF_SIGNED)
        await net.add("dane.test", certificate, mx_signed=True, host_signed=True, tlsa=ee(certificate))
        await net.add("sts.test")
        net.publish("sts.test", "enforce", "mx.sts.test")
        await net.add("self.test", Kind.SELF_SIGNED)
        await net.add("clear.test", None)
        async with net.observed(mx_auth=net.everything()[:3]) as remote:
            for name in ("dane", "sts", "self", "clear"):
                await send(remote, f"x@{name}.test")
    judged = {str(event.next_hop): event for event in net.happened(events.ConnectionJudged)}
    shown = {
        name: (event.security.mx_level.word, event.security.tls_level.word, event.security.authenticated_by)
        for name, event in judged.items()
    }
    assert shown == {
        "dane.test": ("dnssec", "authenticated", "dane"),
        "sts.test": ("mtasts", "authenticated", "pkix"),
        "self.test": ("none", "encrypted", None),
        "clear.test": ("none", "none", None),
    }
    assert "is the server's key" in judged["dane.test"].reason
    assert judged["sts.test"].reason.startswith("valid for mx.sts.test until")
    for mx, tls, by in shown.values():
        labels = {"mx_level": mx, "tls_level": tls, "authenticated_by": by or "none"}
        assert net.count("judged_connections", **labels) == 1
        assert net.count("delivered_recipients", **labels) == 1
    assert net.count("policy_fetches", result="ok") == 1


async def test_a_kept_connection_is_judged_again_and_that_is_told() -> None:
    async with Observed() as net:
        await net.add("sts.test")
        net.publish("sts.test", "enforce", "mx.sts.test")
        async with net.observed(mx_auth=net.everything()) as remote:
            await send(remote, "x@sts.test")
            await send(remote, "x@sts.test", message=WAIVED)
        assert net.mx["sts.test"].opened == 1
    levels = [event.security.mx_level.word for event in net.happened(events.ConnectionJudged)]
    assert levels == ["mtasts", "none"]
    assert len(net.happened(events.ConnectionOpened)) == 1
    assert net.count("reused_connections") == 1


async def test_refusals_are_told_by_policy() -> None:
    async with Observed() as net:
        await net.add("dane.test", mx_signed=True, host_signed=True, tlsa=f"3 1 1 {'00' * 32}")
        await net.add("sts.test")
        net.publish("sts.test", "enforce", "mx.other.test")
        await net.add("clear.test", None)
        async with net.observed(mx_auth=net.everything()) as remote:
            for name in ("dane", "sts", "clear"):
                await send(remote, f"x@{name}.test")
            await send(remote, "x@clear.test", requiretls=True)
    for policy in ("dane", "mtasts", "local_policy", "requiretls"):
        assert net.count("policy_refusals", policy=policy) == 1
    refused = {event.refusal.policy: event for event in net.happened(events.CandidateRefused)}
    assert (refused["mtasts"].mx, refused["mtasts"].address) == ("mx.sts.test", None)
    assert refused["dane"].address == net.mx["dane.test"].address
    # The log has the code of the outcome, which REQUIRETLS makes permanent.
    by_code = [(event.next_hop.ascii, event.refusal.code) for event in net.happened(events.CandidateRefused)]
    assert by_code == [("dane.test", 451), ("sts.test", 451), ("clear.test", 451), ("clear.test", 550)]
    assert net.count("outcomes", status="deferred") == 3
    assert net.count("outcomes", status="failed") == 1


async def test_fallbacks_and_testing_misses_are_told() -> None:
    async with Observed() as net:
        await net.add("broken.test", script=MXScript(tls=MXTLS(fault=TLSFault.ALERT)))
        net.publish("broken.test", "testing", "mx.elsewhere.test")
        async with net.observed(mx_auth=net.everything()[:3]) as remote:
            await send(remote, "x@broken.test")
    fell = net.only(events.FellBackToClear)
    assert (fell.mx, "TLS handshake with mx.broken.test failed" in fell.reason) == ("mx.broken.test", True)
    assert net.count("fallbacks") == 1
    host, channel = net.happened(events.TestingPolicyMissed)
    assert (host.address, "not among the MX hosts" in host.reason) == (None, True)
    assert (channel.address, "TLS level none" in channel.reason) == (net.mx["broken.test"].address, True)
    assert net.count("testing_misses") == 2


async def test_lookups_and_fetches_that_failed_are_told() -> None:
    async with Observed() as net:
        await net.add("mx.test")
        net.set("mx.test", Fault.SERVFAIL)
        await net.add("address.test")
        net.set("mx.address.test", Fault.SERVFAIL)
        await net.add("tlsa.test", mx_signed=True, host_signed=True, tlsa=Fault.SERVFAIL)
        await net.add("record.test")
        net.set("_mta-sts.record.test", Fault.SERVFAIL)
        await net.add("policy.test")
        net.publish("policy.test", "enforce", host=PolicyHost(status=404))
        async with net.observed(mx_auth=net.everything()) as remote:
            for name in ("mx", "address", "tlsa", "record", "policy"):
                await send(remote, f"x@{name}.test")
    assert [event.record_type for event in net.happened(events.LookupDidFail)] == ["MX", "A, AAAA", "TLSA"]
    for kind in ("MX", "A, AAAA", "TLSA"):
        assert net.count("failed_lookups", type=kind) == 1
    assert net.count("failed_lookups", type="TXT") >= 1
    assert net.only(mtasts_events.PolicyFetchFailed).failure == "status"
    assert net.count("policy_fetches", result="status") == 1


async def test_every_event_has_a_line_in_the_log() -> None:
    async with Observed() as net:
        await net.add("good.test")
        net.publish("good.test", "testing", "mx.other.test")
        async with net.observed(mx_auth=net.everything()) as remote:
            await send(remote, "x@good.test")
    names = [describe(event).name for event in net.events]
    assert {"policy_fetched", "testing_policy_missed", "connection_judged", "delivered"} <= set(names)
    assert net.count("events", event="connection_judged") == 1
