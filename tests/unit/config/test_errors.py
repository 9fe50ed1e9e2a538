"""What is said of a configuration that is wrong: every kind of error, by name, with its place."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrider.config.kinds import top_level_names
from mailrider.config.secrets import may_hold_secret
from mailrider.config.source import MAX_PROBLEMS, Position, Problems, Source, TooMuch
from mailrider.errors import ConfigError, Problem
from mailrider.model.text import few
from tests.unit.config.reading import TARGETS, errors, read

# What stands in a target, from line 3 on; there is a `limits few { }` at the top level.
REMOTE = {
    "a directive with a slip": (
        "conect_timeout 5m",
        '3:1 unknown directive "conect_timeout" in target.remote; did you mean "connect_timeout"?',
    ),
    "a directive of another block": ("dane { }", "3:1 dane does not stand in target.remote; it belongs in mx_auth"),
    "a directive of the top level": (
        "state_dir /x",
        "3:1 state_dir does not stand in target.remote; it belongs at the top level",
    ),
    "a directive of two other blocks": (
        "root_ca /x",
        "3:1 root_ca does not stand in target.remote; it belongs in tls_client, in tlsrpt or in mtasts",
    ),
    "a directive that a target inherits and does not take": (
        "dns { }",
        "3:1 dns does not stand in target.remote; it belongs at the top level",
    ),
    "a directive of a later block": (
        "max_tries 3",
        "3:1 max_tries does not stand in target.remote; it belongs in target.queue",
    ),
    "no space before the brace": ("mx_auth{", '3:1 expected a space before the { in "mx_auth{"'),
    "a directive twice": ("port 25\nport 26", "4:1 port is there twice; first at mailrider.conf:3:1"),
    "a block twice": ("mx_auth { }\nmx_auth { }", "4:1 mx_auth is there twice; first at mailrider.conf:3:1"),
    "no argument": ("port", "3:1 port: expected a whole number from 1 to 65535"),
    "an argument that is an undefined macro": (
        "port $(port) $(x)",
        "3:1 port: expected a whole number from 1 to 65535 ($(port), $(x) is not defined, and so is nothing)",
    ),
    "an argument with an undefined macro": (
        "local_ip 192.0.2.$(x)",
        '3:10 local_ip: expected an IPv4 or IPv6 address, not "192.0.2." ($(x) is not defined, and so is nothing)',
    ),
    "an unset variable": ("port {env:PORT}", '3:6 port: expected a whole number from 1 to 65535, not ""'),
    "an argument too many": ("port 25 26", '3:9 port takes one argument; "26" is too much'),
    "a block that is not taken": ("port 25 { }", "3:1 port takes no block, but a whole number from 1 to 65535"),
    "a number that is none": ("port smtp", '3:6 port: expected a whole number from 1 to 65535, not "smtp"'),
    "a number out of its bounds": ("port 65536", '3:6 port: expected a whole number from 1 to 65535, not "65536"'),
    "a negative number": ("conn_reuse_limit -1", '3:18 conn_reuse_limit: expected a whole number, 1 or more, not "-1"'),
    "an IPv6 address where only IPv4 is used": (
        "local_ip 2001:db8::1\nforce_ipv4 yes",
        "3:1 local_ip: expected an IPv4 address beside force_ipv4 yes, not 2001:db8::1",
    ),
    "a boolean that is none": ("force_ipv4 maybe", '3:12 force_ipv4: expected yes or no, not "maybe"'),
    "a boolean with a slip": (
        "force_ipv4 yess",
        '3:12 force_ipv4: expected yes or no, not "yess"; did you mean "yes"?',
    ),
    "a word that is not among the choices": (
        "eight_bit convert",
        '3:11 eight_bit: expected send or strict, not "convert"',
    ),
    "a word with a slip": (
        "eight_bit strickt",
        '3:11 eight_bit: expected send or strict, not "strickt"; did you mean "strict"?',
    ),
    "a duration without a unit": (
        "connect_timeout 30",
        '3:17 connect_timeout: expected a duration with its unit, not "30"; did you mean "30s"?',
    ),
    "a duration with an unknown unit": (
        "connect_timeout 1w",
        '3:17 connect_timeout: expected a duration longer than 0, such as 1h5m, 30s or 150ms, not "1w"',
    ),
    "a timeout of nothing": (
        "connect_timeout 0",
        '3:17 connect_timeout: expected a duration longer than 0, such as 1h5m, 30s or 150ms, not "0"',
    ),
    "seconds or a duration that is neither": (
        "conn_max_idle_time x",
        '3:20 conn_max_idle_time: expected a number of seconds or a duration, such as 1h5m, 30s or 150ms, not "x"',
    ),
    "a domain that is none": (
        "hostname mx..example",
        '3:10 hostname: expected a domain name such as mx.example.org, not "mx..example"',
    ),
    "an address that is none": (
        "local_ip 192.0.2.256",
        '3:10 local_ip: expected an IPv4 or IPv6 address, not "192.0.2.256"',
    ),
    "a network with host bits": (
        "prohibited_addresses 10.0.0.1/8",
        '3:22 prohibited_addresses: expected a network, but "10.0.0.1/8" has host bits set; did you mean 10.0.0.0/8?',
    ),
    "a network that is none": (
        "prohibited_addresses ::/0 ten/8",
        '3:27 prohibited_addresses: expected a network such as 10.0.0.0/8 or fc00::/7, not "ten/8"',
    ),
    "none among others": (
        "prohibited_addresses 10.0.0.0/8 none",
        '3:33 prohibited_addresses: expected a network such as 10.0.0.0/8 or fc00::/7, not "none"',
    ),
    "none with a slip": (
        "prohibited_addresses non",
        '3:22 prohibited_addresses: expected a network such as 10.0.0.0/8 or fc00::/7, not "non"; did you mean "none"?',
    ),
    "a block without braces": ("tls_client", "3:1 tls_client: expected tls_client { ... }"),
    "a block with an argument": (
        "tls_client x { }",
        '3:12 tls_client: expected tls_client { ... }; "x" is too much',
    ),
    "a reference where none is taken": (
        "tls_client &x",
        '3:12 tls_client: expected tls_client { ... }, not "&x"',
    ),
    "a block that may be a reference": ("limits", "3:1 limits: expected limits { ... } or limits &NAME"),
    "a reference with a block": (
        "limits &few { }",
        '3:8 limits: expected limits { ... } or limits &NAME; "&few" is too much',
    ),
    "two references": (
        "limits &few &more",
        '3:13 limits: expected limits { ... } or limits &NAME; "&more" is too much',
    ),
    "a reference without its &": (
        "limits few",
        '3:8 limits: expected limits { ... } or limits &NAME, not "few"; did you mean "&few"?',
    ),
    "a reference to nothing": ("limits &", '3:8 limits: no block is named ""; there are: &few'),
    "a reference to what is not there": (
        "limits &most",
        '3:8 limits: no block is named "most"; there are: &few',
    ),
    "a reference with a slip": ("limits &fev", '3:8 limits: no block is named "fev"; did you mean "&few"?'),
    "a reference to the first of its kind": (
        "mx_auth &strict",
        '3:9 mx_auth: no block is named "strict"; it would be defined at the top level: mx_auth strict { ... }',
    ),
    "a reference to another kind": (
        "mx_auth &few",
        "3:9 mx_auth: &few is of kind limits (at mailrider.conf:1:1), but has to be of kind mx_auth",
    ),
    "a policy twice": (
        "mx_auth {\ndane\ndane\n}",
        "5:1 dane is there twice; first at mailrider.conf:4:1",
    ),
    "a policy that is none": ("mx_auth {\ndan\n}", '4:1 unknown directive "dan" in mx_auth; did you mean "dane"?'),
    "a directive where there are none": (
        "mx_auth {\ndane {\nusage 3\n}\n}",
        '5:1 unknown directive "usage" in dane, which has none',
    ),
    "a directive that is nothing like any": (
        "mx_auth {\nzzz\n}",
        '4:1 unknown directive "zzz" in mx_auth; known here: mtasts, dane, dnssec, local_policy',
    ),
    "a shorthand with a slip": (
        "mx_auth {\nlocal_policy on\n}",
        '4:14 local_policy: expected local_policy { ... } or local_policy off, not "on"',
    ),
    "a limit of no kind": (
        "limits {\nall rte 5\n}",
        (
            "4:5 all: expected rate BURST [PERIOD], such as rate 20 1s, or concurrency MAX,"
            ' not "rte 5"; did you mean "rate"?'
        ),
    ),
    "a limit without a number": (
        "limits {\nall rate\n}",
        '4:5 all: expected rate BURST [PERIOD], such as rate 20 1s, or concurrency MAX, not "rate"',
    ),
    "a limit of nothing": (
        "limits {\nall concurrency 0\n}",
        "4:5 all: expected a whole number, 1 or more, not 0",
    ),
    "a limit in no time": (
        "limits {\nall rate 5 0\n}",
        '4:5 all: expected a duration longer than 0, such as 1h5m, 30s or 150ms, not "0"',
    ),
    "a scope that is none": (
        "limits {\nsorce rate 5\n}",
        '4:1 unknown directive "sorce" in limits; did you mean "source"?',
    ),
    "a TLS version that is none": (
        "tls_client {\nprotocols tls1.2 tls1.4\n}",
        (
            "4:11 protocols: expected the oldest and the newest protocol version, of tls1.0, tls1.1, tls1.2 or tls1.3,"
            ' not "tls1.2 tls1.4"; did you mean "tls1.3"?'
        ),
    ),
    "TLS versions the wrong way round": (
        "tls_client {\nprotocols tls1.3 tls1.2\n}",
        (
            "4:11 protocols: expected the oldest and the newest protocol version, of tls1.0, tls1.1, tls1.2 or tls1.3,"
            ' not "tls1.3 tls1.2"'
        ),
    ),
    "a curve that is none": (
        "tls_client {\ncurves p256 p257\n}",
        '4:13 curves: expected x25519, x448, p256, p384 or p521, not "p257"; did you mean "p256"?',
    ),
    "a cipher that cannot be": (
        'tls_client {\nciphers "a b"\n}',
        '4:9 ciphers: expected a cipher name as OpenSSL writes it, not "a b"',
    ),
    "a certificate without its key": ("tls_client {\ncert /x\n}", "4:1 cert needs key beside it"),
    "a key without its certificate": ("tls_client {\nkey /x\n}", "4:1 key needs cert beside it"),
    "a path that is empty": ('tls_client {\nroot_ca ""\n}', '4:9 root_ca: expected a path, not ""'),
}


@pytest.mark.parametrize("case", REMOTE)
def test_in_a_target(case: str) -> None:
    directives, message = REMOTE[case]
    text = f"limits few {{ }}\ntarget.remote out {{\n{directives}\n}}\nhostname mx.example.org\n"
    assert errors(text) == [message]


REPORTS = "tlsrpt {\norganization x\ncontact a@example.org\n"
QUEUE = "target.queue q {\ntarget remote { hostname a.b }\n}"
KNOWN = f"known here: {few(top_level_names())}"

TOP_LEVEL = {
    "a directive with a slip": (
        "hostnam x",
        '1:1 unknown directive "hostnam" at the top level; did you mean "hostname"?',
    ),
    "a kind without its prefix": (
        "remote x { }",
        '1:1 unknown directive "remote" at the top level; did you mean "target.remote"?',
    ),
    "a directive of a block": ("server 127.0.0.1", "1:1 server does not stand at the top level; it belongs in dns"),
    "a directive of a later block": (
        "default_destination { }",
        (
            "1:1 default_destination does not stand at the top level; "
            "it belongs in submission, in smtp, in lmtp, in bounce or in source"
        ),
    ),
    "a global directive twice": ("debug no\ndebug no", "2:1 debug is there twice; first at mailrider.conf:1:1"),
    "a block without a name that needs one": (
        "limits { }",
        (
            "1:1 limits at the top level needs a name, so that it can be used as limits &NAME:"
            " expected limits NAME { ... }"
        ),
    ),
    "a named block without a block": ("limits x", "1:1 limits: expected a block: limits x { ... }"),
    "a name twice": (
        "limits x { }\nmx_auth x { }",
        '2:9 the name "x" is already used, at mailrider.conf:1:1',
    ),
    "two targets without names": (
        "hostname a.b\ntarget.remote { }\ntarget.remote { }",
        '3:1 the name "remote" is already used, at mailrider.conf:2:1',
    ),
    "two names": ("limits x y { }", '1:10 limits takes one name; "y" is too much'),
    "a very long name": ("hostname" * 10, f'1:1 unknown directive "{"hostname" * 10}" at the top level; {KNOWN}'),
    "a name that is none": ("limits &x { }", '1:8 expected a name of letters, digits, _ - and ., not "&x"'),
    "no hostname": (
        "target.remote out { }",
        "1:1 target.remote out has no hostname: it is required, here or at the top level",
    ),
    "TLS reports of nobody": ("tlsrpt { }", "1:1 tlsrpt: organization, contact and through are required"),
    "TLS reports that go by nothing": (
        "tlsrpt {\norganization x\ncontact a@example.org\n}",
        "1:1 tlsrpt: through is required",
    ),
    "TLS reports that go by no queue": (
        f"{REPORTS}through &o\n}}\ntarget.smtp o {{\nhostname a.b\nhost tcp://a.b:25\n}}",
        "4:9 through: &o is of kind target.smtp, but has to be of kind target.queue",
    ),
    "TLS reports at once": (
        f"{REPORTS}through &q\nspread 1m\n}}\n{QUEUE}",
        "5:1 spread: expected 5m to 20h, not 1m",
    ),
    "TLS reports that are forgotten at once": (
        f"{REPORTS}through &q\nretain 0\n}}\n{QUEUE}",
        "5:1 retain: expected 2d to 90d, not 0",
    ),
    "deliver_to nothing": ("deliver_to", "1:1 deliver_to: expected &NAME, or a target: deliver_to remote { ... }"),
    "deliver_to what is not there": ("deliver_to &x", '1:12 deliver_to: no block is named "x"'),
    "deliver_to what is no target": (
        "limits x { }\ndeliver_to &x",
        "2:12 deliver_to: &x is of kind limits (at mailrider.conf:1:1), but has to be a target",
    ),
    "deliver_to a reference and a block": (
        "hostname a.b\ntarget.remote x\ndeliver_to &x { }",
        '3:12 deliver_to: expected &NAME, or a block; "&x" is too much',
    ),
    "deliver_to a kind with a name": (
        "hostname a.b\ndeliver_to remote x { }",
        '2:19 deliver_to: expected &NAME, or a block; "x" is too much',
    ),
    "deliver_to a kind without a block": (
        "deliver_to remote",
        f'1:12 deliver_to: expected &NAME or a kind of target ({TARGETS}) with a block, not "remote"',
    ),
    "deliver_to a name without its &": (
        "hostname a.b\ntarget.remote outbound\ndeliver_to outbound",
        (
            f"3:12 deliver_to: expected &NAME or a kind of target ({TARGETS}) with a block,"
            ' not "outbound"; did you mean "&outbound"?'
        ),
    ),
    "deliver_to an inline block with an error": (
        "hostname a.b\ndeliver_to remote { prt 5 }",
        '2:21 unknown directive "prt" in target.remote; did you mean "port"?',
    ),
    "a DNS server that is none": (
        "dns {\nserver resolver.example\n}",
        (
            "2:8 server: expected an IP address, address:port ([address]:port for IPv6), tls://address#name, or "
            'recursive, not "resolver.example"'
        ),
    ),
    "a port of a DNS server that is none": (
        "dns {\nserver 127.0.0.1:0\n}",
        (
            "2:8 server: expected an IP address, address:port ([address]:port for IPv6), tls://address#name, or "
            'recursive, not "127.0.0.1:0"'
        ),
    ),
    "a forwarder that is to be trusted": (
        "dns {\nserver 127.0.0.1 127.0.0.11 trust\n}",
        (
            "2:8 server: 127.0.0.11 cannot be trusted: it is Docker's DNS, which hands on what another server says,"
            " AD bit included"
        ),
    ),
    "a log format that is none": (
        "log xml",
        '1:5 log: expected text, json, off, or file with an absolute path, and json behind it, not "xml"',
    ),
    "a state_dir that is none": ('state_dir ""', '1:11 state_dir: expected a path, not ""'),
}


@pytest.mark.parametrize("case", TOP_LEVEL)
def test_at_the_top_level(case: str) -> None:
    text, message = TOP_LEVEL[case]
    assert errors(text) == [message]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "auth.pass_file x {\nanything at all\n}\ndeliver_to &x",
            "1:1 there is no auth.pass_file at the top level: users",
        ),
        (
            "msgpipeline x {\ndeliver_to &y\n}\ndeliver_to &x",
            "1:1 there is no msgpipeline at the top level: write what",
        ),
        ("smtp tcp://127.0.0.1:25 {\nbuffer auto\n}", "2:1 there is no buffer in smtp: leave it out"),
        ("smtp tcp://127.0.0.1:25 {\ncheck {\ndkim\n}\n}", "3:1 there is no dkim in check: let rspamd do that"),
    ],
)
def test_what_another_program_has_is_refused_with_what_to_write_instead(text: str, message: str) -> None:
    (found,) = errors(f"{text}\nhostname a.b")
    assert found.startswith(message)


@pytest.mark.parametrize("name", ["check.", "chek.x", "auth"])
def test_what_is_only_like_it_is_not_known(name: str) -> None:
    (message,) = errors(f"{name} {{ }}")
    assert "there is no" not in message


# --- All errors at once, and how they look ------------------------------------------------------

MANY = """\
hostnam mx.example.org
\tdebug maybe

