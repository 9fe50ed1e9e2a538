"""Contexts: every directive of `tls_client` does what it says, or is an error that says why not."""

from __future__ import annotations

import asyncio
import platform
import ssl
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from mailrider.errors import ConfigError
from mailrider.lab.ca import Kind
from mailrider.net import tls as tls_module
from mailrider.net.errors import TLSFailed
from mailrider.net.pipe import TLSPipe
from mailrider.net.settings import Curve, TLSClientSettings, TLSVersion
from mailrider.net.tls import make_client_context, make_server_context
from mailrider.testing.channels import memory_pair
from mailrider.testing.clock import FakeClock
from tests.support.channels import HOST, Recorder, files, issued, root_file, server_context

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mailrider.model.security import TLSEvidence

V10, V11, V12, V13 = TLSVersion
before_3_15 = pytest.mark.skipif(sys.version_info >= (3, 15), reason="3.15 can")


async def shake(client: ssl.SSLContext, server: ssl.SSLContext) -> tuple[TLSEvidence, TLSEvidence]:
    near, far = memory_pair(FakeClock())
    near.receiver, far.receiver = Recorder(), Recorder()
    try:
        async with asyncio.TaskGroup() as group:
            ours = group.create_task(near.start_tls_client(client, HOST))
            theirs = group.create_task(far.start_tls_server(server))
        return ours.result(), theirs.result()
    finally:
        await asyncio.gather(near.close(), far.close())


async def test_by_default_tls_1_2_and_1_3_are_spoken() -> None:
    client = make_client_context(TLSClientSettings())
    assert (await shake(client, server_context()))[0].version == "TLSv1.3"
    assert (await shake(client, server_context(protocols=("tls1.2", "tls1.2"))))[0].version == "TLSv1.2"
    with pytest.raises(ExceptionGroup) as caught:
        await shake(client, server_context(protocols=("tls1.0", "tls1.1")))
    assert caught.group_contains(TLSFailed)


@pytest.mark.parametrize("version", [V10, V11, V12, V13])
async def test_each_version_that_is_asked_for_works(version: TLSVersion) -> None:
    client = make_client_context(TLSClientSettings(protocols=(version, version)))
    evidence, _ = await shake(client, server_context(protocols=(version, version)))
    assert evidence.version == "TLSv" + version.removeprefix("tls").removesuffix(".0")
    assert evidence.chain == issued().chain_der


async def test_tls_1_0_is_spoken_only_where_the_server_has_nothing_better() -> None:
    client = make_client_context(TLSClientSettings(protocols=(V10, V13)))
    assert (await shake(client, server_context(protocols=("tls1.0", "tls1.0"))))[0].version == "TLSv1"
    assert (await shake(client, server_context()))[0].version == "TLSv1.3"


@pytest.mark.parametrize("kind", [Kind.VALID, Kind.RSA, Kind.WEAK])
async def test_tls_1_0_works_with_every_kind_of_key(kind: Kind) -> None:
    client = make_client_context(TLSClientSettings(protocols=(V10, V10)))
    evidence, _ = await shake(client, server_context(kind, ("tls1.0", "tls1.0")))
    assert evidence.version == "TLSv1"


async def test_a_server_with_rsa_key_exchange_only_is_not_left_in_clear() -> None:
    server = make_server_context(*files(Kind.RSA), protocols=("tls1.2", "tls1.2"), ciphers=["AES128-SHA"])
    evidence, _ = await shake(make_client_context(TLSClientSettings()), server)
    assert evidence.cipher == "AES128-SHA"


async def test_ciphers_of_tls_1_2_are_offered_as_given() -> None:
    wanted = "ECDHE-ECDSA-AES128-GCM-SHA256"
    client = make_client_context(TLSClientSettings(protocols=(V12, V12), ciphers=(wanted,)))
    assert (await shake(client, server_context()))[0].cipher == wanted
    other = make_server_context(*files(), ciphers=["ECDHE-ECDSA-AES256-GCM-SHA384"])
    with pytest.raises(ExceptionGroup):
        await shake(client, other)


