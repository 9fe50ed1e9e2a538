"""Root's commands on a queue run as the user whom it belongs to, and leave nothing that is root's."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mailrider.cli import owner
from mailrider.cli.main import main
from mailrider.cli.owner import become_owner
from tests.support.commands import queue_alone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")

OTHER = 64_321  # a user and a group that no machine knows
ROOT = (0, 0)


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that every user gets at, with a state directory of another user."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    (folder / "state").mkdir()
    os.chown(folder / "state", OTHER, OTHER)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def readable(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the other user could read the program, which may be in root's home here."""
    monkeypatch.setattr(owner, "PROGRAM", ())


def in_child(work: Callable[[], Any]) -> Any:
    """What something returns in a process of its own, which is then somebody else."""
    reads, writes = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(writes, json.dumps(work()).encode())
        except BaseException:
            os.write(writes, json.dumps(traceback.format_exc()).encode())
        finally:
            os._exit(0)
    os.close(writes)
    with os.fdopen(reads) as file:
        found = json.load(file)
    os.waitpid(child, 0)
    return found


def identity_after(*folders: Path) -> tuple[int, int]:
    def work() -> Any:
        become_owner(*folders)
        return [os.getresuid(), os.getresgid(), os.getgroups()]

    users, groups, further = in_child(work)
    assert len({*users}) == len({*groups}) == 1, "there is no way back"
    assert users[0] == 0 or further == [groups[0]], "root's groups are gone"
    return users[0], groups[0]


def test_root_becomes_the_owner_of_a_folder_for_good(public: Path) -> None:
    assert identity_after(public / "state") == (OTHER, OTHER)


def test_a_folder_that_is_not_there_yet_will_belong_to_the_owner_of_the_one_above(public: Path) -> None:
    assert identity_after(public / "state" / "queues" / "one") == (OTHER, OTHER)


def test_for_a_folder_of_its_own_root_stays_root(public: Path) -> None:
    assert identity_after(public) == ROOT
    assert identity_after(public / "queue") == ROOT


def test_a_link_that_another_user_made_is_followed_as_that_user(public: Path) -> None:
    (public / "state" / "queue").symlink_to("/etc")
    os.chown(public / "state" / "queue", OTHER, OTHER, follow_symlinks=False)
    assert identity_after(public / "state" / "queue") == (OTHER, OTHER)


def test_a_link_of_root_leads_to_the_owner_of_the_folder(public: Path) -> None:
    (public / "link").symlink_to(public / "state")
    assert identity_after(public / "link") == (OTHER, OTHER)


def test_for_folders_of_two_users_root_stays_root(public: Path) -> None:
    (public / "more").mkdir()
    os.chown(public / "more", OTHER + 1, OTHER)
    assert identity_after(public / "state", public / "more") == ROOT
    assert identity_after(public / "state", public / "state") == (OTHER, OTHER)


def test_root_stays_root_where_the_owner_could_not_get_at_the_folder(public: Path) -> None:
    public.chmod(0o700)
    assert identity_after(public / "state") == ROOT


def test_root_stays_root_where_the_owner_could_not_read_the_program(
    public: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = public / "program.py"
    secret.touch(0o600)
    monkeypatch.setattr(owner, "PROGRAM", (secret,))
    assert identity_after(public / "state") == ROOT


@pytest.mark.parametrize("call", ["setgroups", "setegid", "seteuid"])
def test_root_stays_root_where_it_may_not_become_somebody_else(
    public: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    real = getattr(os, call)

    def refuse(wanted: Any) -> None:
        if wanted not in (0, [], os.getgroups()):
            raise PermissionError(1, "Operation not permitted")
        real(wanted)

    monkeypatch.setattr(os, call, refuse)
    assert identity_after(public / "state") == ROOT


def test_a_user_that_the_machine_knows_gets_his_groups(public: Path) -> None:
    os.chown(public / "state", 65_534, 0)  # nobody, who has groups of his own
    assert identity_after(public / "state")[0] == 65_534


def test_who_is_not_root_stays_who_he_is(public: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "setuid", pytest.fail)
    become_owner(public / "state")


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("queue", "list"), 0),
        (("queue", "hold", "--all"), 0),
        (("queue", "merge"), 0),
        (("queue", "run"), 75),
        (("trace", "b@example.net"), 0),
        (("history", "drop", "b@example.net"), 0),
    ],
)
def test_a_command_of_root_runs_as_the_owner_of_the_queue_and_leaves_no_file_of_root(
    public: Path, tmp_path: Path, command: tuple[str, ...], code: int, capfd: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "mailrider.conf"  # which only root can read
    config.write_text(queue_alone(public / "state"))
    message = tmp_path / "message"
    message.write_bytes(b"Subject: hello\r\n\r\nHello.\r\n")

    def run(*arguments: str) -> list[int]:
        with pytest.raises(SystemExit) as ended:
            main(["-c", str(config), *arguments])
        return [int(ended.value.code or 0), os.getuid()]

    assert run("send", "--queue", "--from", "a@example.org", "--to", "b@example.net", str(message)) == [0, 0]
    with pytest.MonkeyPatch.context() as patch:  # root imports what is imported late: the other user might not
        patch.setattr("mailrider.cli.chosen_queue.become_owner", lambda *_: None)
        run(*command)
        run("queue", "retry", "--all")
    assert in_child(lambda: run(*command)) == [code, OTHER], capfd.readouterr()
    made = [*(public / "state").rglob("*")]
    assert made
    assert {(each.lstat().st_uid, each.lstat().st_gid) for each in made} == {(OTHER, OTHER)}


@pytest.mark.parametrize(
    "block",
    [
        "tls_client {{\n cert {key}\n key {key}\n }}",
        "tls_client {{\n root_ca {key}\n }}",
        "modify {{\n dkim example.org selector {{\n key_path {key}\n }}\n }}",
    ],
    ids=["tls_client", "root_ca", "dkim"],
)
def test_queue_run_names_the_user_who_cannot_read_what_only_root_can(
    public: Path, tmp_path: Path, block: str, capfd: pytest.CaptureFixture[str]
) -> None:
    key = public / "secret.pem"
    key.touch(0o600)
    config = tmp_path / "mailrider.conf"
    remote = f"target.remote out {{\n {block.format(key=key)}\n }}"
    config.write_text(queue_alone(public / "state").replace("target.remote out { }", remote))

    def run() -> int:
        with pytest.raises(SystemExit) as ended:
            main(["-c", str(config), "queue", "run"])
        return int(ended.value.code or 0)

    assert in_child(run) == os.EX_CONFIG
    error = capfd.readouterr().err
    assert str(key) in error
    assert "Permission denied" in error
    assert f"runs as the user uid {OTHER}; called by root, it becomes the user whom the queue belongs to" in error


def test_a_password_that_only_root_can_read_is_read_before_root_becomes_the_owner(
    public: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    secret = public / "password"
    secret.write_text("secret")
    secret.chmod(0o600)
    config = tmp_path / "mailrider.conf"
    smarthost = f"target.smtp out {{\n host tls://127.0.0.1:9\n auth plain me {{file:{secret}}}\n }}"
    config.write_text(queue_alone(public / "state").replace("target.remote out { }", smarthost))

    def run() -> list[int]:
        with pytest.raises(SystemExit) as ended:
            main(["-c", str(config), "queue", "run"])
        return [int(ended.value.code or 0), os.getuid()]

    assert in_child(run) == [0, OTHER], capfd.readouterr()
