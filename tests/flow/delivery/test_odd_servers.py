"""Servers that others met in the field: what became of their mail is a bug report, what becomes of ours stands here.

Each case names the report, where there is one.
"""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

import mailrider
from mailrider.lab.ca import CA
from mailrider.lab.mx_script import MXTLS, Close, MXScript, PortState, Raw, Silence, Stage, Step, TLSFault
from mailrider.model.security import TLSLevel
from mailrider.net.tls import make_server_context
from mailrider.smtp.capabilities import Capabilities
from mailrider.smtp.commands import Bdat
from mailrider.smtp.content import Content
from tests.flow.delivery.internet import MESSAGE, REFUSING, internet, outcome, stages
from tests.support.loopback import new_address
from tests.support.loops import LOOPS, run_clean

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator
    from pathlib import Path


GOOD = MXScript()
OFFERS = {
    "DATA": Capabilities(pipelining=True),
    "BDAT": Capabilities(pipelining=True, chunking=True),
    "one by one": Capabilities(),
    "BDAT one by one": Capabilities(chunking=True),
}
SHORT = {"command_timeout": 1, "submission_timeout": 1}
LARGE = b"Subject: large\r\n\r\n" + (b"y" * 998 + b"\r\n") * 23_000


# Lost in the middle of the content ------------------------------------------------------------------------------------
# https://github.com/haraka/Haraka/issues/2520, https://github.com/haraka/Haraka/issues/2222


