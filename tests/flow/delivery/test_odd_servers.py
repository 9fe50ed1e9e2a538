"""Servers that others met in the field: what became of their mail is a bug report, what becomes of ours stands here.

Each case names the report, where there is one.
"""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from mailrider.lab.ca import CA
from mailrider.lab.mx_script import MXScript
from mailrider.net.tls import make_server_context
from mailrider.smtp.capabilities import Capabilities
from mailrider.smtp.content import Content
from tests.flow.delivery.internet import REFUSING, internet, outcome, stages
from tests.support.loops import LOOPS, run_clean

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator
    from pathlib import Path

GOOD = MXScript()
DATA = Capabilities(pipelining=True)
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
