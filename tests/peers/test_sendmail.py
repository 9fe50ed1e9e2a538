"""Programs that call sendmail: PHP, git, s-nail, mutt, cron's own line, and SMTP through a pipe."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.peers.process import private_directory, running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.peers.postfix import Postfix

CONFIGURATION = """
hostname house.example.org
origin example.net
state_dir state
runtime_dir {folder}/run
dns {{
    server 127.0.0.1:9
}}
target.smtp next {{
    host tcp://{postfix.address}:{postfix.port}
    starttls no
    min_tls_level none
}}
target.queue queue {{
    target &next
}}
submission unix://{folder}/run/submission.sock {{
    deliver_to &queue
}}
"""
PATCH = """From 1111111111111111111111111111111111111111 Mon Sep 17 00:00:00 2001
From: Anna <anna@example.org>
Date: Sat, 21 Nov 2026 10:00:00 +0000
Subject: [PATCH] hello

---
 a | 1 +
"""


@dataclass(frozen=True)
class Sendmail:
    """The program, in a folder that the daemon's users have, too."""

    program: Path
    folder: Path

    def run(self, command: list[str], said: bytes = b"") -> None:
        """Run a program that calls it."""
        done = subprocess.run(
            command,
            input=said,
            capture_output=True,
            timeout=200,
            check=False,
            cwd=self.folder,
            env={**os.environ, "HOME": str(self.folder), "LC_ALL": "C.UTF-8"},
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def sendmail(postfix: Postfix) -> Iterator[Sendmail]:
    with private_directory() as folder:
        config = folder / "mailrider.conf"
        config.write_text(CONFIGURATION.format(folder=folder, postfix=postfix))
        (folder / "state").mkdir()
        program = folder / "sendmail"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m mailrider -c {config} sendmail "$@"\n')
        program.chmod(0o755)
        command = [sys.executable, "-m", "mailrider", "-c", str(config), "run"]
        with running(command, log=folder / "log", ready=(folder / "run" / "submission.sock").exists):
            yield Sendmail(program, folder)


def php(sendmail: Sendmail, recipient: str) -> None:
    code = f"exit(mail('{recipient}', 'hello', 'text', 'From: anna@example.org', '-fanna@example.org') ? 0 : 1);"
    sendmail.run(["php", "-d", f"sendmail_path={sendmail.program} -t -i", "-r", code])


def git(sendmail: Sendmail, recipient: str) -> None:
    patch = sendmail.folder / "0001.patch"
    patch.write_text(PATCH)
    options = ("--from=Anna <anna@example.org>", f"--to={recipient}", "--confirm=never", "--suppress-cc=all")
    identity = ("-c", "user.name=Anna", "-c", "user.email=anna@example.org", "-c", "sendemail.envelopeSender=auto")
    sendmail.run(["git", *identity, "send-email", f"--smtp-server={sendmail.program}", *options, str(patch)])


def s_nail(sendmail: Sendmail, recipient: str) -> None:
    options = (f"-Smta=file://{sendmail.program}", "-:/", "-s", "hello", "-r", "anna@example.org")
    sendmail.run(["s-nail", *options, recipient], b"text\n")


def mutt(sendmail: Sendmail, recipient: str) -> None:
    settings = f'set sendmail="{sendmail.program} -oem -oi" from=anna@example.org use_envelope_from copy=no'
    sendmail.run(["mutt", "-n", "-F", "/dev/null", "-e", settings, "-s", "hello", recipient], b"text\n")


def smtp_through_a_pipe(sendmail: Sendmail, recipient: str) -> None:
    sendmail.run(["swaks", "--pipe", f"{sendmail.program} -bs", "--from", "anna@example.org", "--to", recipient])


def whole_dialogue_at_once(sendmail: Sendmail, recipient: str) -> None:
    envelope = f"EHLO x\r\nMAIL FROM:<anna@example.org>\r\nRCPT TO:<{recipient}>\r\n"
    said = f"{envelope}DATA\r\nSubject: hello\r\n\r\n.\r\nQUIT\r\n"
    sendmail.run([str(sendmail.program), "-bs"], said.encode())


@pytest.mark.parametrize("program", [php, git, s_nail, mutt, smtp_through_a_pipe, whole_dialogue_at_once])
def test_a_program_sends_by_sendmail(
    program: Callable[[Sendmail, str], None], sendmail: Sendmail, postfix: Postfix, recipient: str
) -> None:
    program(sendmail, recipient)
    (stored,) = postfix.mailbox.wait_for(recipient)
    assert b"Return-Path: <anna@example.org>" in stored.trace


def test_cron_sends_to_users_of_this_machine(sendmail: Sendmail, postfix: Postfix, recipient: str) -> None:
    user = recipient.partition("@")[0]
    message = f"From: root (Cron Daemon)\nTo: {user}\nSubject: Cron <root@house> job\n\nout\n"
    command = [str(sendmail.program), "-i", "-FCronDaemon", "-B8BITMIME", "-oem", f"{user},other-{recipient}"]
    sendmail.run(command, message.encode())
    for each in (recipient, f"other-{recipient}"):
        (stored,) = postfix.mailbox.wait_for(each)
        assert b"From: root@example.net (Cron Daemon)\r\n" in stored.content
        assert f"To: {recipient}\r\n".encode() in stored.content


# Its own crontabs, and our program where it looks for sendmail; nobody else sees either (mount_namespaces(7)).
CRON = """
mount -t tmpfs tmpfs /run
mount --bind crontab /etc/crontab
mount --bind nothing /etc/cron.d
mount --bind crontabs /var/spool/cron/crontabs
mount --bind sendmail /usr/sbin/sendmail
exec /usr/sbin/cron -f
"""


def test_crond_itself_mails_what_a_job_says(sendmail: Sendmail, postfix: Postfix, recipient: str) -> None:
    folder, user = sendmail.folder, recipient.partition("@")[0]
    (folder / "crontab").touch()
    (folder / "nothing").mkdir()
    (folder / "crontabs").mkdir()
    job = folder / "crontabs" / "root"
    job.write_text(f"MAILTO={user},other-{recipient}\n@reboot echo out\n")
    job.chmod(0o600)
    command = ["unshare", "--mount", "sh", "-e", "-c", f"cd {folder}\n{CRON}"]
    with running(command, log=folder / "cron.log", ready=lambda: True):
        for each in (recipient, f"other-{recipient}"):
            (stored,) = postfix.mailbox.wait_for(each)
            assert b"From: root@example.net (Cron Daemon)\r\n" in stored.content
            assert f"To: {recipient},other-{recipient}\r\n".encode() in stored.content
            assert b"Subject: Cron <root@" in stored.content
            assert stored.content.endswith(b"\r\nout\r\n")
