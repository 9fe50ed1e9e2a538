"""`mailrider queue` and `send --queue`, for a person and for a script. The resolver is gone: mail is deferred."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from mailrider.cli.main import main
from mailrider.cli.queue_run import EndTally
from mailrider.model.event import discard
from mailrider.model.queue_event import RecipientDone
from mailrider.queue.sqlite.file import FILE
from tests.support.commands import queue_alone
from tests.support.queueing import deferred, recipient

if TYPE_CHECKING:
    from pathlib import Path


@dataclass
class Terminal:
    """Runs commands; `code` is what the last one ended with."""

    config: Path
    message: Path
    capture: pytest.CaptureFixture[str]
    code: int = 0
    errors: str = ""

    def __call__(self, *arguments: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main(["-c", str(self.config), *arguments])
        self.code = int(ended.value.code or 0)
        captured = self.capture.readouterr()
        self.errors = captured.err
        return captured.out

    def send(self, *recipients: str, sender: str = "a@example.org", more: tuple[str, ...] = ()) -> str:
        to = [word for each in recipients for word in ("--to", each)]
        return self("send", "--queue", "--from", sender, *to, *more, str(self.message)).strip()

    def objects(self, *arguments: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self("queue", *arguments, "--json").splitlines()]


@pytest.fixture
def terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Terminal:
    config = tmp_path / "mailrider.conf"
    config.write_text(queue_alone(tmp_path / "state"))
    message = tmp_path / "message"
    message.write_bytes(b"Subject: hello\r\n\r\nHello.\r\n")
    return Terminal(config, message, capsys)


def test_a_queue_in_the_block_of_an_endpoint_can_be_looked_into_too(terminal: Terminal) -> None:
    submission = "submission tcp://127.0.0.1:1587 {\ndeliver_to queue {"
    text = terminal.config.read_text().replace("target.queue mail {", submission)
    terminal.config.write_text(f"{text}}}\n")
    id = terminal.send("b@example.net")
    assert terminal.code == 0
    assert id in terminal("queue", "list")
    assert id in terminal("trace", "b@example.net")
    another = "submission tcp://127.0.0.1:2587 {\n deliver_to queue {\n target &out\n location other\n }\n}\n"
    terminal.config.write_text(f"{text}}}\n{another}")
    terminal("queue", "list")
    assert terminal.code == 78
    assert re.findall(r"target\.queue \(at \S+conf:(\d+):1\)", terminal.errors) == ["11", "17"]
    assert id in terminal("trace", "b@example.net")


def test_a_queue_that_nobody_used_is_empty_and_is_not_made_by_looking(terminal: Terminal, tmp_path: Path) -> None:
    assert terminal("queue", "list") == ""
    assert terminal.code == 0
    assert terminal.errors == "0 recipients\n"
    assert terminal.objects("stats")[0]["messages"] == 0
    assert terminal("queue", "stats") == "0 messages, 0 recipients, 0 B\n"
    assert terminal("queue", "retry", "--all") == "0 recipients tried again now\n"
    terminal("queue", "show", "0000000000000")
    assert terminal.code == 69
    assert not (tmp_path / "state" / "mail" / FILE).exists()


def test_content_on_a_terminal_has_no_control_characters(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    octets = b"Subject: \x1b]0;title\x07\r\n\r\n\ta\x1b[2J\x9b1m\xe2\x80\xae\xc2\x9b\r\xffgr\xc3\xbcn\r\n"
    terminal.message.write_bytes(octets)
    id = terminal.send("b@example.net")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    shown = terminal("queue", "show", id, "--content")
    # What `send` adds comes first.
    assert (
        shown[shown.index("Subject") :] == "Subject: \\x1b]0;title\\x07\n\n\ta\\x1b[2J\\x9b1m\\u202e\\x9b\n\\xffgrün\n"
    )


def test_send_to_the_queue_prints_an_id_under_which_it_is_found(terminal: Terminal) -> None:
    id = terminal.send("b@example.net", "c@example.com", more=("--envid", "e1", "--notify", "FAILURE"))
    assert terminal.code == 0
    (shown,) = terminal.objects("show", id)
    assert shown["id"] == id
    assert shown["sender"] == "a@example.org"
    assert shown["envid"] == "e1"
    assert [(each["recipient"], each["state"], each["notify"]) for each in shown["recipients"]] == [
        ("b@example.net", "queued", "FAILURE"),
        ("c@example.com", "queued", "FAILURE"),
    ]
    text = terminal("queue", "show", id)
    assert "b@example.net  queued, 0 tries, next due" in text
    assert "envid=e1" in text
    content = terminal("queue", "show", id, "--content").replace("\r\n", "\n")
    assert content.startswith("Message-ID: <")
    assert content.endswith("\nSubject: hello\n\nHello.\n")


def test_a_wrong_address_is_refused_at_once(terminal: Terminal) -> None:
    terminal.send("b@@example.net")
    assert terminal.code == 65
    assert "not a domain name" in terminal.errors
    assert terminal.objects("list") == []


def test_run_delivers_what_is_due_and_says_what_came_of_it(terminal: Terminal) -> None:
    id = terminal.send("b@example.net")
    terminal("queue", "run")
    assert terminal.code == 75
    assert "0 delivered, 1 deferred, 0 failed" in terminal.errors
    (entry,) = terminal.objects("list")
    assert entry["tries"] == 1
    assert entry["last"]["enhanced"] == "4.4.3"
    (shown,) = terminal.objects("show", id)
    (attempt,) = shown["recipients"][0]["history"]
    assert attempt["status"] == "deferred"
    assert "4.4.3" in terminal("queue", "show", id)
    assert "1 try, next in 1" in terminal("queue", "list")
    terminal("queue", "run")
    assert terminal.code == 0  # nothing was due


def test_a_message_that_is_given_up_is_bounced(terminal: Terminal, tmp_path: Path) -> None:
    terminal.config.write_text(queue_alone(tmp_path / "state", "max_tries 1"))
    terminal.send("b@example.net")
    terminal("queue", "run")
    assert terminal.code == 69
    terminal("queue", "run")
    left = terminal.objects("list")
    assert [(each["sender"], each["recipient"]) for each in left] in ([("", "a@example.org")], [])


def test_a_list_can_be_filtered_and_limited(terminal: Terminal) -> None:
    for number in range(3):
        terminal.send(f"b{number}@example.net", f"c{number}@example.com")
    assert len(terminal.objects("list")) == 6
    assert len(terminal.objects("list", "--limit", "2")) == 2
    assert len(terminal.objects("list", "--limit", "0")) == 6
    assert len(terminal.objects("list", "--domain", "example.net")) == 3
    assert len(terminal.objects("list", "--to", "c1@")) == 1
    assert len(terminal.objects("list", "--from", "nobody")) == 0
    assert len(terminal.objects("list", "--older", "1h")) == 0
    assert len(terminal.objects("list", "--in-doubt")) == 0
    assert terminal("queue", "list", "--limit", "1").count("\n") == 2
    assert "there are more" in terminal.errors
    terminal("queue", "list", "--older", "soon")
    assert terminal.code == 64


def test_an_empty_sender_means_notifications_and_an_empty_recipient_nobody(terminal: Terminal) -> None:
    terminal.send("b@example.net")
    terminal.send("c@example.net", sender="")
    for null in ("", "<>"):
        assert [each["recipient"] for each in terminal.objects("list", "--from", null)] == ["c@example.net"]
    for empty in (("--to", ""), ("--domain", "")):
        terminal("queue", "remove", *empty)
        assert terminal.code == 64
    assert terminal.objects("remove", "--from", "") == [{"changed": 1, "later": 0, "unknown": []}]
    assert [each["recipient"] for each in terminal.objects("list")] == ["b@example.net"]


@pytest.mark.parametrize("domain", ["bücher.example", "XN--BCHER-KVA.example", "bücher.example."])
def test_a_domain_is_meant_however_it_is_written(terminal: Terminal, domain: str) -> None:
    terminal.send("b@bücher.example", "c@example", "d@[192.0.2.1]")
    assert [each["recipient"] for each in terminal.objects("list", "--domain", domain)] == ["b@xn--bcher-kva.example"]
    assert [each["recipient"] for each in terminal.objects("list", "--domain", "[192.0.2.1]")] == ["d@[192.0.2.1]"]
    assert [each["recipient"] for each in terminal.objects("list", "--domain", "example")] == ["c@example"]


def test_a_program_is_told_that_a_list_goes_on(terminal: Terminal) -> None:
    terminal.send("b@example.net", "c@example.net")
    assert len(terminal.objects("list", "--limit", "1")) == 1
    assert "there are more" in terminal.errors
    terminal.objects("list", "--limit", "2")
    assert terminal.errors == ""


def test_what_is_due_already_is_tried_again_as_well(terminal: Terminal) -> None:
    id = terminal.send("b@example.net")
    (before,) = terminal.objects("list")
    assert terminal("queue", "retry", id) == "1 recipient tried again now\n"
    assert terminal.objects("list") == [before]


def test_hold_release_retry_and_remove(terminal: Terminal) -> None:
    first, _ = terminal.send("b@example.net"), terminal.send("c@example.com")
    assert terminal("queue", "hold", first) == "1 recipient held\n"
    assert [each["state"] for each in terminal.objects("list")] == ["held", "queued"]
    assert len(terminal.objects("list", "--state", "held")) == 1
    terminal("queue", "run")
    assert "1 deferred" in terminal.errors
    assert terminal.objects("retry", "--all") == [{"changed": 1, "later": 0, "unknown": []}]
    assert terminal.objects("release", "--state", "held") == [{"changed": 1, "later": 0, "unknown": []}]
    assert terminal.objects("remove", "--domain", "example.net") == [{"changed": 1, "later": 0, "unknown": []}]
    assert [each["recipient"] for each in terminal.objects("list")] == ["c@example.com"]


@pytest.mark.parametrize("command", ["hold", "release", "retry", "remove"])
def test_a_change_needs_to_know_what_is_meant(terminal: Terminal, command: str) -> None:
    terminal("queue", command)
    assert terminal.code == 64
    terminal("queue", command, "no-id")
    assert terminal.code == 64


def test_stats_by_destination_and_age(terminal: Terminal) -> None:
    terminal.send("b@example.net", "c@example.net", "d@example.com")
    (stats,) = terminal.objects("stats")
    assert (stats["messages"], stats["recipients"]) == (1, 3)
    assert [(each["destination"], each["queued"]) for each in stats["destinations"]] == [
        ("example.net", 2),
        ("example.com", 1),
    ]
    assert stats["ages"]["under 5 minutes"] == 3
    text = terminal("queue", "count")
    assert "1 message, 3 recipients" in text
    assert "example.net" in text


# https://github.com/mattermost/mattermost/issues/26538: parts of IPv6 addresses are names of emoji
def test_an_ipv6_address_is_shown_as_it_is(terminal: Terminal) -> None:
    terminal.send("b@[IPv6:2001:100:ab:a:b::1]")
    for command in ("stats", "list"):
        assert "[IPv6:2001:100:ab:a:b::1]" in terminal("queue", command)


@pytest.mark.parametrize("number", ["\N{ARABIC-INDIC DIGIT THREE}", "1_0", "+1", " 1", "-1", str(1 << 63), "9" * 5000])
@pytest.mark.parametrize("command", ["list", "stats"])
def test_a_number_is_written_in_plain_digits_and_within_bounds(terminal: Terminal, command: str, number: str) -> None:
    terminal("queue", command, "--limit", number)
    assert terminal.code == 64
    assert "a whole number" in terminal.errors or "at most" in terminal.errors


@pytest.mark.parametrize(
    "words", [("queue", "list", "--to"), ("queue", "list", "--from"), ("trace",), ("history", "drop")], ids=" ".join
)
def test_what_is_not_utf8_is_a_mistake_of_usage(terminal: Terminal, words: tuple[str, ...]) -> None:
    terminal.send("b@example.net")
    terminal(*words, "a\udcff@example.net")  # as Python has the octet 0xff
    assert (terminal.code, "expected text in UTF-8" in terminal.errors) == (64, True)


def test_what_goes_to_one_server_is_one_destination_of_its_name(terminal: Terminal, tmp_path: Path) -> None:
    smarthost = "target.smtp smart {\n host tcp://127.0.0.1:9\n}\n"
    config = queue_alone(tmp_path / "state").replace("target &out", "target &smart")
    terminal.config.write_text(smarthost + config)
    terminal.send("b@example.net", "c@example.com")
    terminal("queue", "run")
    assert terminal.code == 75
    (stats,) = terminal.objects("stats")
    assert [each["destination"] for each in stats["destinations"]] == ["tcp://127.0.0.1:9"]
    assert [each["recipient"] for each in terminal.objects("list", "--domain", "example.com")] == ["c@example.com"]


def test_which_queue_is_meant_has_to_be_clear(terminal: Terminal, tmp_path: Path) -> None:
    text = queue_alone(tmp_path / "state") + "target.queue other {\n target &out\n}\n"
    terminal.config.write_text(text)
    terminal("queue", "list")
    assert terminal.code == 78
    assert "say with `mailrider queue --queue NAME` which one is meant: mail, other" in terminal.errors
    terminal.send("b@example.net")
    assert terminal.code == 78
    assert "say with --target which one is meant: mail, other" in terminal.errors
    terminal("queue", "--queue", "other", "list")
    assert terminal.code == 0
    terminal("queue", "--queue", "out", "list")
    assert terminal.code == 78
    terminal.config.write_text("hostname a.example\ntarget.remote out { }\n")
    terminal("queue", "list")
    assert terminal.code == 78


def test_a_queue_that_is_damaged_says_what_to_do(terminal: Terminal, tmp_path: Path) -> None:
    location = tmp_path / "state" / "mail"
    location.mkdir(parents=True)
    (location / FILE).write_bytes(b"garbage" * 1000)
    terminal.send("b@example.net")
    assert terminal.code == 75
    assert "set aside as" in terminal.errors


def test_what_an_operator_removed_or_held_meanwhile_is_no_failure() -> None:
    tally = EndTally(discard)
    for operator in ("removed", "held"):
        tally(RecipientDone("1", "a@example.org", deferred(recipient("b@example.net")), 1, operator=operator))
    assert (tally.delivered, tally.deferred, tally.failed) == (0, 1, 0)


@pytest.mark.parametrize("command", ["retry", "hold", "release", "remove", "show"])
@pytest.mark.parametrize("has_mail", [False, True], ids=["an empty queue", "other mail"])
def test_an_unknown_id_is_an_error_that_names_it(terminal: Terminal, command: str, has_mail: bool) -> None:
    if has_mail:
        terminal.send("b@example.net")
    terminal("queue", command, "0d7m3k9q2xv4t")
    assert terminal.code == os.EX_UNAVAILABLE
    assert "no message 0d7m3k9q2xv4t is queued; mailrider trace 0d7m3k9q2xv4t says what became of it" in terminal.errors


def test_beside_an_unknown_id_the_known_ones_have_their_turn(terminal: Terminal) -> None:
    id = terminal.send("b@example.net")
    assert terminal.objects("hold", id, "0d7m3k9q2xv4t") == [{"changed": 1, "later": 0, "unknown": ["0d7m3k9q2xv4t"]}]
    assert terminal.code == os.EX_UNAVAILABLE
    terminal("queue", "hold", id)  # there is nothing to do, and nothing wrong
    assert terminal.code == os.EX_OK


# --- Several workers -----------------------------------------------------------------------------


def in_shards(terminal: Terminal, tmp_path: Path, *to: str) -> list[str]:
    """A message in each of three shards, as workers leave them."""
    queue = tmp_path / "state" / "mail"
    ids: list[str] = []
    for number in (2, 1, 0):
        recipients = [each.format(number) for each in to or ("b{}@example.net", "c@example.com")]
        ids.append(terminal.send(*recipients))
        if number:
            shard = queue / f"shard-0{number}"
            shard.mkdir()
            for each in queue.glob("queue.*"):
                each.rename(shard / each.name)
    return ids


def test_a_queue_of_several_workers_is_shown_as_one(terminal: Terminal, tmp_path: Path) -> None:
    ids = in_shards(terminal, tmp_path)
    assert [each["id"] for each in terminal.objects("list")] == [id for id in ids for _ in range(2)]
    assert [each["id"] for each in terminal.objects("list", "--limit", "3")] == [ids[0], ids[0], ids[1]]
    assert "there are more" in terminal.errors
    (stats,) = terminal.objects("stats")
    assert stats["messages"] == 3
    assert [(each["destination"], each["queued"]) for each in stats["destinations"]] == [
        ("example.com", 3),
        ("example.net", 3),
    ]
    for id in ids:
        (shown,) = terminal.objects("show", id)
        assert shown["id"] == id
        assert "Hello." in terminal("queue", "show", id, "--content")
        assert [json.loads(line)["id"] for line in terminal("trace", id, "--json").splitlines()] == [id]


def test_commands_change_what_is_in_each_shard(terminal: Terminal, tmp_path: Path) -> None:
    ids = in_shards(terminal, tmp_path)
    assert terminal("queue", "hold", "--all") == "6 recipients held\n"
    assert {each["state"] for each in terminal.objects("list")} == {"held"}
    assert terminal("queue", "release", "--domain", "example.net") == "3 recipients released\n"
    assert terminal("queue", "remove", ids[0], ids[2]) == "4 recipients removed\n"
    assert terminal.code == 0
    assert [each["id"] for each in terminal.objects("list")] == [ids[1]] * 2
    terminal("queue", "remove", ids[0])
    assert terminal.code == 69
    assert "no message" in terminal.errors
    assert terminal("history", "drop", "c@example.com") == "5 events erased\n"


def test_run_delivers_from_each_shard(terminal: Terminal, tmp_path: Path) -> None:
    in_shards(terminal, tmp_path, "b@d{}.example")
    terminal("queue", "run")
    assert terminal.code == 75
    assert [each["tries"] for each in terminal.objects("list")] == [1] * 3


def test_merge_moves_everything_to_where_one_process_has_it(terminal: Terminal, tmp_path: Path) -> None:
    ids = in_shards(terminal, tmp_path)
    assert terminal("queue", "merge") == "2 messages moved from 2 shards\n"
    assert [each["id"] for each in terminal.objects("list")] == [id for id in ids for _ in range(2)]
    assert terminal("queue", "merge") == "0 messages moved from 2 shards\n"
