"""`mailrider send`: exit codes, both kinds of output, and a clear word for every mistake."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
from pathlib import Path

import pytest

from mailrider.config import loader
from mailrider.lab.ca import CA
from mailrider.lab.mx_script import MXTLS, MXScript, Silence, Stage
from mailrider.smtp.commands import Mail
from tests.flow.delivery.internet import REFUSING, internet
from tests.support.commands import Ran, run, start

GOOD = MXScript()
LATER = MXScript(replies={Stage.RCPT: "450 4.2.1 Later"})
NEVER = MXScript(replies={Stage.RCPT: "550 5.1.1 Nobody"})
MESSAGE = b"Subject: hello\n\nIt travels.\n"

CONFIGURATION = """
hostname client.test
state_dir {folder}/state
dns {{ server {dns} }}
target.remote outbound {{
    port {port}
    prohibited_addresses none
    mx_auth off
}}
deliver_to &outbound
"""


def configure(net: internet, folder: Path, more: str = "") -> Path:
    file = folder / "mailrider.conf"
    file.write_text(CONFIGURATION.format(folder=folder, dns=net.dns.server, port=net.port) + more)
    return file


async def send(net: internet, folder: Path, *arguments: str, stdin: bytes = MESSAGE, more: str = "") -> Ran:
    return await run("-c", configure(net, folder, more), "send", "--from", "a@client.test", *arguments, stdin=stdin)


# Which target -------------------------------------------------------------------------------------------------------

FIXED = """
target.{kind} fixed {{
    host tcp://mx0.a.test:{port}
    starttls no
}}
"""


@pytest.mark.parametrize("kind", ["smtp", "lmtp"])
async def test_a_target_with_fixed_servers_delivers_too(kind: str, tmp_path: Path) -> None:
    async with internet({"a.test": [MXScript(lmtp=kind == "lmtp")]}) as net:
        more = FIXED.format(kind=kind, port=net.port)
        named = await send(net, tmp_path, "--target=fixed", "--to=x@elsewhere.test", "--json", more=more)
        only = tmp_path / "only.conf"
        only.write_text(f"hostname client.test\ndns {{ server {net.dns.server} }}\n{more}")
        alone = await run("-c", only, "send", "--from=a@b.test", "--to=x@elsewhere.test", stdin=MESSAGE)
    assert (named.code, named.objects[0]["status"], named.objects[0]["mx"]) == (0, "delivered", "mx0.a.test")
    assert alone.code == 0


async def test_what_the_top_level_delivers_to_is_meant_where_no_target_is_named(tmp_path: Path) -> None:
    async with internet({"a.test": [GOOD]}) as net:
        ran = await send(net, tmp_path, "--to=x@a.test", more="target.remote other { hostname other.test }\n")
        (connection,) = net.mx("a.test").connections
    assert ran.code == 0
    assert b"EHLO client.test\r\n" in connection.said()


async def test_a_target_that_stands_in_a_queue_or_an_endpoint_is_found(tmp_path: Path) -> None:
    remote = "remote {{\nport {port}\nprohibited_addresses none\n}}"
    async with internet({"a.test": [GOOD]}) as net:
        for block in (f"target.queue q {{{{\ntarget {remote}\n}}}}", f"smtp unix:///x {{{{\ndeliver_to {remote}\n}}}}"):
            file = tmp_path / "mailrider.conf"
            text = f"hostname client.test\ndns {{ server {net.dns.server} }}\n{block.format(port=net.port)}\n"
            file.write_text(text)
            ran = await run("-c", file, "send", "--from=a@b.test", "--to=x@a.test", stdin=MESSAGE)
            assert (ran.code, ran.err) == (0, "")


async def test_a_target_that_delivers_nothing_at_once_is_an_error_of_configuration(tmp_path: Path) -> None:
    async with internet({}) as net:
        ran = await send(net, tmp_path, "--to=x@a.test", "--target=q", more="target.queue q { target &outbound }\n")
    assert (ran.code, ran.out) == (78, "")
    assert "target.queue q cannot be used for this: expected a target.remote, target.smtp or target.lmtp" in ran.err


# Exit codes and output ------------------------------------------------------------------------------------------------


async def test_delivered_is_0_deferred_75_failed_69(tmp_path: Path) -> None:
    async with internet({"good.test": [GOOD], "later.test": [LATER], "never.test": [NEVER]}) as net:
        codes = {
            domains: (await send(net, tmp_path, *(f"--to=x@{domain}.test" for domain in domains.split("+")))).code
            for domains in ("good", "later", "never", "good+later", "later+never", "good+never")
        }
    assert codes == {"good": 0, "later": 75, "never": 69, "good+later": 75, "later+never": 69, "good+never": 69}


async def test_people_get_a_line_a_recipient_with_levels_and_place(tmp_path: Path) -> None:
    secure = MXScript(tls=MXTLS(CA().issue(["mx0.a.test"])))
    async with internet({"a.test": [secure], "b.test": [REFUSING, NEVER]}) as net:
        ran = await send(net, tmp_path, "--to=x@a.test", "--to=x@b.test", "--to=nonsense@")
        a, b = net.mx("a.test").address, net.mx("b.test", 1).address
        dead = net.mx("b.test").address
    refused = f"[{dead}]:{net.port} refused the connection (Connection refused)"
    assert ran.out.splitlines() == [
        f"x@a.test  delivered  mx0.a.test [{a}]  TLSv1.3  tls=encrypted mx=none",
        "    250 2.0.0 mx0.a.test said: Message accepted",
        f"x@b.test  failed  mx1.b.test [{b}]  no TLS  tls=none mx=none",
        "    550 5.1.1 mx1.b.test said: Nobody",
        f"    before: mx0.b.test [{dead}] connect: 451 4.4.1 {refused}",
        "nonsense@  failed",
        "    501 5.1.3 not a mail address: 'nonsense@'",
    ]
    assert (ran.code, ran.err) == (69, "")


async def test_programs_get_an_object_a_recipient_and_nothing_else(tmp_path: Path) -> None:
    async with internet({"a.test": [GOOD]}) as net:
        ran = await send(net, tmp_path, "--json", "--to=x@a.test", "--to=ü@", "--to=postmaster")
    assert [each["recipient"] for each in ran.objects] == ["x@a.test", "ü@", "postmaster"]
    delivered = ran.objects[0]
    assert (delivered["status"], delivered["code"], delivered["enhanced"]) == ("delivered", 250, "2.0.0")
    assert (delivered["tls_level"], delivered["authenticated_by"], delivered["in_doubt"]) == ("none", None, False)
    assert [each["result"] for each in delivered["attempts"]] == ["delivered"]
    # The log stands on the other stream.
    assert "delivered recipient=x@a.test" in ran.err


async def test_debug_shows_the_dialogue_on_standard_error_with_or_without_json(tmp_path: Path) -> None:
    async with internet({"a.test": [GOOD]}) as net:
        for json_too in ([], ["--json"]):
            ran = await send(net, tmp_path, "--debug", *json_too, "--to=x@a.test")
            assert 'line="MAIL FROM:<a@client.test>' in ran.err
            assert "MAIL FROM" not in ran.out


async def test_json_is_also_the_format_of_the_log_where_the_configuration_says_so(tmp_path: Path) -> None:
    async with internet({"a.test": [GOOD]}) as net:
        file = configure(net, tmp_path, "log json\n")
        ran = await run("-c", file, "send", "--json", "--from=", "--to=x@a.test", stdin=MESSAGE)
    assert [json.loads(line)["event"] for line in ran.err.splitlines()] == ["delivered"]
    assert len(ran.objects) == 1


async def test_options_reach_the_server(tmp_path: Path) -> None:
    options = ["--notify=FAILURE,DELAY", "--ret=hdrs", "--envid=id 1"]
    async with internet({"a.test": [GOOD]}) as net:
        assert (await send(net, tmp_path, *options, "--to=x@a.test")).code == 0
        assert (
            await run("-c", configure(net, tmp_path), "send", "--from", "", "--to=x@a.test", stdin=MESSAGE)
        ).code == 0
        first, second = net.mx("a.test").messages
        assert b"RET=HDRS ENVID=id+201\r\n" in net.mx("a.test").connections[0].said()
        assert b"NOTIFY=FAILURE,DELAY ORCPT=rfc822;x@a.test\r\n" in net.mx("a.test").connections[0].said()
    assert (first.sender, second.sender) == ("a@client.test", "")
    assert first.content.endswith(MESSAGE.replace(b"\n", b"\r\n"))


async def test_quarantine_and_requiretls(tmp_path: Path) -> None:
    async with internet({"a.test": [GOOD]}) as net:
        quarantined = await send(net, tmp_path, "--json", "--quarantine", "--to=x@a.test")
        demanding = await send(net, tmp_path, "--json", "--requiretls", "--to=x@a.test")
        assert net.mx("a.test").opened == 0
    assert [(ran.code, ran.objects[0]["enhanced"]) for ran in (quarantined, demanding)] == [
        (69, "5.7.0"),
        (69, "5.7.10"),
    ]


# Messages -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dash", [[], ["-"]], ids=["no argument", "-"])
async def test_the_message_is_standard_input_or_a_file(dash: list[str], tmp_path: Path) -> None:
    file = tmp_path / "message"
    file.write_bytes(b"Subject: from a file\n\n")
    async with internet({"a.test": [GOOD]}) as net:
        assert (await send(net, tmp_path, "--to=x@a.test", *dash)).code == 0
        assert (await send(net, tmp_path, "--to=x@a.test", str(file))).code == 0
        contents = [message.content for message in net.mx("a.test").messages]
    assert contents[0].endswith(b"Subject: hello\r\n\r\nIt travels.\r\n")
    assert contents[1].endswith(b"Subject: from a file\r\n\r\n")


NO_MESSAGES = {
    "nothing": (b"", "the message is empty"),
    "no header": (b"hello\n", "this is no message: no header: the message begins with 'hello', not with a line like"),
    "an empty line first": (b"\nhello\n", "this is no message: no header: the message does not begin with a line like"),
    "a broken header": (b"Subject: x\nhello\n\n", "this is no message: header line 2: 'hello' is not a field"),
    "what other servers may take for the end": (
        b"Subject: x\n\na\n\0.\nMAIL FROM:<boss@example.org>\n",
        "this is no message: a NUL before the dot that begins a line",
    ),
    "a mailbox file": (
        b"From a@b.test Sat Nov 21\nSubject: x\n\n",
        "a mailbox file's `From ` line is not a header field",
    ),
}


@pytest.mark.parametrize(("given", "words"), NO_MESSAGES.values(), ids=NO_MESSAGES)
async def test_what_is_no_message_is_65_with_a_clear_word_and_nothing_is_sent(
    given: bytes, words: str, tmp_path: Path
) -> None:
    async with internet({"a.test": [GOOD]}) as net:
        ran = await send(net, tmp_path, "--to=x@a.test", stdin=given)
        assert not net.dns.queries
    assert (ran.code, ran.out) == (65, "")
    assert ran.err.startswith(f"mailrider: {words}") or ran.err.endswith(f"{words}\n")
    assert len(ran.err.splitlines()) == 1


async def test_a_message_that_cannot_be_read_is_66(tmp_path: Path) -> None:
    async with internet({"a.test": [GOOD]}) as net:
        missing = await send(net, tmp_path, "--to=x@a.test", str(tmp_path / "missing"))
        folder = await send(net, tmp_path, "--to=x@a.test", str(tmp_path))
    assert (missing.code, folder.code) == (66, 66)
    assert missing.err == f"mailrider: the message cannot be read: {tmp_path}/missing: No such file or directory\n"


async def test_a_message_that_no_memory_can_hold_is_65(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_bytes(_: Path) -> bytes:
        raise MemoryError

    (tmp_path / "sparse").touch()
    async with internet({"a.test": [GOOD]}) as net:
        with monkeypatch.context() as patch:
            patch.setattr(Path, "read_bytes", read_bytes)
            ran = await send(net, tmp_path, "--to=x@a.test", str(tmp_path / "sparse"))
    assert ran.code == 65
    assert ran.err == f"mailrider: the message is too large for the memory that there is: {tmp_path}/sparse\n"


# Arguments ------------------------------------------------------------------------------------------------------------


async def test_bad_addresses_are_65_and_a_usage_error_is_64(tmp_path: Path) -> None:
    async with internet({"a.test": [GOOD]}) as net:
        file = configure(net, tmp_path)
        calls = {
            ("--from=a@b.test", "--to=nonsense@"): 65,
            ("--from=nonsense@", "--to=x@a.test"): 65,
            ("--to=x@a.test",): 64,
            ("--from=",): 64,
            ("--from=", "--to=x@a.test", "--unknown"): 64,
            ("--from=", "--to=x@a.test", "--notify=SOMETIMES"): 64,
            ("--from=", "--to=x@a.test", "--ret=half"): 64,
            ("--from=", "--to=x@a.test", f"--envid={'x' * 101}"): 64,
            ("--from=", "--to=x@a.test", "one", "two"): 64,
        }
        for arguments, code in calls.items():
            ran = await run("-c", file, "send", *arguments, stdin=MESSAGE)
            assert (ran.code, "Traceback" in ran.err) == (code, False), arguments
        assert not net.dns.queries


@pytest.mark.parametrize("end", ["\r\n", "\n", "\r", "\x85"], ids=ascii)
async def test_no_line_end_in_an_argument_reaches_a_server(end: str, tmp_path: Path) -> None:
    evil = f"{end}RCPT TO:<victim@b.test>"
    codes = {"--from": 65, "--to": 65, "--envid": 64, "--notify": 64, "--ret": 64, "--target": 78}
    async with internet({"a.test": [GOOD]}) as net:
        file = configure(net, tmp_path)
        usual = {"--from": "a@b.test", "--to": "x@a.test"}
        for option, code in codes.items():
            given = usual | {option: usual.get(option, "x") + evil}
            ran = await run("-c", file, "send", *(f"{name}={value}" for name, value in given.items()), stdin=MESSAGE)
            assert (ran.code, option) == (code, option)
            assert "Traceback" not in ran.err
        assert not net.dns.queries


# Configurations -------------------------------------------------------------------------------------------------------


async def test_a_configuration_that_is_missing_or_wrong_is_78(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.conf"
    wrong.write_text("hostname client.test\ntarget.remote { prot 25 }\n")
    for file, words in {
        tmp_path / "missing": "missing: cannot read the configuration",
        wrong: 'did you mean "port"',
    }.items():
        ran = await run("-c", file, "send", "--from=", "--to=x@a.test", stdin=MESSAGE)
        assert (ran.code, ran.out) == (78, "")
        assert words in ran.err


async def test_what_only_loading_shows_to_be_wrong_is_78_too(tmp_path: Path) -> None:
    async with internet({"a.test": [GOOD]}) as net:
        file = configure(net, tmp_path, "tls_client { root_ca /nowhere/root.pem }\n")
        ran = await run("-c", file, "send", "--from=", "--to=x@a.test", stdin=MESSAGE)
    assert (ran.code, ran.out) == (78, "")
    assert "/nowhere/root.pem" in ran.err


async def test_a_target_is_chosen_by_name_and_must_be_if_there_are_several(tmp_path: Path) -> None:
    more = "target.remote other {{ port {port}; prohibited_addresses none; hostname other.test }}\n"
    async with internet({"a.test": [GOOD]}) as net:
        file = configure(net, tmp_path, more.format(port=net.port).replace("; ", "\n"))
        file.write_text(file.read_text().replace("deliver_to &outbound", ""))
        unsaid = await run("-c", file, "send", "--from=", "--to=x@a.test", stdin=MESSAGE)
        chosen = await run("-c", file, "send", "--target=other", "--from=", "--to=x@a.test", stdin=MESSAGE)
        unknown = await run("-c", file, "send", "--target=othre", "--from=", "--to=x@a.test", stdin=MESSAGE)
        assert b"EHLO other.test" in net.mx("a.test").connections[-1].said()
    assert (unsaid.code, chosen.code, unknown.code) == (78, 0, 78)
    assert "say with --target which one is meant: outbound, other" in unsaid.err
    assert 'did you mean "other"' in unknown.err


async def test_the_configuration_is_found_here_then_in_etc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [str(path) for path in loader.SEARCHED] == ["mailrider.conf", "/etc/mailrider/mailrider.conf"]
    here, etc, elsewhere = (tmp_path / name for name in ("here", "etc", "elsewhere"))
    monkeypatch.setattr(loader.find_config, "__defaults__", ((loader.SEARCHED[0], etc / "mailrider.conf"),))
    elsewhere.mkdir()
    async with internet({"a.test": [GOOD]}) as net:
        for folder, name in {here: "here.test", etc: "etc.test"}.items():
            folder.mkdir()
            file = configure(net, folder)
            file.write_text(file.read_text().replace("client.test", name))
        for folder, name in {here: "here.test", elsewhere: "etc.test"}.items():
            monkeypatch.chdir(folder)
            assert (await run("send", "--from=", "--to=x@a.test", stdin=MESSAGE)).code == 0
            assert f"EHLO {name}".encode() in net.mx("a.test").connections[-1].said()


# A process of its own -------------------------------------------------------------------------------------------------


async def test_an_interrupt_ends_it_in_a_word(tmp_path: Path) -> None:
    silent = MXScript(replies={Stage.MAIL: Silence()})
    async with internet({"a.test": [silent]}) as net:
        process = await start("-c", configure(net, tmp_path), "send", "--from=", "--to=x@a.test")
        writing = asyncio.create_task(process.communicate(MESSAGE))
        await net.mx("a.test").wait_command(Mail)
        process.send_signal(signal.SIGINT)
        out, err = await writing
        await net.mx("a.test").wait_closed()
    assert (process.returncode, out, err) == (130, b"", b"\nmailrider: interrupted\n")


async def test_a_person_is_told_what_takes_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    silent = MXScript(replies={Stage.MAIL: Silence()})
    async with internet({"a.test": [silent]}) as net:
        file = configure(net, tmp_path)
        ours, theirs = pty.openpty()
        message = tmp_path / "message"
        message.write_bytes(MESSAGE)
        process = await start(
            "-c", file, "send", "--from=", "--to=x@a.test", message, stdin=None, stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        shown = b""
        while b"talking to mx0.a.test" not in shown:
            shown += await asyncio.to_thread(os.read, ours, 4096)
        await net.mx("a.test").__aexit__(None)
        while True:
            try:
                shown += await asyncio.to_thread(os.read, ours, 4096)
            except OSError:  # the other end is closed
                break
        assert await process.wait() == 75
        os.close(ours)
    assert b"deferred" in shown


async def test_a_reader_that_has_seen_enough_is_no_mistake(tmp_path: Path) -> None:
    async with internet({"a.test": [GOOD]}) as net:
        reads, writes = os.pipe()
        words = ("-c", configure(net, tmp_path), "send", "--json", "--from=", "--to=x@a.test")
        process = await start(*words, stdout=writes)
        os.close(writes)
        os.close(reads)
        assert process.stdin is not None
        process.stdin.write(MESSAGE)
        process.stdin.close()
        assert process.stderr is not None
        err = await process.stderr.read()
        assert await process.wait() == 0
        assert net.mx("a.test").accepted == 1
    assert b"Traceback" not in err
