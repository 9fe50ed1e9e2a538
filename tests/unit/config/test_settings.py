"""Settings as a program makes them, without any configuration file."""

from __future__ import annotations

from datetime import timedelta
from ipaddress import ip_address
from typing import Any

import pytest

from mailrider.delivery.settings import Concurrency, EightBit, LimitsSettings, Rate, RemoteSettings
from mailrider.dns.settings import DNSSettings
from mailrider.model.domain import Domain
from mailrider.model.security import MXLevel, TLSLevel
from mailrider.net.settings import TLSClientSettings, TLSVersion
from mailrider.policy.settings import DNSSEC, MTASTS, Dane, LocalPolicy, MXAuth, STSCache
from mailrider.settings.directive import InvalidSetting


def test_the_example_of_the_library() -> None:
    settings = RemoteSettings(hostname="mx.example.org", mx_auth=[Dane(), MTASTS(cache="ram"), LocalPolicy()])
    assert settings.hostname == Domain("mx.example.org")
    assert settings.mx_auth == MXAuth(dane=Dane(), mtasts=MTASTS(cache=STSCache.RAM), local_policy=LocalPolicy())


def test_durations_may_be_seconds_timedeltas_or_words() -> None:
    minute = timedelta(minutes=1)
    for given in (60, 60.0, minute, "1m", "60s"):
        assert RemoteSettings(connect_timeout=given).connect_timeout == minute


def test_levels_may_be_words_or_members() -> None:
    words = LocalPolicy(min_tls_level="authenticated", min_mx_level="dnssec")
    assert words == LocalPolicy(min_tls_level=TLSLevel.AUTHENTICATED, min_mx_level=MXLevel.DNSSEC)
    assert LocalPolicy() == LocalPolicy(min_tls_level="encrypted", min_mx_level="none")
    assert LocalPolicy.off() == LocalPolicy(min_tls_level="none", min_mx_level="none")


def test_policies_are_evaluated_in_their_own_order() -> None:
    given = (LocalPolicy(), DNSSEC(), Dane(), MTASTS())
    assert MXAuth.of(given).policies == (MTASTS(), Dane(), DNSSEC(), LocalPolicy())
    assert MXAuth.of([Dane()]).policies == (Dane(),)
    assert MXAuth.of([]).policies == ()
    assert MXAuth.of(made := MXAuth()) is made


@pytest.mark.parametrize(
    ("cls", "given", "message"),
    [
        (RemoteSettings, {"mx_auth": [Dane(), Dane()]}, "mx_auth: dane is there twice"),
        (RemoteSettings, {"mx_auth": ["dane"]}, 'mx_auth: expected policies, not "dane"'),
        (RemoteSettings, {"mx_auth": Dane()}, "mx_auth: expected a list of policies, such as [Dane()], not Dane()"),
        (RemoteSettings, {"mx_auth": "dane"}, 'mx_auth: expected a list of policies, such as [Dane()], not "dane"'),
        (RemoteSettings, {"mx_auth": 5}, "mx_auth: expected a list of policies, such as [Dane()], not 5"),
        (RemoteSettings, {"hostname": "not a name"}, "hostname: expected a domain name such as mx.example.org,"),
        (RemoteSettings, {"limits": {"all": 5}}, "limits: expected Limits(...), not {'all': 5}"),
        (RemoteSettings, {"eight_bit": "mend"}, 'eight_bit: expected send or strict, not "mend"'),
        (RemoteSettings, {"connect_timeout": -1}, "connect_timeout: expected a duration longer than 0"),
        (LocalPolicy, {"min_tls_level": "high"}, "min_tls_level: expected none, encrypted or authenticated"),
        (LocalPolicy, {"min_mx_level": 2}, "min_mx_level: expected none, mtasts or dnssec, not 2"),
        (MTASTS, {"cache": "disk"}, 'cache: expected fs or ram, not "disk"'),
        (DNSSettings, {"server": ["resolver"]}, "server: expected an IP address"),
        (DNSSettings, {"server": [5]}, "server: expected an IP address"),
        (DNSSettings, {"server": 5}, "server: expected an IP address"),
        (DNSSettings, {"server": "127.0.0.54 trust"}, "server: 127.0.0.54 cannot be trusted"),
        (DNSSettings, {"server": "recursive"}, "server: recursive needs libunbound: say validate yes (or auto)"),
        (DNSSettings, {"server": "tls://192.0.2.1#dns.test"}, "server: tls://192.0.2.1:853#dns.test needs libunbound"),
        (
            DNSSettings,
            {"server": ["recursive", "127.0.0.1"], "validate": "yes"},
            "server: recursive stands alone: other servers are not asked then",
        ),
        (
            DNSSettings,
            {"server": "192.0.2.2 tls://192.0.2.1#dns.test", "validate": "yes"},
            "server: tls://192.0.2.1:853#dns.test beside a plain server",
        ),
        (DNSSettings, {"server": "recursive trust"}, "server: recursive needs no trust"),
        (DNSSettings, {"validate": "maybe"}, 'validate: expected no, auto or yes, not "maybe"'),
        (DNSSettings, {"insecure": ["a b"]}, "insecure: expected a domain name"),
        (DNSSettings, {"attempts": 0}, "attempts: expected a whole number from 1 to 20, not 0"),
        (TLSClientSettings, {"protocols": ("tls1.3", "tls1.2")}, "protocols: expected the oldest and the newest"),
        (TLSClientSettings, {"protocols": ()}, "protocols: expected the oldest and the newest"),
        (TLSClientSettings, {"protocols": 5}, "protocols: expected the oldest and the newest"),
        (TLSClientSettings, {"protocols": "tls1.0 tls1.1 tls1.2"}, "protocols: expected the oldest and the newest"),
        (TLSClientSettings, {"ciphers": [5]}, "ciphers: expected a cipher name"),
        (TLSClientSettings, {"cert": "/a"}, "cert: cert needs key beside it"),
        (LimitsSettings, {"all": ["fast"]}, "all: expected rate BURST [PERIOD], such as rate 20 1s,"),
        (LimitsSettings, {"all": [5]}, "all: expected rate BURST [PERIOD], such as rate 20 1s,"),
    ],
)
def test_nonsense_is_refused_at_once(cls: type, given: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        cls(**given)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("given", "made", "written"),
    [
        ("rate 20", Rate(20), "rate 20 1s"),
        ("rate 20 1m", Rate(20, timedelta(minutes=1)), "rate 20 1m"),
        ("rate  20  1h 5m", Rate(20, timedelta(minutes=65)), "rate 20 1h5m"),
        ("concurrency 5", Concurrency(5), "concurrency 5"),
    ],
)
def test_limits_as_words(given: str, made: Rate | Concurrency, written: str) -> None:
    assert LimitsSettings(all=[given]).all == (made,)
    assert LimitsSettings(all=[made]).all == (made,)
    assert str(made) == written


