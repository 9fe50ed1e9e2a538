"""PLAIN and LOGIN, both sides against each other and against literal exchanges (RFC 4616, RFC 4954 4)."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrider.errors import InvalidValue
from mailrider.smtp.sasl import SERVERS, Challenge, ClientExchange, Credentials, LoginServer, PlainServer

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=60)


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def converse(credentials: Credentials, mechanism: str) -> Credentials:
    """What the server learns when both sides talk to each other."""
    client = ClientExchange(credentials, frozenset({mechanism}))
    server = SERVERS[mechanism]()
    step = server.take(client.begin().initial_response)
    while isinstance(step, Challenge):
        step = server.take(client.answer().response)
    return step


@given(TEXT, TEXT, st.sampled_from(sorted(SERVERS)))
def test_the_server_learns_what_the_client_knows(user: str, password: str, mechanism: str) -> None:
    assert converse(Credentials(user, password), mechanism) == Credentials(user, password)


def test_plain_is_preferred() -> None:
    assert ClientExchange(Credentials("u", "p"), frozenset({"LOGIN", "PLAIN", "CRAM-MD5"})).mechanism == "PLAIN"


def test_behind_the_best_mechanism_comes_the_next() -> None:
    first = ClientExchange(Credentials("u", "p"), frozenset({"LOGIN", "PLAIN", "CRAM-MD5"}))
    assert first.has_another
    assert first.another().mechanism == "LOGIN"
    assert not first.another().has_another


def test_no_common_mechanism_is_said_with_what_the_server_offers() -> None:
    with pytest.raises(InvalidValue, match="offers CRAM-MD5"):
        ClientExchange(Credentials("u", "p"), frozenset({"CRAM-MD5"}))
    with pytest.raises(InvalidValue, match="offers none"):
        ClientExchange(Credentials("u", "p"), frozenset())


def test_plain_asks_for_what_did_not_come_with_auth() -> None:
    server = PlainServer()
    assert server.take(None) == Challenge("")
    assert server.take(b64("boss\0user\0secret")) == Credentials("user", "secret", "boss")


# https://github.com/pear/Net_SMTP/pull/70
@pytest.mark.parametrize(("length", "is_initial"), [(369, True), (370, False), (1000, False)])
def test_what_does_not_fit_into_the_command_is_sent_behind_a_334(length: int, is_initial: bool) -> None:
    credentials = Credentials("u", "p" * length)
    command = ClientExchange(credentials, frozenset({"PLAIN"})).begin()
    assert len(command.encode()) <= 512
    assert (command.initial_response is not None) == is_initial
    assert converse(credentials, "PLAIN") == credentials


def test_login_asks_for_name_and_password() -> None:
    server = LoginServer()
    assert server.take(None) == Challenge(b64("Username:"))
    assert server.take(b64("user")) == Challenge(b64("Password:"))
    assert server.take(b64("secret")) == Credentials("user", "secret")


@pytest.mark.parametrize(
    "response", ["no base64", "====", b64("two\0parts"), b64("a\0b\0c\0d"), "=", b64("\0\0p"), "/w=="]
)
def test_what_is_no_response_is_refused(response: str) -> None:
    with pytest.raises(InvalidValue):
        PlainServer().take(response)


def test_fields_have_a_limit() -> None:
    with pytest.raises(InvalidValue):
        PlainServer().take(b64("\0" + "u" * 2000 + "\0p"))


def test_the_password_stays_out_of_repr() -> None:
    assert "secret" not in repr(Credentials("user", "secret"))


@pytest.mark.parametrize(("mechanism", "challenges"), [("PLAIN", 1), ("LOGIN", 2)])
def test_a_client_that_is_asked_for_more_gives_up(mechanism: str, challenges: int) -> None:
    client = ClientExchange(Credentials("u", "p"), frozenset({mechanism}))
    client.begin()
    for _ in range(challenges):
        client.answer()
    assert client.answer().response == "*"