class CuttingServer:
    """Takes a message as far as its first octets, and resets the connection while the client is busy writing more.

    The dialogue runs in a thread; `cut` is called by the client's own thread, between two pieces of the content, so
    that the client's next write is the first to meet the reset.
    """

    def __init__(self, address: str, port: int, offer: str, tls: ssl.SSLContext | None, last_words: bytes) -> None:
        self._listening = socket.create_server((address, port))
        self._offer = offer
        self._tls = tls
        self._last_words = last_words
        self._thread = ThreadPoolExecutor(1)
        self._dialogue = self._thread.submit(self._talk)

    def _talk(self) -> socket.socket:
        connection, _ = self._listening.accept()
        self._listening.close()
        connection.sendall(b"220 mx0\r\n")
        self._hear(connection, b"EHLO")
        if self._tls is not None:
            connection.sendall(b"250-mx0\r\n250 STARTTLS\r\n")
            self._hear(connection, b"STARTTLS")
            connection.sendall(b"220 go\r\n")
            connection = self._tls.wrap_socket(connection, server_side=True)
            self._hear(connection, b"EHLO")
        connection.sendall(f"250-mx0\r\n250 {self._offer}\r\n".encode())
        for command in ("MAIL", "RCPT", *(["DATA"] if self._offer != "CHUNKING" else [])):
            self._hear(connection, command.encode())
            connection.sendall(b"354 go\r\n" if command == "DATA" else b"250 ok\r\n")
        return connection

    @staticmethod
    def _hear(connection: socket.socket, verb: bytes) -> None:
        line = b""
        while not line.endswith(b"\n"):
            line += connection.recv(1)
        assert line.startswith(verb)

    def cut(self) -> None:
        """Read a little, say the last words, and close: the octets that nobody read make it a reset."""
        connection = self._dialogue.result()
        connection.recv(1024)
        connection.sendall(self._last_words)
        connection.close()
        self._thread.shutdown()

    def watch(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """The pieces of the content; the cut comes when two of them are written or about to be."""
        for number, piece in enumerate(pieces):
            if number == 3:
                self.cut()
            yield piece


def server_context(folder: Path) -> ssl.SSLContext:
    return make_server_context(*CA().issue(["mx0.a.test"]).write(folder, "mx0"))


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("secure", [False, True], ids=["in clear", "in TLS"])
@pytest.mark.parametrize("offer", ["SIZE", "CHUNKING"], ids=["DATA", "BDAT"])
@pytest.mark.parametrize("last_words", [b"", b"552 5.3.4 Too large\r\n"], ids=["without a word", "552"])
def test_content_that_is_cut_off(
    loop: str, secure: bool, offer: str, last_words: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with internet({"a.test": [REFUSING, GOOD]}) as net:
            context = server_context(tmp_path) if secure else None
            server = CuttingServer(net.mx("a.test").address, net.port, offer, context, last_words)
            for name in ("stuffed", "chunks"):
                usual = getattr(Content, name)

                def watched(content: Content, size: int = 65536, usual: Any = usual) -> Iterator[bytes]:
                    monkeypatch.undo()
                    return server.watch(usual(content, size))

                monkeypatch.setattr(Content, name, watched)
            result = await net.send_one("x@a.test", LARGE)
            refused = bool(last_words)
            assert net.mx("a.test", 1).accepted == (0 if refused else 1)
        if refused:
            assert (outcome(result), result.reply.text) == (("failed", 552, "5.3.4"), "mx0.a.test said: Too large")
        else:
            assert (result.status, result.mx) == ("delivered", "mx1.a.test")
            assert stages(result) == ["data", "delivered"]
        assert not result.in_doubt

    run_clean(loop, scenario())


# A late second reply is not the next message's ------------------------------------------------------------------------
# https://github.com/davidmoten/subethasmtp/issues/75

STRAY = b"554 5.6.0 On second thoughts\r\n"


def second_time(stage: Stage, usual: bytes, offer: Capabilities) -> MXScript:
    """The first message goes well; the second reply to it comes just before that reply to the second message."""
    return MXScript(offer=offer, replies={stage: [None, Raw(STRAY + usual)]})


@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
@pytest.mark.parametrize("stage", [Stage.MAIL, Stage.RCPT])
async def test_a_late_second_reply_is_not_taken_for_one_to_the_next_message(stage: Stage, offer: Capabilities) -> None:
    async with internet({"a.test": [second_time(stage, b"250 2.1.0 Ok\r\n", offer)]}) as net:
        assert [(await net.send_one("x@a.test")).status for _ in range(2)] == ["delivered", "delivered"]
        assert (net.mx("a.test").opened, net.mx("a.test").accepted) == (2, 2)


async def test_a_late_second_reply_in_the_place_of_the_answer_to_data() -> None:
    script = second_time(Stage.DATA, b"354 Go on\r\n", OFFERS["DATA"])
    async with internet({"a.test": [script]}) as net:
        assert [(await net.send_one("x@a.test")).status for _ in range(2)] == ["delivered", "delivered"]
        assert (net.mx("a.test").opened, net.mx("a.test").accepted) == (2, 2)


async def test_a_late_second_reply_between_recipients_refuses_none_of_them() -> None:
    script = MXScript(offer=OFFERS["BDAT"], recipients={"two@a.test": [None, Raw(STRAY + b"250 2.1.5 Ok\r\n")]})
    async with internet({"a.test": [script]}) as net:
        for _ in range(2):
            report = await net.send("one@a.test", "two@a.test", "three@a.test")
            assert {result.status.value for result in report} == {"delivered"}
        assert net.mx("a.test").accepted == 2


@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
async def test_a_late_second_reply_behind_the_final_dot_leaves_a_doubt(offer: Capabilities) -> None:
    async with internet({"a.test": [second_time(Stage.END, b"250 2.0.0 Ok\r\n", offer)]}) as net:
        await net.send_one("x@a.test")
        result = await net.send_one("x@a.test")
    assert (outcome(result), result.in_doubt) == (("deferred", 451, "4.4.2"), True)
    assert "out of step" in result.reply.text


@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
@pytest.mark.parametrize("stage", [Stage.MAIL, Stage.RCPT, Stage.END])
async def test_a_refusal_in_step_on_a_used_connection_is_final(stage: Stage, offer: Capabilities) -> None:
    script = MXScript(offer=offer, replies={stage: [None, "550 5.7.1 No"]})
    async with internet({"a.test": [script, GOOD]}) as net:
        await net.send_one("x@a.test")
        result = await net.send_one("x@a.test")
        assert (net.mx("a.test").opened, net.mx("a.test", 1).opened) == (1, 0)
    assert outcome(result) == ("failed", 550, "5.7.1")


async def test_a_refusal_on_a_used_connection_stands_where_quit_has_no_answer() -> None:
    script = MXScript(replies={Stage.MAIL: [None, "550 5.7.1 No"], Stage.QUIT: Close()})
    async with internet({"a.test": [script]}) as net:
        await net.send_one("x@a.test")
        assert outcome(await net.send_one("x@a.test")) == ("failed", 550, "5.7.1")


# Replies that are framed in a way of their own ------------------------------------------------------------------------

# https://github.com/OpenSMTPD/OpenSMTPD/issues/827
FINALS = {
    "an empty line before it": b"\n250 2.0.0 ok\r\n",
    "a bare LF": b"250 2.0.0 ok\n",
    "a bare LF between its lines": b"250-2.0.0 all\n250 2.0.0 is well\r\n",
    "a line without a code before it": b"Thank you!\r\n250 2.0.0 ok\r\n",
    "a NUL": b"250 2.0.0 o\0k\r\n",
    "a line without an end": b"250 2.0.0 " + b"x" * 5000,
    "two CRs": b"250 2.0.0 ok\r\r\n",
    "a code that changes": b"354-hm\r\n250 2.0.0 ok\r\n",
    "a tab behind its code": b"250\tok\r\n",
    "something else behind its code": b"250: ok\r\n",
    "a space before its code": b" 250 ok\r\n",
    "more lines than anybody reads": b"250-2.0.0 ok\r\n" * 200 + b"250 2.0.0 ok\r\n",
    "a space before each code": b" 250-2.0.0 all\r\n 250 2.0.0 is well\r\n",
}


@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
@pytest.mark.parametrize("octets", FINALS.values(), ids=FINALS)
async def test_any_legible_reply_behind_the_final_dot_decides(octets: bytes, offer: Capabilities) -> None:
    async with internet({"a.test": [MXScript(offer=offer, replies={Stage.END: Raw(octets)}), GOOD]}) as net:
        result = await net.send_one("x@a.test")
        assert (result.status, result.reply.code, result.in_doubt) == ("delivered", 250, False)
        await net.send_one("x@a.test")
        assert net.mx("a.test").opened == 2, "whoever speaks like that is not asked for anything else"


class LastWords:
    """Takes a message in clear, says `octets` behind its final dot, and closes."""

    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self.messages = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mx\r\n")
        while line := await reader.readline():
            writer.write(b"354 go\r\n" if line == b"DATA\r\n" else b"250 ok\r\n")
            if line == b"DATA\r\n":
                while await reader.readline() != b".\r\n":
                    pass
                self.messages += 1
                writer.write(self._octets)
                break
        writer.close()


DOUBT = ("deferred", 451, True)
UNENDED = {
    "a line that announces another one": (b"250-2.0.0 ok\r\n", ("delivered", 250, False)),
    "a refusal that announces another line": (b"552-5.3.4 Too large\r\n", ("failed", 552, False)),
    "a line without its end": (b"250 2.0.0 o", ("delivered", 250, False)),
    "a second line without its end": (b"250-2.0.0 ok\r\n250 qu", ("delivered", 250, False)),
    "half a code behind a line": (b"250-2.0.0 ok\r\n25", ("delivered", 250, False)),
    "half a code": (b"25", DOUBT),
    "a code of which it is not certain that it is whole": (b"250", DOUBT),
    "no code": (b"Thank yo", DOUBT),
    "a consent": (b"354-go\r\n", DOUBT),
    "nothing": (b"", DOUBT),
}


@pytest.mark.parametrize(("octets", "expected"), UNENDED.values(), ids=UNENDED)
async def test_a_legible_reply_that_was_not_ended_decides_too(octets: bytes, expected: tuple[str, int, bool]) -> None:
    address, server = new_address(), LastWords(octets)
    async with internet({}, {"a.test": {"MX": "0 mx.a.test"}, "mx.a.test": {"A": address}}) as net:
        async with await asyncio.start_server(server, address, net.port):
            result = await net.send_one("x@a.test")
    assert (result.status, result.reply.code, result.in_doubt) == expected
    assert server.messages == 1


async def test_a_legible_refusal_behind_the_final_dot_decides_too() -> None:
    script = MXScript(replies={Stage.END: Raw(b"\r\n554 5.7.1 Spam\n")})
    async with internet({"a.test": [script, GOOD]}) as net:
        assert outcome(await net.send_one("x@a.test")) == ("failed", 554, "5.7.1")


# https://github.com/internetstandards/Internet.nl/issues/560, https://github.com/rnwood/smtp4dev/issues/97
OPENINGS: dict[str, tuple[Stage, bytes]] = {
    "an empty line behind the greeting": (Stage.CONNECT, b"220 mx ESMTP\r\n\r\n"),
    "an empty line before the greeting": (Stage.CONNECT, b"\r\n\n220 mx ESMTP\r\n"),
    "words before the greeting": (Stage.CONNECT, b"Welcome!\r\n220 mx ESMTP\r\n"),
    "keywords without a code behind EHLO's reply": (Stage.EHLO, b"250 Nice to meet you\r\nSIZE\r\n"),
    "keywords without a code within EHLO's reply": (Stage.EHLO, b"250-Hello\r\n8BITMIME\r\nSIZE\r\n250 OK\r\n"),
    "an empty line behind an EHLO with PIPELINING": (Stage.EHLO, b"250-mx\r\n250 PIPELINING\r\n\r\n"),
}


@pytest.mark.parametrize(("stage", "octets"), OPENINGS.values(), ids=OPENINGS)
async def test_lines_without_a_code_before_mail_are_skipped(stage: Stage, octets: bytes) -> None:
    async with internet({"a.test": [MXScript(replies={stage: Raw(octets)})]}) as net:
        assert (await net.send_one("x@a.test")).status == "delivered"


async def test_who_never_gives_a_reply_is_quoted() -> None:
    script = MXScript(replies={Stage.EHLO: Raw(b"HTTP/1.1 400 'Bad'\r\n")})
    async with internet({"a.test": [script]}, directives=SHORT) as net:
        result = await net.send_one("x@a.test")
    assert outcome(result) == ("deferred", 451, "4.5.0")
    assert result.reply.text == "mx0.a.test broke the protocol: not a reply: HTTP/1.1 400 'Bad'"


async def test_our_own_time_out_behind_the_final_dot_is_called_what_it_is() -> None:
    async with internet({"a.test": [MXScript(replies={Stage.END: Silence()})]}, directives=SHORT) as net:
        result = await net.send_one("x@a.test")
    assert (outcome(result), result.in_doubt) == (("deferred", 451, "4.4.2"), True)
    assert result.reply.text == (
        "mx0.a.test: no reply came in time after the final dot, the message may have been delivered"
    )


# The words of the server that refused ---------------------------------------------------------------------------------

WORDS: dict[str, tuple[Stage, bytes, str]] = {
    "another code in the greeting": (Stage.CONNECT, b"220-mx welcomes you\r\n521 blocked\r\n", "521 blocked"),
    "another code in EHLO's reply": (Stage.EHLO, b"250-mx\r\n421 too busy\r\n", "421 too busy"),
    "a strange answer to DATA": (Stage.DATA, b"250 Resetting\r\n", "250 Resetting is no answer to DATA"),
}


@pytest.mark.parametrize(("stage", "octets", "words"), WORDS.values(), ids=WORDS)
async def test_the_words_of_a_reply_that_is_none_are_in_the_outcome(stage: Stage, octets: bytes, words: str) -> None:
    script = MXScript(offer=OFFERS["DATA"], replies={stage: Raw(octets)})
    async with internet({"a.test": [script]}) as net:
        result = await net.send_one("x@a.test")
    assert outcome(result) == ("deferred", 451, "4.5.0")
    assert result.reply.text.startswith("mx0.a.test broke the protocol: ")
    assert words in result.reply.text


# STARTTLS refused, and then closed ------------------------------------------------------------------------------------
# https://github.com/hardware/mailserver/issues/236

REFUSAL = "454 4.7.0 TLS not available due to local problem"


def refusing_starttls() -> MXScript:
    """Offers STARTTLS, refuses it, and closes, for as long as it is asked."""
    return MXScript(tls=MXTLS(CA().issue(["mx0.a.test"])), replies={Stage.STARTTLS: Close(REFUSAL)})


async def test_who_closes_behind_a_refusal_of_starttls_is_sent_to_in_clear_on_one_new_connection() -> None:
    async with internet({"a.test": [refusing_starttls()]}) as net:
        result = await net.send_one("x@a.test")
        assert (net.mx("a.test").opened, net.mx("a.test").accepted) == (2, 1)
        assert b"STARTTLS" not in net.mx("a.test").connections[1].said()
        await net.send_one("y@a.test")
        assert net.mx("a.test").opened == 2, "it is remembered"
    assert (result.status, stages(result)) == ("delivered", ["fallback", "delivered"])
    assert result.attempts[0].reply.text == "mx0.a.test said: TLS not available due to local problem"


async def test_who_closes_behind_a_refusal_of_starttls_is_quoted_where_tls_is_demanded() -> None:
    directives = {"mx_auth": [mailrider.LocalPolicy()]}
    async with internet({"a.test": [refusing_starttls()]}, directives=directives) as net:
        result = await net.send_one("x@a.test")
        assert (net.mx("a.test").opened, net.mx("a.test").accepted) == (1, 0)
    assert outcome(result) == ("deferred", 451, "4.7.1")
    assert REFUSAL in result.reply.text


# https://github.com/TeamNewPipe/NewPipe/issues/3040: TLS failed, and what the server said of mail in clear was a bounce
TLS_FIRST = "530 5.7.0 Must issue a STARTTLS command first"
SAID = f"mx0.a.test said: {TLS_FIRST}; and TLS failed: "


@pytest.mark.parametrize("stage", [Stage.MAIL, Stage.RCPT, Stage.DATA])
@pytest.mark.parametrize("offer", [OFFERS["DATA"], OFFERS["one by one"]], ids=["pipelining", "one by one"])
async def test_a_server_whose_tls_fails_and_that_takes_nothing_in_clear_defers(
    stage: Stage, offer: Capabilities
) -> None:
    script = MXScript(offer=offer, tls=MXTLS(fault=TLSFault.ALERT), replies={stage: TLS_FIRST})
    async with internet({"a.test": [script]}) as net:
        for _ in range(2):
            result = await net.send_one("x@a.test")
            assert (outcome(result), stages(result)) == (("deferred", 451, "4.7.5"), ["fallback", "mail"])
            assert result.reply.text.startswith(SAID)
            assert "alert" in result.reply.text


async def test_the_next_candidate_is_tried_where_the_first_wants_the_tls_that_it_refuses() -> None:
    refusing = refusing_starttls().replies[Stage.STARTTLS]
    script = MXScript(tls=refusing_starttls().tls, replies={Stage.STARTTLS: refusing, Stage.MAIL: TLS_FIRST})
    async with internet({"a.test": [script, GOOD]}) as net:
        result = await net.send_one("x@a.test")
        assert (result.status, result.mx) == ("delivered", "mx1.a.test")


async def test_tls_is_tried_again_at_once_with_a_server_that_takes_nothing_in_clear() -> None:
    """Clear is remembered for ten minutes; here it would be of no use, nor is the connection that is kept."""
    failing = MXScript(tls=MXTLS(fault=TLSFault.CLOSE))
    async with internet({"a.test": [failing]}) as net:
        assert stages(await net.send_one("x@a.test")) == ["fallback", "delivered"]
        tls = MXTLS(CA().issue(["mx0.a.test"]))
        net.mx("a.test").script = MXScript(tls=tls, replies={Stage.MAIL: [TLS_FIRST, None]})
        await net.mx("a.test").set_port_state(PortState.OPEN)
        first, second = [await net.send_one("x@a.test") for _ in range(2)]
    assert (first.status, second.status) == ("deferred", "delivered")
    assert second.security is not None
    assert second.security.tls_level is TLSLevel.ENCRYPTED


async def test_530_of_a_server_that_offers_no_tls_is_final() -> None:
    async with internet({"a.test": [MXScript(replies={Stage.MAIL: TLS_FIRST})]}) as net:
        assert outcome(await net.send_one("x@a.test")) == ("failed", 530, "5.7.0")


# CHUNKING that is offered and not known -------------------------------------------------------------------------------
# https://github.com/jstedfast/MailKit/issues/921, https://github.com/Progressiverobot/hmailserver/issues/261


def without_bdat(code: str, stage: Stage = Stage.END) -> MXScript:
    """Does not know the first BDAT, and reads what stands in it as commands."""
    refusal = Raw(f"{code} 5.5.1 Unknown command\r\n500 5.5.1 What is that?\r\n".encode())
    answers: dict[Stage, Step] = {stage: [refusal]}
    return MXScript(offer=OFFERS["BDAT"], replies=answers, recipients={"no@a.test": "550 5.1.1 Nobody"})


@pytest.mark.parametrize("code", ["500", "502"])
@pytest.mark.parametrize(
    ("stage", "message"), [(Stage.END, MESSAGE), (Stage.BDAT, LARGE)], ids=["one chunk", "several"]
)
async def test_who_offers_chunking_and_does_not_know_bdat_gets_data(code: str, stage: Stage, message: bytes) -> None:
    async with internet({"a.test": [without_bdat(code, stage)]}) as net:
        report = await net.send("x@a.test", "no@a.test", message=message)
        assert [outcome(each) for each in report] == [("delivered", 250, "2.0.0"), ("failed", 550, "5.1.1")]
        assert (await net.send_one("x@a.test")).status == "delivered"
        assert net.mx("a.test").opened == 2, "the second connection is kept"
        assert not any(isinstance(each, Bdat) for each in net.mx("a.test").connections[1].commands)


async def test_that_bdat_is_not_known_is_remembered_for_new_connections() -> None:
    async with internet({"a.test": [without_bdat("500")]}, directives={"conn_reuse_limit": 1}) as net:
        for opened in (2, 3):
            assert (await net.send_one("x@a.test")).status == "delivered"
            assert net.mx("a.test").opened == opened
        assert not any(isinstance(each, Bdat) for each in net.mx("a.test").connections[2].commands)


@pytest.mark.parametrize("reply", ["552 5.3.4 Too large", "503 5.5.1 Out of order", "554 5.6.0 No"])
async def test_what_is_said_of_the_chunk_itself_is_final(reply: str) -> None:
    async with internet({"a.test": [MXScript(offer=OFFERS["BDAT"], replies={Stage.END: reply})]}) as net:
        assert (await net.send_one("x@a.test")).status == "failed"
        assert net.mx("a.test").opened == 1


async def test_503_on_a_kept_connection_is_about_the_session() -> None:
    script = MXScript(replies={Stage.MAIL: [None, "503 5.5.1 EHLO first"]})
    async with internet({"a.test": [script]}) as net:
        assert [(await net.send_one("x@a.test")).status for _ in range(2)] == ["delivered", "delivered"]
        assert net.mx("a.test").opened == 2


async def test_a_kept_connection_that_has_carried_enough_is_followed_by_a_new_one() -> None:
    script = MXScript(replies={Stage.MAIL: [None, "452 4.5.3 Too many messages in this session"]})
    async with internet({"a.test": [script]}) as net:
        assert [(await net.send_one("x@a.test")).status for _ in range(2)] == ["delivered", "delivered"]
        assert net.mx("a.test").opened == 2


# https://github.com/lettre/lettre/issues/743: "221 Idle timeout, bye bye" was taken for the answer to the next command
@pytest.mark.parametrize("farewell", ["221 Idle timeout, bye bye", "421 4.4.2 Idle timeout"])
@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
async def test_a_farewell_that_crosses_the_next_message_costs_it_nothing(farewell: str, offer: Capabilities) -> None:
    script = MXScript(offer=offer, replies={Stage.MAIL: [None, Close(farewell)]})
    async with internet({"a.test": [script]}) as net:
        assert [(await net.send_one("x@a.test")).status for _ in range(2)] == ["delivered", "delivered"]
        assert net.mx("a.test").opened == 2


async def test_too_many_messages_on_a_new_connection_defer() -> None:
    script = MXScript(replies={Stage.MAIL: "452 4.5.3 Too many messages from you"})
    async with internet({"a.test": [script]}) as net:
        result = await net.send_one("x@a.test")
        assert outcome(result) == ("deferred", 452, "4.5.3")
        assert net.mx("a.test").opened == 1


# A server that drops the transaction with a recipient that it refuses -------------------------------------------------
# https://github.com/mailcow/mailcow-dockerized/issues/6486: "503 need MAIL command" bounced those behind a 451


@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
@pytest.mark.parametrize("refusal", ["451 4.7.1 Service unavailable", "550 5.1.1 Unknown"])
async def test_503_behind_a_refused_recipient_is_about_none_of_the_others(refusal: str, offer: Capabilities) -> None:
    script = MXScript(offer=offer, replies={Stage.RCPT: [refusal, "503 5.5.1 need MAIL", "503 5.5.1 need MAIL", None]})
    async with internet({"a.test": [script]}) as net:
        results = await net.send("x@a.test", "y@a.test", "z@a.test")
        assert [str(each.reply.code) for each in results] == [refusal[:3], "250", "250"]
        assert net.mx("a.test").accepted == 1


@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
async def test_nor_about_those_that_were_accepted_before(offer: Capabilities) -> None:
    dropped = [None, "451 4.7.1 Later", "503 5.5.1 need MAIL", None]
    replies = {Stage.RCPT: dropped, Stage.DATA: ["503 5.5.1 need RCPT", None]}
    if offer.chunking:
        replies = {Stage.RCPT: dropped, Stage.END: ["503 5.5.1 need RCPT", None]}
    async with internet({"a.test": [MXScript(offer=offer, replies=replies)]}) as net:
        results = await net.send("x@a.test", "y@a.test", "z@a.test")
        assert [each.reply.code for each in results] == [250, 451, 250]
        assert net.mx("a.test").accepted == 1


@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
async def test_a_recipient_that_is_refused_by_503_in_a_transaction_of_its_own_is_refused(offer: Capabilities) -> None:
    script = MXScript(offer=offer, replies={Stage.RCPT: ["550 5.1.1 Unknown", *["503 5.7.1 Log in first"] * 9]})
    async with internet({"a.test": [script]}) as net:
        results = await net.send("x@a.test", "y@a.test", "z@a.test")
        assert [each.reply.code for each in results] == [550, 503, 503]
        assert net.mx("a.test").accepted == 0


# An MX record that names an address -----------------------------------------------------------------------------------


async def test_an_mx_that_is_an_ip_address_is_named() -> None:
    async with internet({}, {"a.test": {"MX": "10 192.0.2.1"}}) as net:
        result = await net.send_one("x@a.test")
    assert outcome(result) == ("deferred", 451, "4.4.3")
    assert result.reply.text == "No MX record of a.test names a host: 192.0.2.1 is an IP address"
