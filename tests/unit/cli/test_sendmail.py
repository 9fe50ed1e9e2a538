"""sendmail's options and messages, as the programs give them that call it."""

from __future__ import annotations

from typing import Any

import pytest

from mailrider.cli.sendmail_message import from_field, read_message, recipients_in
from mailrider.cli.sendmail_options import Mode, Options, UsageError, parse_options
from mailrider.errors import InvalidValue
from mailrider.model.envelope import Notify, Ret


def parsed(line: str) -> Options:
    return parse_options(line.split())


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("-t -i", {"recipients_from_header": True, "dot_ends": False}),  # PHP
        ("-ti", {"recipients_from_header": True, "dot_ends": False}),
        ("-t -i -fbounces@example.org", {"sender": "bounces@example.org"}),  # PHP, with additional parameters
        ("-FCronDaemon -i -B8BITMIME -oem root", {"full_name": "CronDaemon", "recipients": ("root",)}),  # Debian's cron
        ("-FCronDaemon -odi -oem -or0s root", {"full_name": "CronDaemon", "dot_ends": True}),  # Vixie's cron
        ("-i -f a@example.org b@example.net c@example.net", {"recipients": ("b@example.net", "c@example.net")}),  # git
        ("-oi -f a@example.org -- -odd@example.net", {"dot_ends": False, "recipients": ("-odd@example.net",)}),
        ("-r a@example.org b@example.net", {"sender": "a@example.org"}),  # mailx
        ("-f <> b@example.net", {"sender": "<>"}),
        ("-f<a@example.org> b@example.net", {"sender": "<a@example.org>"}),
        # As with all programs of GNU.
        ("b@example.net -fa@example.org", {"sender": "a@example.org", "recipients": ("b@example.net",)}),
        ("b@example.net -f a@example.org -i", {"sender": "a@example.org", "dot_ends": False}),
        ("b c -- -d", {"recipients": ("b", "c", "-d")}),
        ("-tif a@example.org", {"recipients_from_header": True, "dot_ends": False, "sender": "a@example.org"}),
        ("-oem -oi -f a@example.org -N never -R hdrs -B8BITMIME -- b", {"recipients": ("b",)}),  # mutt
        ("-odq -oee -om -oo -ov -oT1h -oMr -o7 -o 8 b", {"dot_ends": True, "recipients": ("b",)}),
        # https://www.exim.org/exim-html-current/doc/html/spec_html/ch-the_exim_command_line.html
        ("-oMr esmtp -oMa 192.0.2.1 -or 5m -oMs relay.example.org -oi b c", {"recipients": ("b", "c")}),
        ("-O IgnoreDots -ODeliveryMode=b -O Timeout.queuereturn=1d b", {"dot_ends": False, "recipients": ("b",)}),
        ("-em -c -x -v b", {"recipients": ("b",)}),  # as Postfix takes them
        ("-bs", {"mode": Mode.SPEAK_SMTP}),  # Symfony, Laravel
        ("-t -bs", {"mode": Mode.SPEAK_SMTP}),
        ("-bp", {"mode": Mode.LIST_QUEUE}),
        ("-q", {"mode": Mode.RUN_QUEUE}),
        ("-I", {"mode": Mode.NOTHING}),
        ("-N failure,delay -R hdrs -V id1 b", {"notify": Notify.FAILURE | Notify.DELAY, "ret": Ret.HEADERS}),
        ("-Nnever b", {"notify": Notify.NEVER}),
        ("-v -U -G -m -n -L tag -X /log -O Timeout=1 -h 3 -p x -A m b", {"recipients": ("b",)}),
        ("-bm b", {"mode": Mode.DELIVER}),
        ("-bi", {"mode": Mode.NOTHING}),
        ("-o i b", {"dot_ends": False}),
        ("b", {"recipients": ("b",), "sender": None, "dot_ends": True}),
        ("", {"recipients": ()}),
    ],
)
def test_options_as_programs_give_them(line: str, expected: dict[str, Any]) -> None:
    options = parsed(line)
    assert {name: getattr(options, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("name", "line", "mode"),
    [
        ("sendmail", "", Mode.DELIVER),
        ("mailq", "", Mode.LIST_QUEUE),
        ("newaliases", "", Mode.NOTHING),
        ("newaliases", "-v", Mode.NOTHING),
        ("mailq", "-q", Mode.RUN_QUEUE),
    ],
)
def test_the_name_says_what_is_to_be_done(name: str, line: str, mode: Mode) -> None:
    assert parse_options(line.split(), name).mode is mode


def test_an_empty_sender_is_the_null_sender() -> None:
    assert parse_options(["-f", "", "b"]).sender == ""


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("-f", "-f needs a value"),
        ("-L", "-L needs a value"),
        ("-z", "unknown option -z"),
        ("-iz", "unknown option -z"),
        ("-N sometimes", "-N sometimes: "),
        ("-R some", "full or hdrs"),
        ("-R hdr\N{LATIN SMALL LETTER LONG S}", "full or hdrs"),
        ("-B 7b\N{LATIN SMALL LETTER DOTLESS I}t", "7BIT or 8BITMIME"),
        ("-V \u00e4", "-V \u00e4: "),
        ("-", "unknown option -"),
        ("-bd", "mailrider run"),
        ("-bv", "not verified"),
        ("-C /cf", "mailrider -c FILE sendmail"),
        ("-d0.1", "debugging"),
        ("-B 9BIT", "7BIT or 8BITMIME"),
        ("-oQ/tmp", "-o Q/tmp: this setting is not known"),
        ("-O QueueDirectory=/tmp", "this setting is not known"),
        ("b@example.net -z", "unknown option -z"),
        ("-bx", "unknown mode"),
        ("-q15m", "mailrider queue retry"),
        ("--help", "unknown option --help"),
    ],
)
def test_what_makes_no_sense_is_told(line: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        parsed(line)


@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        (b"Subject: x\n\nbody\n", b"Subject: x\r\n\r\nbody\r\n"),
        (b"Subject: x\r\n\r\nbody\r\n", b"Subject: x\r\n\r\nbody\r\n"),
        (b"Subject: x\n folded\n\n", b"Subject: x\r\n folded\r\n\r\n"),
        (b"no header at all\n", b"\r\nno header at all\r\n"),
        (b"Subject: x\nbody\n", b"Subject: x\r\n\r\nbody\r\n"),
        (b" indented\n", b"\r\n indented\r\n"),
        (b"\nbody: x\n", b"\r\nbody: x\r\n"),
        (b"From a@b Sat Nov 21\nSubject: x\n\nb\n", b"Subject: x\r\n\r\nb\r\n"),
        (b">From a@b\nFrom c@d\nSubject: x\n\n", b"Subject: x\r\n\r\n"),
        (b"Subject: x", b"Subject: x\r\n"),
        (b"\xef\xbb\xbfSubject: x\n\nb\n", b"Subject: x\r\n\r\nb\r\n"),
        (b"Subject: x\nnot folded\nTo: b@x\n\nb\n", b"Subject: x\r\n not folded\r\nTo: b@x\r\n\r\nb\r\n"),
        (b"", b""),
        (b"Subject: x\n\na\n.\nb\n", b"Subject: x\r\n\r\na\r\n"),
        (b"Subject: x\n\na\n..\n.b\n", b"Subject: x\r\n\r\na\r\n..\r\n.b\r\n"),
    ],
)
def test_what_is_less_than_a_message_is_made_one(octets: bytes, expected: bytes) -> None:
    assert b"".join(read_message(octets, dot_ends=True).chunks()) == expected