def test_cipher_strings_of_openssl_are_understood() -> None:
    settings = TLSClientSettings(ciphers=("HIGH", "!aNULL", "@SECLEVEL=2"))
    context = make_client_context(settings)
    assert context.security_level == 2
    assert not any("ADH" in cipher["name"] for cipher in context.get_ciphers())


def test_an_unknown_cipher_is_an_error_even_among_known_ones() -> None:
    settings = TLSClientSettings(ciphers=("ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-GCM-SHA25"))
    with pytest.raises(ConfigError, match="did you mean 'ECDHE-ECDSA-AES128-GCM-SHA256'") as caught:
        make_client_context(settings)
    assert str(caught.value).startswith("ciphers: ")


@before_3_15
def test_ciphers_of_tls_1_3_say_which_python_could() -> None:
    settings = TLSClientSettings(ciphers=("TLS_AES_128_GCM_SHA256",))
    with pytest.raises(ConfigError, match=r"ciphers: 'TLS_AES_128_GCM_SHA256' needs Python 3\.15 or newer"):
        make_client_context(settings)


def can_set(curve: Curve) -> bool:
    """What this Python can do: Debian 12's (3.11.2) knows neither X25519 nor X448 here."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).set_ecdh_curve(tls_module.CURVES[curve])
    except (ssl.SSLError, ValueError):
        return False
    return True


@pytest.mark.parametrize("curve", Curve)
async def test_one_curve_is_offered_alone_or_refused_if_python_cannot(curve: Curve) -> None:
    settings = TLSClientSettings(curves=(curve,))
    if not can_set(curve):
        with pytest.raises(ConfigError, match=rf"^curves: Python 3\.\S+ cannot ask OpenSSL for '{curve}', only for"):
            make_client_context(settings)
        return
    client = make_client_context(settings)
    assert (await shake(client, server_context()))[0].version == "TLSv1.3"
    other = make_server_context(*files())
    other.set_ecdh_curve("secp384r1" if curve is not Curve.P384 else "secp521r1")
    with pytest.raises(ExceptionGroup):
        await shake(client, other)


def python_with(monkeypatch: pytest.MonkeyPatch, context: type[ssl.SSLContext]) -> None:
    """Another Python's `ssl`."""
    monkeypatch.setattr(tls_module, "ssl", SimpleNamespace(**{**vars(ssl), "SSLContext": context}))


def test_a_curve_that_python_cannot_set_names_those_that_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    class Debian12(ssl.SSLContext):
        def set_ecdh_curve(self, name: str, /) -> None:
            if name in ("X25519", "X448"):
                raise ssl.SSLError("[EC: UNKNOWN_GROUP] unknown group")
            super().set_ecdh_curve(name)

    python_with(monkeypatch, Debian12)
    with pytest.raises(ConfigError) as caught:
        make_client_context(TLSClientSettings(curves=(Curve.X25519,)))
    assert str(caught.value) == (
        f"curves: Python {platform.python_version()} cannot ask OpenSSL for 'x25519', only for one of p256, p384, "
        "p521; name one of these, or none for OpenSSL's own list"
    )
    make_client_context(TLSClientSettings(curves=(Curve.P256,)))


def test_curves_that_openssl_does_not_have_are_named_as_they_were_given(monkeypatch: pytest.MonkeyPatch) -> None:
    class Newer(ssl.SSLContext):
        def set_groups(self, _: str, /) -> None:
            raise ssl.SSLError("no such group")

    python_with(monkeypatch, Newer)
    with pytest.raises(ConfigError, match=r"^curves: OpenSSL does not take 'x448 p256'$"):
        make_client_context(TLSClientSettings(curves=(Curve.X448, Curve.P256)))


@before_3_15
def test_several_curves_say_which_python_could() -> None:
    settings = TLSClientSettings(curves=(Curve.X25519, Curve.P256))
    with pytest.raises(
        ConfigError, match=r"curves: 'x25519 p256' needs Python 3\.15 or newer, this is 3\.\d+; name one"
    ):
        make_client_context(settings)


