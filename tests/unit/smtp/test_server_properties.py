"""The server machine under anything that a client may write: no exception, bounded memory, one reply a command."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from mailrider.model.reply import Reply
from mailrider.smtp.capabilities import FULL_OFFER, ehlo_reply, parse_capabilities
from mailrider.smtp.commands import Auth, AuthResponse, Command
from mailrider.smtp.content import Content
from mailrider.smtp.replies import ReplyParser
from mailrider.smtp.server import ServerMachine
from mailrider.smtp.server_states import IN_TRANSACTION, Limits, ServerState
from tests.unit.smtp.server_dialogue import Application

if TYPE_CHECKING:
    from mailrider.smtp.capabilities import Capabilities

OFFER = replace(FULL_OFFER, starttls=True, auth=frozenset({"PLAIN"}), max_size=50, max_recipients=3)

WORDS = st.sampled_from(
    [
        b"EHLO c.example\r\n",
        b"HELO c.example\r\n",
        b"MAIL FROM:<a@example.org>\r\n",
        b"MAIL FROM:<> SIZE=10 BODY=8BITMIME\r\n",
        b"RCPT TO:<b@example.net>\r\n",
        b"RCPT TO:<c@example.net> NOTIFY=NEVER\r\n",
        b"DATA\r\n",
        b"Subject: x\r\n\r\nbody\r\n",
        b"..\r\n",
        b".\r\n",
        b"\r\n.\r\n",
        b"BDAT 4\r\nabcd",
        b"BDAT 4 LAST\r\nabcd",
        b"BDAT 0\r\n",
        b"BDAT 0 LAST\r\n",
        b"BDAT 10\r\n",
        b"RSET\r\n",
        b"NOOP\r\n",
        b"VRFY x\r\n",
        b"HELP\r\n",
        b"QUIT\r\n",
        b"STARTTLS\r\n",
        b"AUTH PLAIN\r\n",
        b"AGEAYg==\r\n",
        b"*\r\n",
        b"\r",
        b"\n",
        b".",
        b"\0",
        b"\xff",
        b"x" * 100,
        b"x" * 20_000,
    ]
)
SESSIONS = st.lists(WORDS | st.binary(max_size=10), max_size=30)


def answer(command: Command) -> Reply | None:
    if isinstance(command, Auth):
        return Reply.make(334, None, "")
    return Reply.make(235, None, "Ok") if isinstance(command, AuthResponse) else None


@given(SESSIONS, st.booleans(), st.booleans())
def test_nothing_that_a_client_writes_is_more_than_refused(said: list[bytes], strict: bool, lmtp: bool) -> None:
    machine = ServerMachine(OFFER, Limits(strict_groups=strict, max_commands=40), lmtp=lmtp)
    app = Application(machine, answer)
    parser = ReplyParser()
    replies = 0
    for piece in said:
        machine.receive(piece)
        for reply in parser.receive(app.run()):
            replies += 1
            assert 200 <= reply.code <= 599
        assert parser.is_empty
        assert not machine.is_full
        assert (machine.mail is not None) is (machine.state in IN_TRANSACTION)
        assert len(machine.recipients) <= 3
        assert len(app.content) <= 50
        if machine.state is ServerState.HANDSHAKE:
            machine.tls_established(OFFER)
    assert all(len(message.content) <= 50 and (message.recipients or lmtp) for message in app.messages)


@given(st.lists(WORDS, max_size=20), st.integers(1, 30))
def test_the_size_of_reads_changes_nothing(said: list[bytes], size: int) -> None:
    """Where groups may be anything; STARTTLS depends on it by its nature."""
    session = b"EHLO c.example\r\n" + b"".join(word for word in said if word != b"STARTTLS\r\n")

    def have(step: int) -> tuple[bytes, list[object], ServerState]:
        app = Application(ServerMachine(OFFER, Limits(strict_groups=False)), answer)
        heard = app.run()
        for start in range(0, len(session), step):
            app.machine.receive(session[start : start + step])
            heard += app.run()
        return heard, list(app.messages), app.machine.state

    assert have(size) == have(len(session))


@given(st.binary(max_size=200), st.integers(1, 50), st.booleans())
def test_a_message_arrives_as_it_was_sent(message: bytes, size: int, chunking: bool) -> None:
    content = Content.inspect(message.replace(b"\0", b"0"))
    if chunking:
        pieces = [bytes(piece) for piece in content.chunks(size)]
        wire = b"".join(b"BDAT %d\r\n%b" % (len(piece), piece) for piece in pieces) + b"BDAT 0 LAST\r\n"
    else:
        wire = b"DATA\r\n" + b"".join(content.stuffed(size))
    app = Application(ServerMachine(FULL_OFFER, Limits(strict_groups=False)))
    session = b"EHLO c.example\r\nMAIL FROM:<>\r\nRCPT TO:<b@example.net>\r\n" + wire + b"QUIT\r\n"
    for start in range(0, len(session), size):
        app.machine.receive(session[start : start + size])
        app.run()
    assert [arrived.content for arrived in app.messages] == [b"".join(content.chunks())]
    assert app.machine.state is ServerState.CLOSED


@given(
    st.builds(
        replace,
        st.just(FULL_OFFER),
        pipelining=st.booleans(),
        eight_bit_mime=st.booleans(),
        smtputf8=st.booleans(),
        chunking=st.booleans(),
        dsn=st.booleans(),
        starttls=st.booleans(),
        requiretls=st.booleans(),
        size=st.just(True),
        max_size=st.none() | st.integers(1, 10**19),
        max_recipients=st.none() | st.integers(1, 10**6),
        max_transactions=st.none() | st.integers(1, 10**6),
        auth=st.frozensets(st.sampled_from(["PLAIN", "LOGIN", "SCRAM-SHA-256"])),
    )
)
def test_ehlo_says_what_a_client_understands(offer: Capabilities) -> None:
    heard = parse_capabilities(ehlo_reply("mx.example.org", offer))
    assert replace(heard, keywords={}, greeting="") == replace(offer, keywords={}, greeting="")
    assert heard.greeting == "mx.example.org"
    assert "ENHANCEDSTATUSCODES" in heard.keywords


def test_strict_groups_are_the_default() -> None:
    assert Limits().strict_groups