@pytest.mark.parametrize("end", [b"", b"\r"])
def test_a_lone_dot_ends_the_message_without_an_end_of_its_own_too(end: bytes) -> None:  # as with Postfix
    assert b"".join(read_message(b"Subject: x\n\na\n." + end, dot_ends=True).chunks()) == b"Subject: x\r\n\r\na\r\n"
    assert b"".join(read_message(b"Subject: x\n\na.", dot_ends=True).chunks()).endswith(b"\r\na.\r\n")


def test_with_i_a_lone_dot_is_a_line_like_others() -> None:
    content = read_message(b"Subject: x\n\na\n.\nb\n", dot_ends=False)
    assert b"".join(content.chunks()) == b"Subject: x\r\n\r\na\r\n.\r\nb\r\n"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b"To: a@x, B <b@x>\nCc: c@x\nBcc: d@x\n", ["a@x", "b@x", "c@x", "d@x"]),
        (b"To: a@x,\n\tA <a@x>\nFrom: no@x\n", ["a@x"]),
        (b"To: root\n", ["root"]),
        (b"To: undisclosed-recipients:;\nBcc: d@x\n", ["d@x"]),
        (b"To: old@x\nResent-To: new@x\nResent-Bcc: too@x\n", ["new@x", "too@x"]),
        ("To: Ä <ä@x>\n".encode(), ["ä@x"]),
        (b"To: a@x,, b@x,\n", ["a@x", "b@x"]),
        (b"To: a@x (Smith, A)\n", ["a@x"]),
        (b"To: a@x <b@x>\n", ["b@x"]),
        (b"Cc: Team: a@x, <b@x>;\n", ["a@x", "b@x"]),
        (b'To: "a, b@y" <c@x>, <>\n', ["c@x"]),
        (b"Subject: none\n", []),
    ],
)
def test_the_header_names_recipients(header: bytes, expected: list[str]) -> None:
    assert recipients_in(read_message(header + b"\n", dot_ends=True).header) == expected