def test_python_3_15_can_do_both(monkeypatch: pytest.MonkeyPatch) -> None:
    class Newer(ssl.SSLContext):
        groups = suites = ""

        def set_groups(self, groups: str, /) -> None:
            self.groups = groups

        def set_ciphersuites(self, ciphersuites: str, /) -> None:
            self.suites = ciphersuites

    python_with(monkeypatch, Newer)
    settings = TLSClientSettings(
        curves=(Curve.X25519, Curve.P256),
        ciphers=("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "HIGH"),
    )
    context = make_client_context(settings)
    assert isinstance(context, Newer)
    assert context.groups == "X25519:prime256v1"
    assert context.suites == "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384"


def test_a_client_certificate_that_cannot_be_loaded_says_which_file(tmp_path: Path) -> None:
    cert, key = files()
    absent = tmp_path / "absent.pem"
    with pytest.raises(ConfigError, match=r"cert: .*absent\.pem cannot be read: No such file"):
        make_client_context(TLSClientSettings(cert=absent, key=key))
    with pytest.raises(ConfigError, match=r"key: .*absent\.pem cannot be read"):
        make_client_context(TLSClientSettings(cert=cert, key=absent))
    other = files(Kind.CLIENT)[1]
    with pytest.raises(ConfigError, match=r"key: \S+ is not the key of the first certificate in \S+; the server's own"):
        make_client_context(TLSClientSettings(cert=cert, key=other))


UNUSABLE_FILES: dict[str, tuple[str, Callable[[bytes], bytes], str]] = {
    "an empty certificate": ("cert", lambda _: b" \n", "it is empty"),
    "a certificate that is something else": ("cert", lambda _: b"hello", "it has no certificate in PEM"),
    "a certificate cut off": ("cert", lambda octets: octets[:300], "a certificate in it is damaged or cut off"),
    "an empty key": ("key", lambda _: b"", "it is empty"),
    "a key that is something else": ("key", lambda _: b"hello", "it has no private key in PEM"),
    "a key cut off": ("key", lambda octets: octets[:100], "the private key in it is damaged or cut off"),
}


@pytest.mark.parametrize("name", UNUSABLE_FILES)
def test_the_error_names_the_file_that_is_wrong_and_how(name: str, tmp_path: Path) -> None:
    directive, damage, fault = UNUSABLE_FILES[name]
    paths = dict(zip(("cert", "key"), files(), strict=True))
    damaged = tmp_path / "damaged.pem"
    damaged.write_bytes(damage(paths[directive].read_bytes()))
    paths[directive] = damaged
    with pytest.raises(ConfigError) as caught:
        make_server_context(paths["cert"], paths["key"])
    assert f"{directive}: {damaged} cannot be used: {fault}" in str(caught.value)
    assert "ssl" not in str(caught.value).replace(str(damaged), "").lower()


def test_what_openssl_says_of_a_certificate_stands_in_the_error_where_it_says_something() -> None:
    cert, key = files(Kind.RSA)
    with pytest.raises(ConfigError, match=r"cert: \S+ with key \S+ cannot be used: OpenSSL says 'ee key too small'"):
        make_server_context(cert, key, ciphers=("DEFAULT", "@SECLEVEL=5"))


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "it is empty"),
        (b"hello", "it has no certificate in PEM"),
        (b"-----BEGIN CERTIFICATE-----\nMII", "a certificate in it is damaged or cut off"),
    ],
)
def test_authorities_of_clients_that_cannot_be_used_say_why(content: bytes, fault: str, tmp_path: Path) -> None:
    authorities = tmp_path / "authorities.pem"
    authorities.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        make_server_context(*files(), client_ca=authorities)
    assert f"client_ca: {authorities} cannot be used: {fault}" in str(caught.value)


@before_3_15
def test_everything_that_is_wrong_with_a_tls_client_is_told_at_once(tmp_path: Path) -> None:
    absent = tmp_path / "absent.pem"
    settings = TLSClientSettings(ciphers=["NONE-SUCH"], curves=["p256", "p384"], cert=absent, key=absent)
    with pytest.raises(ConfigError) as caught:
        make_client_context(settings)
    first_words = [problem.message.split(":")[0] for problem in caught.value.problems]
    assert first_words == ["ciphers", "curves", "cert", "key"]