import parts/target.conf
target.remote two {
    mx_auth {
        dane { }
        dane { }
    }
    tls_client {
        protocols tls1.2
"""

PART = """\
# imported
target.remote outbound {
    connect_timeout 30
    mx_auth &polcy
    eight_bit "münchen 日本" x
}
mx_auth policy { mtasts { cache disk } }
"""

TOLD = """\
mailrider.conf:1:1: unknown directive "hostnam" at the top level; did you mean "hostname"?
    hostnam mx.example.org
    ^^^^^^^
mailrider.conf:2:8: debug: expected yes or no, not "maybe"
    debug maybe
          ^^^^^
mailrider.conf:5:19: this block is never closed: expected } before the end of the file
    target.remote two {
                      ^
mailrider.conf:8:9: dane is there twice; first at mailrider.conf:7:9
    dane { }
    ^^^^
mailrider.conf:10:16: this block is never closed: expected } before the end of the file
    tls_client {
               ^
/etc/mailrider/parts/target.conf:3:21: connect_timeout: expected a duration with its unit, not "30"; did you mean "30s"?
    connect_timeout 30
                    ^^
  imported at mailrider.conf:4:8
/etc/mailrider/parts/target.conf:4:13: mx_auth: no block is named "polcy"; did you mean "&policy"?
    mx_auth &polcy
            ^^^^^^
  imported at mailrider.conf:4:8
/etc/mailrider/parts/target.conf:5:28: eight_bit takes one argument; "x" is too much
    eight_bit "münchen 日本" x
                             ^
  imported at mailrider.conf:4:8
/etc/mailrider/parts/target.conf:7:33: cache: expected fs or ram, not "disk"
    mx_auth policy { mtasts { cache disk } }
                                    ^^^^
  imported at mailrider.conf:4:8"""


def test_all_errors_of_all_files_are_told_in_order_with_their_lines() -> None:
    with pytest.raises(ConfigError) as caught:
        read(MANY, files={"/etc/mailrider/parts/target.conf": PART})
    assert str(caught.value).splitlines() == TOLD.splitlines()
    assert len(caught.value.problems) == 9


def test_a_block_with_an_error_is_not_reported_as_missing() -> None:
    text = "hostname a.b\nmx_auth p { dan }\ntarget.remote x { mx_auth &p }\ntarget.remote y { mx_auth &p }"
    assert errors(text) == ['2:13 unknown directive "dan" in mx_auth; did you mean "dane"?']


def test_a_wrong_global_directive_is_not_reported_as_missing() -> None:
    assert errors("hostname a..b\ntls x\nsmtp tls://127.0.0.1:25 { }\ntarget.remote x") == [
        '1:10 hostname: expected a domain name such as mx.example.org, not "a..b"',
        '2:5 tls: expected a file with the certificate and one with its key, or off, not "x"',
    ]


@pytest.mark.parametrize("wrong", ["debug maybe", "openmetrics unix:///x"])
def test_a_wrong_global_directive_hides_nothing(wrong: str) -> None:
    told = errors(f"{wrong}\ntarget.remote out\nsmtp tcp://192.0.2.1:25 {{ deliver_to &out\nhostname a.b\n}}")
    assert [each.split()[0] for each in told] == ["1:7" if "debug" in wrong else "1:1", "2:1", "3:1"]
    assert "target.remote out has no hostname" in told[1]
    assert "would be an open relay" in told[2]


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("target.remote { port 25\nport zz\n}", '3:6 port: expected a whole number from 1 to 65535, not "zz"'),
        (
            "mx_auth x { local_policy off\nlocal_policy { min_tls_level some }\n}",
            '3:30 min_tls_level: expected none, encrypted or authenticated, not "some"',
        ),
        ("target.remote { }\ntarget.remote { prt 1 }", '3:17 unknown directive "prt" in target.remote; did you mean'),
        ("target.remote ! { prt 1 }", '2:19 unknown directive "prt" in target.remote; did you mean "port"?'),
        ("mx_auth { dan }", '2:11 unknown directive "dan" in mx_auth; did you mean "dane"?'),
    ],
)
def test_what_cannot_be_used_is_looked_into_all_the_same(text: str, hidden: str) -> None:
    told = errors(f"hostname a.b\n{text}")
    assert len(told) == 2
    assert told[1].startswith(hidden)


def test_the_same_problem_of_a_file_imported_twice_is_told_once() -> None:
    assert len(errors("import x\nimport x", files={"/etc/mailrider/x": "dbug yes"})) == 1


def test_a_long_line_is_cut_around_the_problem() -> None:
    text = (
        "hostname a.b\ntarget.remote { prohibited_addresses "
        + "10.0.0.0/8 " * 1000
        + "x"
        + " 10.0.0.0/8" * 1000
        + "\n}"
    )
    with pytest.raises(ConfigError) as caught:
        read(text)
    (problem,) = caught.value.problems
    assert (problem.line, problem.column) == (2, 11038)
    line, mark = problem.excerpt.splitlines()
    assert len(line) == 100
    assert line[mark.index("^")] == "x"
    assert mark.strip() == "^"


def test_a_tab_in_front_keeps_the_mark_in_place() -> None:
    with pytest.raises(ConfigError) as caught:
        read("debug\tyes\tx")
    assert caught.value.problems[0].excerpt == "debug\tyes\tx\n     \t   \t^"


def test_what_cannot_be_seen_is_shown() -> None:
    with pytest.raises(ConfigError) as caught:
        read("log te\x1b[1mxt")
    told = str(caught.value)
    assert "\x1b" not in told
    assert "log te\ufffd[1mxt" in told


def test_there_is_an_end_to_telling() -> None:
    told = errors("x\n" * 5000)
    assert len(told) == MAX_PROBLEMS + 1
    assert told[-1] == f" there are more than {MAX_PROBLEMS} problems: the others were not looked for"


def test_the_end_comes_with_the_first_problem_too_many() -> None:
    source, problems = Source("f", "x\n" * (MAX_PROBLEMS + 1), Path()), Problems()
    for number in range(MAX_PROBLEMS):
        problems.add(Position(source, 2 * number), "wrong")
    problems.add(Position(source, 0), "wrong")  # told already
    assert len(problems.in_order()) == MAX_PROBLEMS
    with pytest.raises(TooMuch):
        problems.add(Position(source, 2 * MAX_PROBLEMS), "wrong")
    assert len(problems.in_order()) == MAX_PROBLEMS + 1


def test_a_problem_without_a_place_is_its_message() -> None:
    assert str(Problem("x")) == "x"
    assert ConfigError("x").problems == (Problem("x"),)


# --- Whatever a file holds, it is read or refused with a place -----------------------------------

words = st.sampled_from(
    [
        *(
            "target.remote",
            "mx_auth",
            "limits",
            "hostname",
            "deliver_to",
            "remote",
            "dns",
            "import",
            "=",
            "all",
            "rate",
        ),
        *(
            "dane",
            "mtasts",
            "cache",
            "ram",
            "&a",
            "a",
            "a.b",
            "5",
            "5m",
            "yes",
            "$(a)",
            "(a)",
            "$(b)",
            "{env:X}",
            "none",
        ),
        *(
            "tls_client",
            "cert",
            "protocols",
            "tls1.3",
            "target.queue",
            "local_policy",
            "off",
            "port",
            "prohibited_addresses",
        ),
    ]
)
pieces = words | st.sampled_from(["{", "}", "\n", "\n", "\\\n", "{ }", '"', '"x y"', "#"]) | st.text(max_size=3)


def problems_of(text: str, files: dict[str, bytes]) -> tuple[Problem, ...]:
    """All problems of a text; none if it is right. No other exception comes out of reading."""
    try:
        read(text, files=files, environment={"X": "$(a) \0"})
    except ConfigError as error:
        return error.problems
    return ()


@given(st.lists(pieces, max_size=60).map(" ".join) | st.text(max_size=200))
def test_any_text_is_a_configuration_or_is_refused_with_places(text: str) -> None:
    for problem in problems_of(text, {}):
        assert re.fullmatch(r"mailrider\.conf:\d+:\d+", problem.place)
        assert problem.message
        may_be_secret = "$(" in text or may_hold_secret(text.split())
        assert "^" in problem.excerpt or (not problem.excerpt and may_be_secret)


@given(st.binary(max_size=200))
def test_any_file_is_imported_or_refused_with_places(content: bytes) -> None:
    for problem in problems_of("import x", {"/etc/mailrider/x": content}):
        assert re.fullmatch(r"(/etc/mailrider/x|mailrider\.conf):\d+:\d+", problem.place)