@pytest.mark.parametrize(
    "field", [b"To: a@x b@x\n", b"To: a@x; b@x\n", b"Cc: <a@x\n", b"Bcc: a@x (\n", b"To: \xff@x\n"]
)
def test_recipients_that_are_not_certain_are_refused(field: bytes) -> None:
    with pytest.raises(InvalidValue):
        recipients_in(read_message(field + b"\n", dot_ends=True).header)


@pytest.mark.parametrize(
    ("address", "name", "expected"),
    [
        ("root@mx.example.org", "", "From: root@mx.example.org"),
        ("root@mx.example.org", "Cron Daemon", "From: Cron Daemon <root@mx.example.org>"),
        ("root@mx.example.org", "A, B", 'From: "A, B" <root@mx.example.org>'),
        ("root@mx.example.org", "Ä\nX: y", "From: =?utf-8?"),
        ("root@mx.example.org", 'A "B" \\', 'From: "A \\"B\\" \\\\" <root@mx.example.org>'),
        ("root@mx.example.org", "=?utf-8?q?x?=", "From: =?utf-8?q?=3D=3Futf-8=3Fq=3Fx=3F=3D?= <root@mx.example.org>"),
        ("ä@example.org", "", "From: <ä@example.org>"),
        ("ä@example.org", "B", "From: B <ä@example.org>"),
    ],
)
def test_a_missing_from_is_added(address: str, name: str, expected: str) -> None:
    field = from_field(b"Subject: x\r\n", address, name).decode()
    assert field.startswith(expected)
    assert field.count("\r\n") == 1
    assert from_field(b"From: a@x\r\n", address, name) == b""


def test_a_long_name_is_folded() -> None:
    field = from_field(b"Subject: x\r\n", "root@mx.example.org", "Ä" * 1000).decode()
    lines = field.removesuffix("\r\n").split("\r\n")
    assert len(lines) > 1
    assert all(line.startswith(" =?utf-8?q?") for line in lines[1:])
    assert lines[-1].endswith("?= <root@mx.example.org>")
