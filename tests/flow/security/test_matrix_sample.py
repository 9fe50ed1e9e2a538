"""A sample of the security matrix, end to end: each point is a domain with real DNS, HTTPS, SMTP and TLS of its own.

Every pair of values occurs in it. What must come of each point is the oracle's word (`tests.support.security_matrix`).
"""

from __future__ import annotations

from dataclasses import astuple
from itertools import combinations
from typing import TYPE_CHECKING

from mailrider.lab.ca import Kind
from mailrider.lab.mx_script import MXTLS, MXScript, TLSFault
from mailrider.lab.zones import Fault
from mailrider.model.security import MXLevel, TLSLevel
from tests.flow.security.net import MESSAGE, WAIVED, SecureNet, ee, ta, told_nothing
from tests.support.long_runs import LONG
from tests.support.security_matrix import Expected, Point, expected, sample

if TYPE_CHECKING:
    import mailrider
    from mailrider.lab.zones import RecordsLike

SIZE = 200 if LONG else 80  # a smaller sample would lack pairs; the whole matrix in memory: tests/unit/policy


async def add_point(net: SecureNet, domain: str, point: Point) -> None:
    """The domain that the point describes."""
    certificate = net.ca.issue([f"mx.{domain}"], Kind(point.cert))
    script = {
        "offered": MXScript(tls=MXTLS(certificate)),
        "not offered": MXScript(),
        "broken": MXScript(tls=MXTLS(fault=TLSFault.ALERT)),
    }[point.starttls]
    good = net.ca.issue([f"mx.{domain}"])
    tlsa: dict[str, RecordsLike | None] = {
        "none": None,
        "EE match": ee(certificate),
        "EE mismatch": f"3 1 1 {'00' * 32}",
        "TA match": ta(good),  # the same authority issued all but the self-signed ones
        "TA mismatch": f"2 0 1 {'00' * 32}",
        "unusable": "1" + ee(certificate)[1:],
        "failure": Fault.BOGUS,
    }
    await net.add(
        domain,
        script=script,
        mx_signed=point.mx_signed,
        host_signed=point.address_signed,
        tlsa=tlsa[point.tlsa],
    )
    if point.sts != "none":
        mode, _, fit = point.sts.partition(" ")
        net.publish(domain, mode, f"mx.{domain}" if fit == "match" else "mx.elsewhere.test")


async def send_point(net: SecureNet, domain: str, point: Point) -> mailrider.Result:
    """A message of that kind, from a sender with that minimum."""
    minimum = {"min_mx_level": MXLevel(point.min_mx).word, "min_tls_level": TLSLevel(point.min_tls).word}
    remote = net.remote(mx_auth=net.everything(**minimum), relaxed_requiretls=point.message != "strict REQUIRETLS")
    async with remote:
        report = await remote.send(
            WAIVED if point.message == "TLS-Required: No" else MESSAGE,
            "a@client.test",
            [f"x@{domain}"],
            requiretls="REQUIRETLS" in point.message,
        )
    return report[0]


def seen(result: mailrider.Result) -> Expected:
    code, enhanced = result.reply.code, str(result.reply.status)
    if result.status != "delivered":
        assert result.status == ("failed" if code >= 500 else "deferred")
        return Expected(code, enhanced)
    security = result.security
    return Expected(code, "2.0.0", security.mx_level.word, security.tls_level.word, security.authenticated_by or "")


def test_every_pair_of_values_is_in_the_sample() -> None:
    chosen = [astuple(point) for point in sample(SIZE)]
    sizes = [len(set(values)) for values in zip(*chosen, strict=True)]
    assert sizes == [2, 2, 7, 5, 4, 3, 3, 3, 4]
    for one, other in combinations(range(len(sizes)), 2):
        assert len({(values[one], values[other]) for values in chosen}) == sizes[one] * sizes[other]


async def test_engine_and_oracle_agree_end_to_end() -> None:
    disagreements = []
    async with SecureNet() as net:
        for number, point in enumerate(sample(SIZE)):
            domain = f"p{number}.test"
            await add_point(net, domain, point)
            result, should = seen(await send_point(net, domain, point)), expected(point)
            if result != should:
                disagreements.append(f"{point}: {result}, should be {should}")
            is_delivered = should.code == 250
            assert net.mx[domain].accepted == int(is_delivered), point
            assert is_delivered or told_nothing(net.mx[domain]), point
    assert not disagreements, "\n".join(disagreements)