@pytest.mark.parametrize("given", ["rate", "rate x", "rate -1", "rate 1s", "concurrency 5 6", "concurrency", "5", ""])
def test_limits_that_are_none(given: str) -> None:
    with pytest.raises(InvalidSetting):
        LimitsSettings(destination=[given])


@pytest.mark.parametrize(
    ("made", "given"), [(Rate, (0,)), (Rate, (1, timedelta(0))), (Concurrency, (0,)), (Rate, (1.5,))]
)
def test_limits_validate_themselves(made: type, given: tuple[object, ...]) -> None:
    with pytest.raises(ValueError, match="expected"):
        made(*given)


def test_one_protocol_version_is_the_oldest() -> None:
    assert TLSClientSettings(protocols="tls1.0").protocols == (TLSVersion.TLS1_0, TLSVersion.TLS1_3)
    assert TLSClientSettings(protocols=[TLSVersion.TLS1_3]).protocols == (TLSVersion.TLS1_3, TLSVersion.TLS1_3)
    assert max(TLSVersion) is TLSVersion.TLS1_3
    assert RemoteSettings(eight_bit=EightBit.STRICT).eight_bit is EightBit.STRICT


PROHIBITED = {
    "loopback": ["127.0.0.1", "127.255.255.255", "::1"],
    "unspecified": ["0.0.0.0", "::"],
    "link-local": ["169.254.0.1", "fe80::1", "fe80::1%eth0", "febf::1"],
    "multicast": ["224.0.0.1", "239.255.255.255", "ff02::1"],
    "IPv4-mapped": ["::ffff:127.0.0.1", "::ffff:0.0.0.0", "::ffff:169.254.1.1", "::ffff:224.0.0.1"],
}


@pytest.mark.parametrize("address", [each for addresses in PROHIBITED.values() for each in addresses])
def test_addresses_that_are_never_connected_to(address: str) -> None:
    settings = RemoteSettings()
    assert settings.prohibits(ip_address(address))
    assert any(ip_address(address) in network for network in settings.prohibited_addresses)
    assert not RemoteSettings(prohibited_addresses="none").prohibits(ip_address(address))


@pytest.mark.parametrize("address", ["192.0.2.1", "10.0.0.1", "2001:db8::1", "fc00::1", "::ffff:192.0.2.1", "::1:0:0"])
def test_addresses_that_may_be_connected_to(address: str) -> None:
    assert not RemoteSettings().prohibits(ip_address(address))


@pytest.mark.parametrize("form", ["::ffff:{}", "::{}", "64:ff9b::{}"])
def test_a_network_covers_the_ipv6_addresses_that_its_own_stand_in(form: str) -> None:
    settings = RemoteSettings(prohibited_addresses=["10.0.0.0/8"])
    assert settings.prohibits(ip_address(form.format("10.1.2.3")))
    assert not settings.prohibits(ip_address(form.format("11.1.2.3")))