def test_an_encrypted_key_is_an_error_and_never_a_question_on_the_terminal(tmp_path: Path) -> None:
    cert, key = files()
    locked = tmp_path / "locked.key"
    locked.write_bytes(
        load_pem_private_key(key.read_bytes(), None).private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
        )
    )
    with pytest.raises(ConfigError, match=r"key: .*locked\.key is encrypted"):
        make_client_context(TLSClientSettings(cert=cert, key=locked))


def test_nothing_can_be_resumed_or_renegotiated() -> None:
    for context in (make_client_context(TLSClientSettings()), server_context()):
        for option in (ssl.OP_NO_TICKET, ssl.OP_NO_RENEGOTIATION, ssl.OP_NO_COMPRESSION):
            assert context.options & option
    assert server_context().num_tickets == 0


def test_the_client_leaves_judging_to_others() -> None:
    context = make_client_context(TLSClientSettings())
    assert context.verify_mode is ssl.CERT_NONE
    assert context.check_hostname is False


async def test_a_server_chooses_its_certificate_by_the_name_asked_for() -> None:
    asked: list[str | None] = []

    def choose(name: str | None) -> ssl.SSLContext | None:
        asked.append(name)
        return server_context(Kind.RSA) if name == HOST else None

    server = make_server_context(*files(), choose=choose)
    ours, theirs = await shake(make_client_context(TLSClientSettings()), server)
    assert asked == [HOST]
    assert theirs.sni == HOST
    assert ours.chain == issued(Kind.RSA).chain_der


async def test_a_server_may_demand_a_certificate() -> None:
    server = make_server_context(*files(), client_ca=root_file(), protocols=("tls1.2", "tls1.2"))
    cert, key = files(Kind.CLIENT)
    with pytest.raises(ExceptionGroup):
        await shake(make_client_context(TLSClientSettings()), server)
    _, theirs = await shake(make_client_context(TLSClientSettings(cert=cert, key=key)), server)
    assert theirs.chain[0] == issued(Kind.CLIENT).chain_der[0]


def test_authorities_that_cannot_be_read_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="client_ca: "):
        make_server_context(*files(), client_ca=tmp_path / "absent.pem")


# A server that does not know secure renegotiation (RFC 5746): a ServerHello of TLS 1.2 without any extension.
_HELLO = bytes.fromhex("0303") + bytes(32) + bytes.fromhex("00 c02f 00")
OLD_SERVER_HELLO = bytes.fromhex("16 0303 002a 02 000026") + _HELLO


@pytest.mark.parametrize("strict", [False, True], ids=["nothing demands TLS", "something demands TLS"])
def test_secure_renegotiation_is_insisted_on_only_where_tls_is_demanded(strict: bool) -> None:
    context = make_client_context(TLSClientSettings(protocols="tls1.2 tls1.2"), strict=strict)
    pipe = TLSPipe(context, server_side=False, sni="mx.test", peer="mx.test")
    assert not pipe.shake_hands()
    pipe.feed(OLD_SERVER_HELLO)
    if strict:
        with pytest.raises(TLSFailed, match="unsafe legacy renegotiation disabled"):
            pipe.shake_hands()
    else:
        assert not pipe.shake_hands(), "it waits for the certificate"


def test_one_file_with_the_system_s_roots_for_other_libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python_s, system_s = tmp_path / "python.pem", tmp_path / "system.pem"
    monkeypatch.setattr(tls_module, "default_root_paths", lambda: ((python_s,), (tmp_path,)))
    monkeypatch.setattr(tls_module, "_ROOT_FILES", (system_s,))
    assert tls_module.system_roots() == ""
    system_s.touch()
    assert tls_module.system_roots() == str(system_s)
    python_s.touch()
    assert tls_module.system_roots() == str(python_s)
