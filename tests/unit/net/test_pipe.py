"""Words for OpenSSL's errors, and names for SNI."""

from __future__ import annotations

import ssl

import pytest

from mailrider.net.errors import TLSFailed, TLSFailureKind
from mailrider.net.pipe import TLSPipe, chain_as_sent, client_name
from mailrider.net.tls_errors import explain, remote_alert
from tests.support.channels import HOST, client_context, issued, server_context


def error(reason: str | None, text: str = "[SSL] unknown error (_ssl.c:1006)") -> ssl.SSLError:
    made = ssl.SSLError(1, text)
    made.reason = reason  # type: ignore[assignment]
    return made


@pytest.mark.parametrize(
    ("reason", "kind", "words"),
    [
        ("SSLV3_ALERT_HANDSHAKE_FAILURE", "alert", 'the peer sent the alert "handshake failure"'),
        ("TLSV1_ALERT_PROTOCOL_VERSION", "alert", 'the peer sent the alert "protocol version"'),
        ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "alert", 'the peer sent the alert "certificate required"'),
        ("TLSV1_UNRECOGNIZED_NAME", "alert", 'the peer sent the alert "unrecognized name"'),
        ("TLSV1_UNSUPPORTED_EXTENSION", "alert", 'the peer sent the alert "unsupported extension"'),
        ("WRONG_VERSION_NUMBER", "protocol", "the peer does not speak TLS, or none of its versions that we accept"),
        ("DECRYPTION_FAILED_OR_BAD_RECORD_MAC", "protocol", "decryption failed or bad record mac"),
        (None, "protocol", "[SSL] unknown error (_ssl.c:1006)"),
    ],
)
def test_errors_say_whose_doing_they_are_in_words(reason: str | None, kind: str, words: str) -> None:
    assert explain(error(reason)) == (TLSFailureKind(kind), words)


@pytest.mark.parametrize(
    ("reason", "name"),
    [
        ("SSLV3_ALERT_HANDSHAKE_FAILURE", "handshake_failure"),
        ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "certificate_required"),
        ("TLSV1_UNRECOGNIZED_NAME", "unrecognized_name"),
        ("WRONG_VERSION_NUMBER", ""),
        (None, ""),
    ],
)
def test_an_alert_of_the_peer_has_the_name_of_the_rfc(reason: str | None, name: str) -> None:
    assert remote_alert(error(reason)) == name


@pytest.mark.parametrize(
    ("heard", "alert"),
    [
        (b"250 not TLS at all\r\n", ""),
        (b"\x16\x03\x03\x00\x04\x02\x00\x00\x00", "decode_error"),
        (b"\x17\x03\x03\x00\x01x", "unexpected_message"),
    ],
)
def test_an_alert_that_we_send_is_told_and_sent(heard: bytes, alert: str) -> None:
    pipe = TLSPipe(client_context(), server_side=False, sni=HOST, peer="server")
    assert not pipe.shake_hands()
    pipe.take()
    pipe.feed(heard)
    with pytest.raises(TLSFailed) as caught:
        pipe.shake_hands()
    assert (caught.value.kind, caught.value.alert) == (TLSFailureKind.PROTOCOL, alert)
    assert bool(pipe.take()) is bool(alert)


@pytest.mark.parametrize("closed", [ssl.SSLZeroReturnError, ssl.SSLEOFError])
def test_a_close_is_no_protocol_error(closed: type[ssl.SSLError]) -> None:
    assert explain(closed(6, "closed"))[0] is TLSFailureKind.CLOSED


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("mx.example.org", "mx.example.org"),
        ("mx.example.org.", "mx.example.org"),
        ("xn--nxasmq6b.example", "xn--nxasmq6b.example"),
        ("_mta.example.org", "_mta.example.org"),
        ("192.0.2.1", None),
        ("2001:db8::1", None),
        ("", None),
        (None, None),
    ],
)
def test_only_host_names_are_asked_for(given: str | None, sent: str | None) -> None:
    assert client_name(given) == sent


def connected() -> tuple[TLSPipe, TLSPipe]:
    client = TLSPipe(client_context(), server_side=False, sni=HOST, peer="server")
    server = TLSPipe(server_context(), server_side=True, sni=None, peer="client")
    while not (client.shake_hands() and server.shake_hands()):
        server.feed(client.take())
        server.shake_hands()
        client.feed(server.take())
    return client, server


def test_both_ends_may_close_in_any_order() -> None:
    client, server = connected()
    server.feed(client.close())
    assert server.read() is None
    assert server.read() in (b"", None)
    client.feed(server.close())
    assert client.read() in (b"", None)
    assert client.close() == b""


def test_closing_before_the_handshake_sends_nothing_harmful() -> None:
    pipe = TLSPipe(client_context(), server_side=False, sni=HOST, peer="server")
    assert pipe.close() == b""


def test_the_chain_comes_from_the_public_method_where_there_is_one() -> None:
    class Newer:  # Python 3.13
        def get_unverified_chain(self) -> list[bytes]:
            return [b"leaf", b"issuer"]

    class Older:  # before
        class _sslobj:
            @staticmethod
            def get_unverified_chain() -> None:
                return None

    assert chain_as_sent(Newer()) == (b"leaf", b"issuer")  # type: ignore[arg-type]
    assert chain_as_sent(Older()) == ()  # type: ignore[arg-type]
    client, _ = connected()
    assert client.evidence().chain == issued().chain_der
