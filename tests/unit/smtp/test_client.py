"""The client machine: which command may be sent when, which reply answers what, and what is a violation."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrider.errors import LocalError, MailriderError
from mailrider.model.address import NULL_PATH, Mailbox
from mailrider.model.domain import Domain
from mailrider.model.reply import Reply
from mailrider.smtp.capabilities import NO_CAPABILITIES
from mailrider.smtp.client import AnsweredCommand, ClientMachine, ClientState, InjectedPlaintext
from mailrider.smtp.commands import (
    Auth,
    AuthResponse,
    Bdat,
    Command,
    Connect,
    Data,
    Ehlo,
    EndOfData,
    Helo,
    Help,
    Lhlo,
    Mail,
    Noop,
    Quit,
    Rcpt,
    Rset,
    StartTLS,
    Vrfy,
)
from mailrider.smtp.replies import ReplyViolation

ME = Domain("mx.example.org")
EHLO, HELO, LHLO = Ehlo(ME), Helo(ME), Lhlo(ME)
MAIL, RCPT = Mail(NULL_PATH), Rcpt(Mailbox.parse("b@example.net"))
DATA, DOT, RSET, QUIT, STARTTLS = Data(), EndOfData(), Rset(), Quit(), StartTLS()
AUTH, RESPONSE = Auth("LOGIN"), AuthResponse("Yg==")
COMMANDS: list[Command] = [
    EHLO, HELO, LHLO, STARTTLS, MAIL, RCPT, DATA, DOT, Bdat(5, last=False), Bdat(5, last=True), RSET, Noop(), QUIT,
    Vrfy("b"), Help(), AUTH, RESPONSE,
]  # fmt: skip
BARRIERS: list[Command] = [EHLO, HELO, LHLO, STARTTLS, DATA, QUIT, AUTH]


def name(command: Command | None) -> str:
    return type(command).__name__


def said(machine: ClientMachine, *lines: str) -> list[tuple[str, int]]:
    """The server says `lines`: what they answer, and their codes."""
    answers = machine.receive("".join(f"{line}\r\n" for line in lines).encode())
    return [(name(answer.command), answer.reply.code) for answer in answers]


def state_of(machine: ClientMachine) -> ClientState:
    """The state, asked anew: mypy believes that a call leaves it as it was."""
    return machine.state


def connected(*keywords: str) -> ClientMachine:
    """A machine behind the greeting and an EHLO that offered `keywords`."""
    machine = ClientMachine()
    said(machine, "220 mx.example.net")
    machine.send(EHLO)
    said(machine, *(f"250-{line}" for line in ("mx.example.net", *keywords)), "250 HELP")
    assert state_of(machine) is ClientState.READY
    return machine


def in_state(state: ClientState) -> ClientMachine:
    """A machine in that state, with PIPELINING and nothing outstanding but what the state awaits."""
    machine = ClientMachine()
    if state is ClientState.CONNECTED:
        return machine
    machine = connected("PIPELINING")
    command, reply = {
        ClientState.READY: (Noop(), "250 OK"),
        ClientState.CONTENT: (DATA, "354 go"),
        ClientState.CHALLENGE: (AUTH, "334 VXNlcg=="),
        ClientState.HANDSHAKE: (STARTTLS, "220 go"),
        ClientState.CLOSED: (QUIT, "221 bye"),
        ClientState.BROKEN: (Noop(), "nonsense"),
    }[state]
    machine.send(command)
    said(machine, reply)
    assert state_of(machine) is state
    return machine


# Who answers what ----------------------------------------------------------------------------------------------------


def test_the_greeting_answers_the_connection() -> None:
    machine = ClientMachine()
    assert (machine.state, machine.outstanding) == (ClientState.CONNECTED, 1)
    assert machine.receive(b"220 mx.example.net ESMTP\r\n") == [
        AnsweredCommand(Connect(), Reply(220, None, ("mx.example.net ESMTP",)))
    ]
    assert (machine.state, machine.outstanding) == (ClientState.READY, 0)


def test_a_session() -> None:
    machine = connected("SIZE 1000")
    assert machine.capabilities.max_size == 1000
    assert machine.send(MAIL) == b"MAIL FROM:<>\r\n"
    assert said(machine, "250 OK") == [("Mail", 250)]
    assert machine.send(RCPT) == b"RCPT TO:<b@example.net>\r\n"
    assert said(machine, "250 OK") == [("Rcpt", 250)]
    assert machine.send(DATA) == b"DATA\r\n"
    assert said(machine, "354 go") == [("Data", 354)]
    assert state_of(machine) is ClientState.CONTENT
    assert machine.send(DOT) == b""
    assert state_of(machine) is ClientState.CONTENT
    assert said(machine, "250 queued") == [("EndOfData", 250)]
    assert state_of(machine) is ClientState.READY
    assert machine.send(QUIT) == b"QUIT\r\n"
    assert said(machine, "221 bye") == [("Quit", 221)]
    assert state_of(machine) is ClientState.CLOSED


def test_a_pipelined_group_is_one_write_and_its_replies_come_in_order() -> None:
    machine = connected("PIPELINING")
    assert machine.send(MAIL, RCPT, RCPT, DATA) == (
        b"MAIL FROM:<>\r\nRCPT TO:<b@example.net>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n"
    )
    assert machine.outstanding == 4
    assert said(machine, "250 OK", "550-no", "550 such user") == [("Mail", 250), ("Rcpt", 550)]
    assert machine.outstanding == 2
    assert said(machine, "250 OK", "354 go") == [("Rcpt", 250), ("Data", 354)]
    assert (machine.state, machine.outstanding) == (ClientState.CONTENT, 0)


def test_a_group_may_follow_a_group_that_is_not_answered_yet() -> None:
    machine = connected("PIPELINING")
    machine.send(RSET)
    machine.send(MAIL, RCPT)
    assert said(machine, "250 a", "250 b", "250 c") == [("Rset", 250), ("Mail", 250), ("Rcpt", 250)]


def test_chunks_keep_the_session_ready() -> None:
    machine = connected("PIPELINING", "CHUNKING")
    machine.send(MAIL, RCPT)
    said(machine, "250 OK", "250 OK")
    assert machine.send(Bdat(5, last=False)) == b"BDAT 5\r\n"
    assert said(machine, "250 5 octets") == [("Bdat", 250)]
    assert machine.send(Bdat(3, last=True)) == b"BDAT 3 LAST\r\n"
    assert said(machine, "250 queued") == [("Bdat", 250)]
    assert state_of(machine) is ClientState.READY


def test_in_lmtp_each_recipient_has_a_reply_to_the_final_dot() -> None:
    machine = in_state(ClientState.CONTENT)
    machine.send(EndOfData(3))
    assert machine.outstanding == 3
    assert said(machine, "250 a", "550 b") == [("EndOfData", 250), ("EndOfData", 550)]
    assert machine.outstanding == 1
    with pytest.raises(LocalError, match="EndOfData"):
        machine.send(MAIL)
    assert said(machine, "250 c") == [("EndOfData", 250)]
    machine.send(MAIL)


@pytest.mark.parametrize("step", [1, 2, 3, 7])
def test_replies_may_come_in_any_pieces(step: int) -> None:
    machine = connected("PIPELINING")
    machine.send(MAIL, RCPT, RCPT, DATA)
    data = b"250 2.1.0 OK\r\n550-5.1.1 no\r\n550 5.1.1 such user\r\n250 2.1.5 OK\r\n354 go\r\n"
    answers = [answer for start in range(0, len(data), step) for answer in machine.receive(data[start : start + step])]
    assert [(name(command), reply.code) for command, reply in answers] == [
        ("Mail", 250),
        ("Rcpt", 550),
        ("Rcpt", 250),
        ("Data", 354),
    ]


# What may be sent when -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ClientState)
@pytest.mark.parametrize("command", COMMANDS, ids=name)
def test_each_state_allows_its_commands(command: Command, state: ClientState) -> None:
    machine = in_state(state)
    allowed: dict[ClientState, list[Command]] = {
        ClientState.READY: [one for one in COMMANDS if one not in (DOT, RESPONSE)],
        ClientState.CONTENT: [DOT],
        ClientState.CHALLENGE: [RESPONSE],
    }
    if command in allowed.get(state, []):
        assert machine.send(command) == command.encode()
    else:
        with pytest.raises(LocalError, match="cannot be sent now"):
            machine.send(command)


def test_without_pipelining_one_command_waits_for_the_other() -> None:
    machine = connected()
    machine.send(MAIL)
    with pytest.raises(LocalError, match="PIPELINING"):
        machine.send(RCPT)
    said(machine, "250 OK")
    with pytest.raises(LocalError, match="PIPELINING"):
        machine.send(RCPT, RCPT)
    machine.send(RCPT)


@pytest.mark.parametrize("barrier", BARRIERS, ids=name)
def test_nothing_is_sent_behind_what_must_end_a_group(barrier: Command) -> None:
    machine = connected("PIPELINING")
    machine.send(RSET, barrier)
    with pytest.raises(LocalError, match=name(barrier)):
        machine.send(RSET)
    with pytest.raises(LocalError, match=name(barrier)):
        connected("PIPELINING").send(barrier, RSET)


def test_nothing_is_sent_behind_the_final_dot_or_a_response_either() -> None:
    machine = in_state(ClientState.CONTENT)
    machine.send(DOT)
    with pytest.raises(LocalError, match="EndOfData"):
        machine.send(DOT)
    machine = in_state(ClientState.CHALLENGE)
    machine.send(RESPONSE)
    with pytest.raises(LocalError, match="AuthResponse"):
        machine.send(RESPONSE)


def test_of_a_group_that_is_not_allowed_nothing_is_sent() -> None:
    machine = connected("PIPELINING")
    with pytest.raises(LocalError):
        machine.send(MAIL, RCPT, DATA, DOT)
    assert machine.outstanding == 0
    machine.send(MAIL, RCPT, DATA)
    assert said(machine, "250 OK", "250 OK", "354 go") == [("Mail", 250), ("Rcpt", 250), ("Data", 354)]


# Sense and nonsense --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [one for one in COMMANDS if one not in (DOT, RESPONSE, AUTH, DATA)], ids=name)
def test_an_intermediate_reply_is_no_answer_where_there_is_no_intermediate_step(command: Command) -> None:
    machine = connected()
    machine.send(command)
    assert said(machine, "354 go on") == []
    assert isinstance(machine.violation, ReplyViolation)
    assert name(command).upper() in str(machine.violation)


def test_nor_is_it_one_to_the_connection_or_to_the_final_dot() -> None:
    machine = ClientMachine()
    assert said(machine, "354 hello") == []
    assert str(machine.violation) == "354 hello is no answer to the connection"
    machine = in_state(ClientState.CONTENT)
    machine.send(DOT)
    assert said(machine, "354 more") == []
    assert str(machine.violation) == "354 more is no answer to the final dot"


def test_only_an_intermediate_reply_consents_to_data() -> None:
    machine = connected()
    machine.send(DATA)
    assert said(machine, "250 OK") == []
    assert state_of(machine) is ClientState.BROKEN


@pytest.mark.parametrize("code", [421, 451, 503, 554])
def test_a_refused_data_keeps_the_session_for_commands(code: int) -> None:
    machine = connected()
    machine.send(DATA)
    assert said(machine, f"{code} no") == [("Data", code)]
    assert state_of(machine) is (ClientState.CLOSED if code == 421 else ClientState.READY)


@pytest.mark.parametrize("code", [220, 250, 354, 450, 500, 550])
@pytest.mark.parametrize("state", [ClientState.READY, ClientState.CHALLENGE, ClientState.CLOSED])
def test_a_reply_that_nothing_asked_for_is_a_violation(state: ClientState, code: int) -> None:
    machine = in_state(state)
    assert said(machine, f"{code} surprise") == []
    assert isinstance(machine.violation, ReplyViolation)
    assert "nothing asked for" in str(machine.violation)
    assert state_of(machine) is ClientState.BROKEN


def test_the_words_of_a_violation_are_few_however_long_the_reply_is() -> None:
    machine = in_state(ClientState.READY)
    machine.receive(b"250-" + b"x" * 2000 + b"\r\n250 and so on\r\n")
    assert len(str(machine.violation)) < 200


@pytest.mark.parametrize("state", [ClientState.READY, ClientState.CHALLENGE])
def test_a_server_may_take_its_leave_at_any_time(state: ClientState) -> None:
    machine = in_state(state)
    assert machine.receive(b"421 4.3.2 going down\r\n") == [
        AnsweredCommand(None, Reply.make(421, "4.3.2", "going down"))
    ]
    assert state_of(machine) is ClientState.CLOSED
    assert machine.violation is None


def test_one_farewell_is_enough() -> None:
    machine = in_state(ClientState.CLOSED)
    assert machine.receive(b"421 4.3.2 going down\r\n" * 1000) == []
    assert isinstance(machine.violation, ReplyViolation)


@pytest.mark.parametrize("code", [421, 452, 552, 554])
def test_content_may_be_refused_before_its_end(code: int) -> None:
    machine = in_state(ClientState.CONTENT)
    assert said(machine, f"{code} too much") == [("Data", code)]
    assert state_of(machine) is ClientState.CLOSED
    with pytest.raises(LocalError):
        machine.send(DOT)


@pytest.mark.parametrize("code", [250, 354])
def test_content_is_not_accepted_before_its_end(code: int) -> None:
    machine = in_state(ClientState.CONTENT)
    assert said(machine, f"{code} that will do") == []
    assert state_of(machine) is ClientState.BROKEN


def test_an_acceptance_in_one_piece_with_the_consent_is_not_believed() -> None:
    machine = connected()
    machine.send(DATA)
    assert said(machine, "354 go", "250 queued already") == [("Data", 354)]
    assert state_of(machine) is ClientState.BROKEN


@pytest.mark.parametrize("command", [one for one in COMMANDS if one not in (DOT, RESPONSE)], ids=name)
def test_421_closes_whatever_it_answers(command: Command) -> None:
    machine = connected("PIPELINING")
    machine.send(command)
    assert said(machine, "421 bye") == [(name(command), 421)]
    assert state_of(machine) is ClientState.CLOSED
    with pytest.raises(LocalError, match="takes its leave"):
        machine.send(Noop())


@pytest.mark.parametrize("command", [MAIL, RCPT, RSET], ids=name)
def test_221_in_place_of_a_reply_is_a_farewell_too(command: Command) -> None:
    machine = connected("PIPELINING")
    machine.send(command)
    assert machine.receive(b"221 2.0.0 idle for too long\r\n") == [
        AnsweredCommand(command, Reply.make(421, None, "idle for too long"))
    ]
    assert state_of(machine) is ClientState.CLOSED


def test_a_chunk_that_was_taken_with_221_was_taken() -> None:
    machine = connected("CHUNKING")
    machine.send(Bdat(5, last=True))
    assert said(machine, "221 stored, bye") == [("Bdat", 221)]


def test_behind_a_421_the_rest_of_the_group_may_still_be_answered() -> None:
    machine = connected("PIPELINING")
    machine.send(MAIL, RCPT, RCPT, DATA)
    assert said(machine, "250 OK", "421 bye", "250 OK", "354 go") == [
        ("Mail", 250),
        ("Rcpt", 421),
        ("Rcpt", 250),
        ("Data", 354),
    ]
    assert state_of(machine) is ClientState.CLOSED


def test_a_refused_quit_is_no_end() -> None:
    machine = connected()
    machine.send(QUIT)
    said(machine, "500 what?")
    assert state_of(machine) is ClientState.READY


def test_the_good_replies_before_a_violation_count_and_none_behind_it() -> None:
    machine = connected("PIPELINING")
    machine.send(MAIL, RCPT, RCPT)
    assert said(machine, "250 OK", "nonsense", "250 OK") == [("Mail", 250)]
    assert state_of(machine) is ClientState.BROKEN
    assert said(machine, "250 OK") == []
    assert machine.receive(b"\n") == []
    with pytest.raises(LocalError, match="broke the protocol"):
        machine.send(RSET)


# What is borne, and where ---------------------------------------------------------------------------------------------


def test_before_the_first_message_lines_without_a_code_are_skipped() -> None:
    machine = ClientMachine()
    assert said(machine, "", "220 mx", "") == [("Connect", 220)]
    machine.send(EHLO)
    assert said(machine, "250-mx", "SIZE", "250 DSN") == [("Ehlo", 250)]
    assert machine.skipped_words == "SIZE"
    machine.receive(b"\r\n")
    machine.send(MAIL)
    assert machine.skipped_words == ""
    assert said(machine, "", "250 OK") == []
    assert state_of(machine) is ClientState.BROKEN


def test_with_pipelining_only_what_comes_together_with_the_reply_to_ehlo() -> None:
    machine = ClientMachine()
    said(machine, "220 mx")
    machine.send(EHLO)
    machine.receive(b"250-mx\r\n250 PIPELINING\r\n\r\n")
    assert state_of(machine) is ClientState.READY
    machine.receive(b"\r\n")
    assert state_of(machine) is ClientState.BROKEN


def test_nothing_is_skipped_where_tls_is_to_begin() -> None:
    machine = connected()
    machine.send(STARTTLS)
    assert said(machine, "", "220 go") == []
    assert state_of(machine) is ClientState.BROKEN


@pytest.mark.parametrize("last", [DOT, Bdat(5, last=True)], ids=name)
def test_whoever_frames_the_final_reply_in_a_way_of_its_own_is_not_used_again(last: Command) -> None:
    machine = connected("CHUNKING") if isinstance(last, Bdat) else in_state(ClientState.CONTENT)
    machine.send(last)
    assert [answer.reply.code for answer in machine.receive(b"\n250 ok\n")] == [250]
    assert state_of(machine) is ClientState.CLOSED


def test_a_regular_final_reply_ends_the_tolerance() -> None:
    machine = in_state(ClientState.CONTENT)
    machine.send(DOT)
    assert said(machine, "250 OK") == [("EndOfData", 250)]
    assert state_of(machine) is ClientState.READY
    machine.receive(b"\n")
    assert state_of(machine) is ClientState.BROKEN


def test_in_lmtp_all_final_replies_are_waited_for_though_one_is_framed_in_a_way_of_its_own() -> None:
    machine = in_state(ClientState.CONTENT)
    machine.send(EndOfData(2))
    machine.receive(b"250 ok\n")
    assert state_of(machine) is ClientState.READY
    assert said(machine, "250 ok") == [("EndOfData", 250)]
    assert state_of(machine) is ClientState.CLOSED


# Extensions ----------------------------------------------------------------------------------------------------------


def test_the_latest_ehlo_counts() -> None:
    machine = connected("PIPELINING", "DSN")
    machine.send(EHLO)
    said(machine, "250-mx.example.net", "250 SIZE")
    assert machine.capabilities.size
    assert not machine.capabilities.dsn


@pytest.mark.parametrize(
    ("command", "reply"), [(EHLO, "500 what?"), (EHLO, "421 bye"), (LHLO, "451 later"), (HELO, "250 DSN")]
)
def test_helo_and_a_refused_ehlo_offer_nothing(command: Command, reply: str) -> None:
    machine = connected("DSN")
    machine.send(command)
    said(machine, reply)
    assert machine.capabilities == NO_CAPABILITIES


def test_lhlo_offers_as_ehlo_does() -> None:
    machine = connected()
    machine.send(LHLO)
    said(machine, "250-mx.example.net", "250 PIPELINING")
    assert machine.capabilities.pipelining


def test_an_exchange_of_auth() -> None:
    machine = connected("AUTH LOGIN")
    assert machine.send(AUTH) == b"AUTH LOGIN\r\n"
    assert said(machine, "334 VXNlcm5hbWU6") == [("Auth", 334)]
    assert machine.send(RESPONSE) == b"Yg==\r\n"
    assert said(machine, "334 UGFzc3dvcmQ6") == [("AuthResponse", 334)]
    assert machine.send(RESPONSE) == b"Yg==\r\n"
    assert said(machine, "235 welcome") == [("AuthResponse", 235)]
    assert state_of(machine) is ClientState.READY


@pytest.mark.parametrize("reply", ["235 at once", "535 no"])
def test_auth_may_end_at_once(reply: str) -> None:
    machine = connected("AUTH PLAIN")
    machine.send(Auth("PLAIN", "AGEAYg=="))
    assert said(machine, reply) == [("Auth", int(reply[:3]))]
    assert state_of(machine) is ClientState.READY


# STARTTLS (RFC 3207) -------------------------------------------------------------------------------------------------


def test_after_the_handshake_the_session_begins_anew() -> None:
    machine = connected("STARTTLS", "PIPELINING")
    assert machine.send(STARTTLS) == b"STARTTLS\r\n"
    assert said(machine, "220 go") == [("StartTLS", 220)]
    assert state_of(machine) is ClientState.HANDSHAKE
    machine.tls_established()
    assert state_of(machine) is ClientState.READY
    assert machine.capabilities == NO_CAPABILITIES
    machine.send(EHLO)
    said(machine, "250 mx.example.net")
    assert state_of(machine) is ClientState.READY


@pytest.mark.parametrize("code", [454, 501, 502])
def test_a_refused_starttls_changes_nothing(code: int) -> None:
    machine = connected("STARTTLS", "PIPELINING")
    machine.send(STARTTLS)
    assert said(machine, f"{code} no") == [("StartTLS", code)]
    assert state_of(machine) is ClientState.READY
    assert machine.capabilities.pipelining
    with pytest.raises(LocalError, match="no handshake is due"):
        machine.tls_established()


@pytest.mark.parametrize("injected", [b"250 x\r\n", b"421 x\r\n", b"250-x", b"2", b"\0", b"\r\n", b"\x16\x03\x03"])
def test_bytes_behind_the_220_are_an_attack(injected: bytes) -> None:
    machine = connected("STARTTLS")
    machine.send(STARTTLS)
    answers = machine.receive(b"220 go\r\n" + injected)
    assert [(name(command), reply.code) for command, reply in answers] == [("StartTLS", 220)]
    assert state_of(machine) is ClientState.BROKEN
    assert isinstance(machine.violation, InjectedPlaintext | ReplyViolation)
    with pytest.raises(LocalError):
        machine.tls_established()


@pytest.mark.parametrize("injected", [b"250 x\r\n", b"2", b"\r\n", b"\0", b"\x16\x03\x03", b"hello\r\n"])
def test_bytes_that_follow_the_220_are_one_too(injected: bytes) -> None:
    machine = in_state(ClientState.HANDSHAKE)
    assert machine.receive(injected) == []
    assert isinstance(machine.violation, InjectedPlaintext)
    assert machine.violation.enhanced == "4.7.5"


def test_no_bytes_are_no_attack() -> None:
    machine = in_state(ClientState.HANDSHAKE)
    assert machine.receive(b"") == []
    machine.tls_established()


@pytest.mark.parametrize("state", [state for state in ClientState if state is not ClientState.HANDSHAKE])
def test_no_handshake_where_none_is_due(state: ClientState) -> None:
    with pytest.raises(LocalError, match="no handshake is due"):
        in_state(state).tls_established()


# Anything at any time ------------------------------------------------------------------------------------------------

groups = st.lists(st.sampled_from(COMMANDS), min_size=1, max_size=4)
server_bytes = st.one_of(
    st.sampled_from(["200 a", "220 go", "250-a\r\n250 PIPELINING", "334 a", "354 a", "421 a", "450 a", "550 a"]).map(
        lambda line: f"{line}\r\n".encode()
    ),
    st.sampled_from([b"250", b"250-", b"\r\n", b" x\r\n", b"\n", b"\0", b""]),
)


@given(st.lists(groups | server_bytes, max_size=25))
def test_whatever_both_sides_do_every_command_has_one_answer(script: list[list[Command] | bytes]) -> None:
    machine = ClientMachine()
    due: list[Command] = [Connect()]
    for move in script:
        if isinstance(move, bytes):
            was_broken = machine.state is ClientState.BROKEN
            for command, _ in machine.receive(move):
                assert not was_broken
                if due:
                    assert command == due.pop(0)
                else:  # a farewell, or a refusal in the middle of the content
                    assert command in (None, Data())
                    assert machine.state in (ClientState.CLOSED, ClientState.BROKEN)
        else:
            before = machine.state, machine.outstanding
            try:
                line = machine.send(*move)
            except MailriderError:
                assert (machine.state, machine.outstanding) == before
            else:
                assert line == b"".join(command.encode() for command in move)
                due += move
        assert (machine.violation is not None) is (machine.state is ClientState.BROKEN)
        assert state_of(machine) is ClientState.BROKEN or machine.outstanding == len(due)


@pytest.mark.parametrize(
    ("octets", "codes"), [(b"250-ok\r\n", [250]), (b"552 5.3.4 too", [552]), (b"354-go\r\n", []), (b"25", [])]
)
def test_the_answer_to_a_message_need_not_be_ended(octets: bytes, codes: list[int]) -> None:
    machine = in_state(ClientState.CONTENT)
    machine.send(DOT)
    assert machine.receive(octets) == []
    assert [answer.reply.code for answer in machine.end()] == codes
    assert machine.state is (ClientState.CLOSED if codes else ClientState.CONTENT)


def test_any_other_answer_has_to_be() -> None:
    machine = in_state(ClientState.READY)
    machine.send(MAIL)
    machine.receive(b"550-5.1.1 nobody\r\n")
    assert machine.end() == []
    assert in_state(ClientState.BROKEN).end() == []
    assert in_state(ClientState.READY).end() == []
