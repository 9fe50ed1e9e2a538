"""sendmail against a daemon's socket: what it says, and how it ends."""

from __future__ import annotations

import errno
import getpass
import io
import os
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from mailrider.cli import sendmail as module
from mailrider.cli.queue import queue
from mailrider.cli.sendmail import run
from mailrider.errors import ConfigError
from mailrider.settings.socket_address import SENDMAIL_SOCKET
from tests.support.commands import run_here

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

MESSAGE = b"From: a@example.org\nTo: b@example.net\nBcc: c@example.net\nSubject: hello\n\nHello.\n.dot\n"
PROGRAM = "from mailrider.cli import main; main()"
OFFERS = b"250-mx.example.org\r\n250-SIZE 1000000\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 DSN\r\n"


class Daemon:
    """Answers each command as `answers` say, else positively; keeps what it heard. A reply of b"" hangs up."""

    def __init__(self, directory: Path, **answers: bytes) -> None:
        self.socket = directory / SENDMAIL_SOCKET
        self.answers = {"CONNECT": b"220 mx.example.org\r\n", "EHLO": OFFERS, "DATA": b"354 go on\r\n"}
        self.answers |= {verb.upper(): answer for verb, answer in answers.items()}
        self.commands: list[str] = []
        self.message = b""
        self.config = directory / "mailrider.conf"
        self.config.write_text(f"hostname mx.example.org\nruntime_dir {directory}\n")

    @contextmanager
    def running(self) -> Iterator[Daemon]:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(str(self.socket))
            listener.listen()
            thread = threading.Thread(target=self._serve, args=(listener,), daemon=True)
            thread.start()
            yield self
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(20)

    def _serve(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
            with connection, connection.makefile("rb") as file:
                self._talk(connection, file)
        except OSError:
            return  # nobody came, or who came went away

    def _talk(self, connection: socket.socket, file: BinaryIO) -> None:
        going_on = self._answer(connection, "CONNECT")
        while going_on and (line := file.readline()):
            self.commands.append(line.decode().strip())
            verb = line.split()[0].decode().upper()
            whole = line.decode().strip().upper()
            going_on = self._answer(connection, whole if whole in self.answers else verb)
            if verb == "DATA" and self.answers["DATA"].startswith(b"354"):
                first = not self.message
                while (content := file.readline()) != b".\r\n":
                    self.message += content
                self.message += content
                going_on = self._answer(connection, "DOT" if first or "DOTS" not in self.answers else "DOTS")

    def _answer(self, connection: socket.socket, verb: str) -> bool:
        answer = self.answers.get(verb, b"250 2.0.0 fine\r\n")
        connection.sendall(answer)
        return bool(answer)


def call(daemon: Daemon, *arguments: str, message: bytes = MESSAGE) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-c", PROGRAM, "-c", str(daemon.config), "sendmail", *arguments]
    return subprocess.run(command, input=message, capture_output=True, timeout=200, check=False)


def test_it_hands_over_what_t_finds_and_says_nothing(tmp_path: Path) -> None:
    with Daemon(tmp_path).running() as daemon:
        done = call(daemon, "-t", "-i", "-f", "me@example.org")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert daemon.commands == [
        "EHLO mx.example.org",
        f"MAIL FROM:<me@example.org> SIZE={len(MESSAGE) + MESSAGE.count(10)}",
        "RCPT TO:<b@example.net>",
        "RCPT TO:<c@example.net>",
        "DATA",
        "QUIT",
    ]
    assert daemon.message == MESSAGE.replace(b"\n", b"\r\n").replace(b"\r\n.", b"\r\n..") + b".\r\n"


def test_cron_needs_no_more_than_a_user_of_this_machine(tmp_path: Path) -> None:
    with Daemon(tmp_path).running() as daemon:
        done = call(daemon, "-FCronDaemon", "-odi", "-oem", "-or0s", "root", message=b"Subject: job\n\nout\n")
    assert done.returncode == 0
    # The daemon adds the domain, which it knows better.
    assert daemon.commands[1].startswith(f"MAIL FROM:<{getpass.getuser()}> ")
    assert daemon.commands[2] == "RCPT TO:<root>"
    assert daemon.message.startswith(f"From: CronDaemon <{getpass.getuser()}>\r\n".encode())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["a@x.test,b@y.test"], ["a@x.test", "b@y.test"]),  # cron's MAILTO
        (["a@x.test, b@y.test,", "a@x.test"], ["a@x.test", "b@y.test"]),
        (["<b@x.test>"], ["b@x.test"]),
        (["Bob <b@x.test>"], ["b@x.test"]),
        (['"Bob, B." <b@x.test>, root'], ["b@x.test", "root"]),
        (["a..b@x.test"], ['"a..b"@x.test']),
    ],
)
def test_a_word_may_hold_addresses_as_people_write_them(words: list[str], expected: list[str], tmp_path: Path) -> None:
    with Daemon(tmp_path).running() as daemon:
        assert call(daemon, *words).returncode == 0
    assert [line for line in daemon.commands if line.startswith("RCPT")] == [f"RCPT TO:<{each}>" for each in expected]


