"""`tls_client { }`: each directive, seen from both ends of a connection."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

import mailrider
from mailrider.lab.ca import CA, Kind
from mailrider.lab.mx_script import MXTLS, MXScript
from mailrider.x509.describe import describe_chain
from tests.flow.delivery.internet import internet, outcome, stages

if TYPE_CHECKING:
    from pathlib import Path

    from mailrider.app.submission import Result

HOST = "mx0.a.test"
CA_ = CA()
ENCRYPTED = mailrider.LocalPolicy(min_tls_level="encrypted")


async def send(tls: MXTLS, *, demand: bool = True, **settings: Any) -> Result:
    """A delivery to a server with that TLS, with those settings; with `demand` it never falls back."""
    directives: dict[str, Any] = {"tls_client": mailrider.TLSClientSettings(**settings)}
    if demand:
        directives["mx_auth"] = [ENCRYPTED]
    async with internet({"a.test": [MXScript(tls=tls)]}, directives=directives) as net:
        return await net.send_one("x@a.test")


def certified(**more: Any) -> MXTLS:
    return MXTLS(CA_.issue([HOST]), **more)


# Trust ----------------------------------------------------------------------------------------------------------------


async def test_with_root_ca_a_certificate_of_that_authority_authenticates(tmp_path: Path) -> None:
    result = await send(certified(), root_ca=[CA_.write_root(tmp_path)])
    assert (result.security.tls_level, result.security.authenticated_by) == (mailrider.TLSLevel.AUTHENTICATED, "pkix")


async def test_the_systems_roots_do_not_know_the_lab() -> None:
    result = await send(certified())
    assert (result.status, result.security.tls_level) == ("delivered", mailrider.TLSLevel.ENCRYPTED)


GOOD = {Kind.VALID, Kind.RSA, Kind.WILDCARD, Kind.NAME_CONSTRAINED}


@pytest.mark.parametrize("kind", Kind)
async def test_a_bad_certificate_encrypts_and_authenticates_nobody(kind: Kind, tmp_path: Path) -> None:
    result = await send(MXTLS(CA_.issue([HOST], kind)), root_ca=[CA_.write_root(tmp_path)])
    expected = mailrider.TLSLevel.AUTHENTICATED if kind in GOOD else mailrider.TLSLevel.ENCRYPTED
    assert (result.status, result.security.tls_level) == ("delivered", expected)


async def test_the_name_asked_for_is_the_mx_host() -> None:
    async with internet({"a.test": [MXScript(tls=certified())]}) as net:
        await net.send_one("x@a.test")
        assert net.mx("a.test").connections[0].sni == HOST


# Versions -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("protocols", "server", "version"),
    [
        (["tls1.2", "tls1.3"], ("tls1.2", "tls1.3"), "TLSv1.3"),
        (["tls1.2", "tls1.2"], ("tls1.2", "tls1.3"), "TLSv1.2"),
        (["tls1.2"], ("tls1.2", "tls1.2"), "TLSv1.2"),
        (["tls1.3"], ("tls1.2", "tls1.3"), "TLSv1.3"),
        (["tls1.0", "tls1.2"], ("tls1.0", "tls1.0"), "TLSv1"),
        (["tls1.0"], ("tls1.1", "tls1.1"), "TLSv1.1"),
        (["tls1.0"], ("tls1.2", "tls1.3"), "TLSv1.3"),
    ],
)
async def test_the_best_version_that_both_speak_is_spoken(
    protocols: list[str], server: tuple[str, str], version: str
) -> None:
    result = await send(certified(protocols=server), protocols=protocols)
    assert (result.status, result.security.tls_version) == ("delivered", version)


@pytest.mark.parametrize("old", ["tls1.0", "tls1.1"])
async def test_by_default_an_old_version_is_no_tls(old: str) -> None:
    demanded = await send(certified(protocols=(old, old)))
    assert (outcome(demanded), stages(demanded)) == (("deferred", 451, "4.7.5"), ["tls"])
    opportunistic = await send(certified(protocols=(old, old)), demand=False)
    assert (opportunistic.status, stages(opportunistic)) == ("delivered", ["fallback", "delivered"])
    assert opportunistic.security.tls_level == mailrider.TLSLevel.NONE


async def test_a_server_that_is_too_new_is_no_tls_either() -> None:
    result = await send(certified(protocols=("tls1.3", "tls1.3")), protocols=["tls1.2", "tls1.2"])
    assert outcome(result) == ("deferred", 451, "4.7.5")


# Ciphers and curves ---------------------------------------------------------------------------------------------------

A, B = "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305"


async def test_the_ciphers_are_those_given() -> None:
    for cipher in (A, B):
        result = await send(certified(protocols=("tls1.2", "tls1.2")), ciphers=[cipher])
        assert (result.status, result.security.cipher) == ("delivered", cipher)


async def test_without_a_cipher_in_common_there_is_no_tls() -> None:
    result = await send(certified(protocols=("tls1.2", "tls1.2"), ciphers=(A,)), ciphers=[B])
    assert outcome(result) == ("deferred", 451, "4.7.5")


async def test_a_curve_is_the_one_given() -> None:
    for curve in ("x25519", "p256", "p384", "p521", "x448"):
        assert (await send(certified(), curves=[curve])).status == "delivered"


# A certificate of our own ---------------------------------------------------------------------------------------------


async def test_a_server_that_demands_a_certificate_gets_ours(tmp_path: Path) -> None:
    tls = certified(client_ca=CA_.write_root(tmp_path))
    cert, key = CA_.issue(["client.test"], Kind.CLIENT).write(tmp_path, "client")
    ours = mailrider.TLSClientSettings(cert=cert, key=key)
    async with internet({"a.test": [MXScript(tls=tls)]}, directives={"tls_client": ours}) as net:
        result = await net.send_one("x@a.test")
        shown = net.mx("a.test").connections[0].tls
    assert (result.status, result.security.tls_level) == ("delivered", mailrider.TLSLevel.ENCRYPTED)
    assert shown is not None
    assert describe_chain(shown.chain)[0].names == ("client.test",)


# What cannot be is an error when the target is opened, and says what could --------------------------------------------

BEFORE_315 = pytest.mark.skipif(sys.version_info >= (3, 15), reason="this Python can")

IMPOSSIBLE = [
    pytest.param({"curves": ["x25519", "p256"]}, "'x25519 p256' needs Python 3.15", marks=BEFORE_315, id="two curves"),
    pytest.param(
        {"ciphers": ["TLS_AES_256_GCM_SHA384"]},
        "'TLS_AES_256_GCM_SHA384' needs Python 3.15",
        marks=BEFORE_315,
        id="ciphers of TLS 1.3",
    ),
    pytest.param({"ciphers": ["ECDHE-ECDSA-AES256-GCM-SHA38"]}, f"did you mean '{A}'", id="an unknown cipher"),
    pytest.param({"root_ca": ["/nowhere/root.pem"]}, "/nowhere/root.pem", id="no roots"),
    pytest.param({"cert": "/nowhere/a.pem", "key": "/nowhere/b.pem"}, "/nowhere/a.pem", id="no certificate"),
]


@pytest.mark.parametrize(("settings", "words"), IMPOSSIBLE)
async def test_what_cannot_be_is_an_error_before_any_connection(settings: dict[str, Any], words: str) -> None:
    remote = mailrider.Remote(hostname="client.test", tls_client=mailrider.TLSClientSettings(**settings))
    with pytest.raises(mailrider.ConfigError, match=words):
        await remote.__aenter__()


def test_a_certificate_without_its_key_is_an_error_at_once() -> None:
    with pytest.raises(ValueError, match="cert needs key beside it"):
        mailrider.TLSClientSettings(cert="/some/where.pem")