def test_options_may_stand_behind_recipients(tmp_path: Path) -> None:
    with Daemon(tmp_path).running() as daemon:
        assert call(daemon, "b@x.test", "-f", "Bob <bob@example.org>", "-i").returncode == 0
    assert daemon.commands[1].startswith("MAIL FROM:<bob@example.org> ")
    assert [line for line in daemon.commands if line.startswith("RCPT")] == ["RCPT TO:<b@x.test>"]


def test_a_sender_is_one_address(tmp_path: Path) -> None:
    done = call(Daemon(tmp_path), "-f", "a@x.test, b@x.test", "c@x.test")
    assert (done.returncode, b"expected one address" in done.stderr) == (os.EX_DATAERR, True)


@pytest.mark.parametrize(("offers", "size"), [(OFFERS, 100), (OFFERS.replace(b" DSN", b" LIMITS RCPTMAX=3"), 3)])
def test_more_recipients_than_a_transaction_takes_have_several(offers: bytes, size: int, tmp_path: Path) -> None:
    count = 2 * size + 1
    with Daemon(tmp_path, ehlo=offers).running() as daemon:
        assert call(daemon, *(f"b{number}@x.test" for number in range(count))).returncode == 0
    verbs = "".join(line[0] for line in daemon.commands)
    full, rest = "M" + "R" * size, "MR"
    assert verbs == "E" + 2 * (full + "R") + rest + "R" + 2 * (full + "D") + rest + "D" + "Q"
    assert daemon.message.count(b"\r\n.\r\n") == 3


def test_of_many_recipients_too_none_gets_it_if_one_is_refused(tmp_path: Path) -> None:
    with Daemon(tmp_path, **{"rcpt to:<b150@x.test>": b"550 5.1.1 nobody\r\n"}).running() as daemon:
        done = call(daemon, *(f"b{number}@x.test" for number in range(200)))
    assert (done.returncode, daemon.message) == (os.EX_NOUSER, b"")


def test_if_the_second_part_is_refused_it_says_who_has_the_first(tmp_path: Path) -> None:
    with Daemon(tmp_path, dots=b"554 5.7.1 no\r\n").running() as daemon:
        done = call(daemon, *(f"b{number}@x.test" for number in range(200)))
    assert done.returncode == os.EX_UNAVAILABLE
    assert done.stderr == b"sendmail: 100 recipients will get it, the others not: 554 5.7.1 no\n"


def test_a_header_in_latin1_is_no_reason_to_ask_for_smtputf8(tmp_path: Path) -> None:
    with Daemon(tmp_path).running() as daemon:
        assert call(daemon, "b@example.net", message=b"Subject: gr\xfc\xdfe\n\n").returncode == 0
    assert daemon.commands[1].endswith("BODY=8BITMIME")


def test_nor_is_one_in_utf8_where_all_addresses_are_ascii(tmp_path: Path) -> None:
    with Daemon(tmp_path).running() as daemon:
        assert call(daemon, "b@example.net", message="Subject: grüße\n\n".encode()).returncode == 0
    assert daemon.commands[1].endswith("BODY=8BITMIME")


DIALOGUE = b"EHLO x\r\nMAIL FROM:<a@x.test>\r\nRCPT TO:<b@x.test>\r\nDATA\r\nSubject: x\r\n\r\nbody\r\n.\r\n"


@pytest.mark.parametrize("end", [b"QUIT\r\n", b""])
def test_with_bs_smtp_is_spoken_on_standard_input_and_output(end: bytes, tmp_path: Path) -> None:
    with Daemon(tmp_path, quit=b"").running() as daemon:
        done = call(daemon, "-bs", message=DIALOGUE + end)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"220 mx.example.org\r\n" + OFFERS)
    assert daemon.message == b"Subject: x\r\n\r\nbody\r\n.\r\n"


def test_with_bs_a_daemon_that_is_down_is_told_in_smtp(tmp_path: Path) -> None:
    done = call(Daemon(tmp_path), "-bs", message=b"")
    assert (done.returncode, done.stdout[:10]) == (os.EX_TEMPFAIL, b"421 4.3.2 ")


QUEUE = "state_dir {folder}\ntarget.queue {{\n target smtp {{\n host tcp://127.0.0.1:1\n }}\n location queue\n}}\n"


@pytest.mark.parametrize(("option", "said"), [("-bp", b"0 recipients\n"), ("-q", b"")])
def test_the_queue_is_shown_and_run(option: str, said: bytes, tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    daemon.config.write_text(daemon.config.read_text() + QUEUE.format(folder=tmp_path))
    done = call(daemon, option, message=b"")
    assert (done.returncode, done.stdout + done.stderr) == (0, said)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (PermissionError(13, "no", "/queue"), os.EX_NOPERM),
        (OSError(5, "broken"), os.EX_TEMPFAIL),
        (ConfigError("there are several"), os.EX_CONFIG),
    ],
)
def test_a_queue_that_cannot_be_shown_says_why(error: Exception, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(queue, "main", fail)
    assert run(["-bp"], None) == code


def test_wishes_for_notifications_are_passed_on(tmp_path: Path) -> None:
    with Daemon(tmp_path).running() as daemon:
        assert call(daemon, "-f", "", "-N", "failure", "-R", "hdrs", "-V", "id1", "b@example.net").returncode == 0
    assert daemon.commands[1].startswith("MAIL FROM:<> ")
    assert daemon.commands[1].endswith("RET=HDRS ENVID=id1")
    assert daemon.commands[2] == "RCPT TO:<b@example.net> NOTIFY=FAILURE ORCPT=rfc822;b@example.net"


def test_international_mail_says_so(tmp_path: Path) -> None:
    with Daemon(tmp_path).running() as daemon:
        assert call(daemon, "ä@example.net", message="Subject: grüße\n\n".encode()).returncode == 0
    assert "BODY=8BITMIME SMTPUTF8" in daemon.commands[1]
    assert daemon.commands[2] == "RCPT TO:<ä@example.net>"


@pytest.mark.parametrize(
    ("answers", "code"),
    [
        ({"connect": b"421 4.3.2 busy\r\n"}, os.EX_TEMPFAIL),
        ({"connect": b"554 no\r\n"}, os.EX_UNAVAILABLE),
        ({"connect": b""}, os.EX_TEMPFAIL),
        ({"connect": b"hello\r\n"}, os.EX_TEMPFAIL),
        ({"mail": b"452 4.3.1 full\r\n"}, os.EX_TEMPFAIL),
        ({"mail": b"552 5.3.4 too large\r\n"}, os.EX_UNAVAILABLE),
        ({"rcpt": b"550 5.1.1 nobody\r\n"}, os.EX_NOUSER),
        ({"rcpt": b"501 5.1.3 what\r\n"}, os.EX_DATAERR),
        ({"rcpt": b"451 4.3.0 later\r\n"}, os.EX_TEMPFAIL),
        ({"data": b"554 5.0.0 no\r\n"}, os.EX_UNAVAILABLE),
        ({"dot": b"451 4.3.0 later\r\n"}, os.EX_TEMPFAIL),
        ({"dot": b"554 5.7.1 spam\r\n"}, os.EX_UNAVAILABLE),
        ({"dot": b""}, os.EX_TEMPFAIL),
        ({"quit": b""}, os.EX_OK),
    ],
)
def test_every_refusal_has_its_exit_code(
    answers: dict[str, bytes], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", _stdin(MESSAGE))
    with Daemon(tmp_path, **answers).running() as daemon:
        assert run(["-t", "-i"], str(daemon.config)) == code


def _stdin(message: bytes) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(message))


def test_a_refused_recipient_means_that_nothing_is_sent(tmp_path: Path) -> None:
    with Daemon(tmp_path, rcpt=b"550 5.1.1 nobody\r\n").running() as daemon:
        done = call(daemon, "-i", "b@example.net", "c@example.net")
    assert done.returncode == os.EX_NOUSER
    assert done.stderr == b"sendmail: b@example.net: 550 5.1.1 nobody\n"
    assert daemon.message == b""


def test_a_daemon_that_is_down_is_a_reason_to_try_again(tmp_path: Path) -> None:
    done = call(Daemon(tmp_path), "b@example.net")
    assert done.returncode == os.EX_TEMPFAIL
    assert b"the daemon does not answer at" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (["-z"], MESSAGE, os.EX_USAGE),
        ([], MESSAGE, os.EX_USAGE),
        (["-t"], b"Subject: to nobody\n\n", os.EX_USAGE),
        (["a b@example.net"], MESSAGE, os.EX_DATAERR),
        (["-f", "a b", "b@example.net"], MESSAGE, os.EX_DATAERR),
        (["-bi"], b"", os.EX_OK),
    ],
)
def test_what_is_wrong_with_us_is_told_before_the_daemon_is_asked(
    arguments: list[str], message: bytes, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", _stdin(message))
    assert run(arguments, str(Daemon(tmp_path).config)) == code


def test_a_message_without_bounds_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_MESSAGE", 10)
    monkeypatch.setattr(sys, "stdin", _stdin(MESSAGE))
    assert run(["b@example.net"], str(Daemon(tmp_path).config)) == os.EX_DATAERR


def test_a_configuration_that_was_named_has_to_be_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", _stdin(MESSAGE))
    assert run(["b@example.net"], str(tmp_path / "none.conf")) == os.EX_CONFIG


ENDPOINTS = """
submission tcp://127.0.0.1:2587 unix://{folder}/own.sock {{
    reject
}}
"""


@pytest.mark.parametrize("more", ["", "submission unix://{folder}/submission.sock {{ reject }}\n"])
def test_the_socket_is_that_of_the_submission_endpoint(
    more: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", _stdin(MESSAGE))
    daemon = Daemon(tmp_path)
    daemon.config.write_text(daemon.config.read_text() + (ENDPOINTS + more).format(folder=tmp_path))
    if not more:
        daemon.socket.touch()  # somebody else's, or left behind
        daemon.socket = tmp_path / "own.sock"
    with daemon.running():
        assert run(["-i", "b@example.net"], str(daemon.config)) == os.EX_OK
    assert daemon.message


def test_the_command_finds_its_configuration_as_all_commands_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with Daemon(tmp_path).running() as daemon:
        assert run_here("sendmail", "-i", "b@example.net", stdin=MESSAGE).code == os.EX_OK
    assert daemon.message
    daemon.config.write_text("hostnam x\n")
    assert run_here("sendmail", "-i", "b@example.net", stdin=MESSAGE).code == os.EX_CONFIG


@pytest.mark.parametrize("options", [[], ["-i"], ["-i", "-f", "me@example.org"]])
def test_behind_two_dashes_an_address_is_never_an_option(options: list[str], tmp_path: Path) -> None:
    with Daemon(tmp_path).running() as daemon:
        assert call(daemon, *options, "--", "-bs@example.net").returncode == os.EX_OK
    assert daemon.commands[2] == "RCPT TO:<-bs@example.net>"


# https://github.com/pixelb/crudini/issues/67
@pytest.mark.parametrize("words", ["sendmail b@example.net", "sendmail -bs", "auth --file pw add joe", "migrate -"])
def test_standard_input_that_is_closed_is_told(words: str, tmp_path: Path) -> None:
    with Daemon(tmp_path).running() as daemon:
        command = [sys.executable, "-c", PROGRAM, "-c", str(daemon.config), *words.split()]
        done = subprocess.run(
            ["sh", "-c", 'exec "$@" 0<&-', "sh", *command], cwd=tmp_path, capture_output=True, timeout=200, check=False
        )
    assert (done.returncode, done.stderr.partition(b": ")[2]) == (os.EX_NOINPUT, b"standard input is closed\n")


class Broken(io.RawIOBase):
    """A terminal that is gone."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_standard_input_that_cannot_be_read_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(Broken())))
    assert run(["b@example.net"], str(Daemon(tmp_path).config)) == os.EX_NOINPUT
    assert capsys.readouterr().err == "sendmail: standard input cannot be read: Input/output error\n"


def test_without_a_configuration_the_usual_places_are_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SYSTEM_CONFIG", tmp_path / "none.conf")
    monkeypatch.setattr(module, "SYSTEM_RUNTIME_DIR", tmp_path / "none")
    monkeypatch.setattr(module, "default_runtime_dir", lambda: tmp_path)
    monkeypatch.setattr(sys, "stdin", _stdin(MESSAGE))
    with Daemon(tmp_path).running() as daemon:
        assert run(["-i", "b@example.net"], None) == os.EX_OK
    assert daemon.message


def test_a_folder_that_we_may_not_look_into_is_told_as_a_socket_that_we_may_not_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon = Daemon(tmp_path)
    look = os.stat

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    def refuse_the_socket(path: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        if path == daemon.socket:
            refuse()
        return look(path, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(sys, "stdin", _stdin(MESSAGE))
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(os, "stat", refuse_the_socket)
    assert run(["-i", "b@example.net"], str(daemon.config)) == os.EX_NOPERM
    assert capsys.readouterr().err == f"sendmail: {daemon.socket} may not be used: Permission denied\n"


def test_a_socket_that_we_may_not_use_is_no_reason_to_try_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(sys, "stdin", _stdin(MESSAGE))
    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert run(["-i", "b@example.net"], str(Daemon(tmp_path).config)) == os.EX_NOPERM


@pytest.mark.parametrize(
    ("words", "code"), [("sendmail -z", os.EX_USAGE), ("newaliases", os.EX_OK), ("mailq -z", os.EX_USAGE)]
)
def test_the_program_may_be_called_by_another_name(words: str, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", f"/usr/sbin/{words}".split())
    with pytest.raises(SystemExit) as ended:
        module.main()
    assert ended.value.code == code
