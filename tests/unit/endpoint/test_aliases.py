"""aliases(5): what a file says, whom an alias leads to, and which files are believed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from mailrider.endpoint import aliases as module
from mailrider.endpoint.aliases import (
    MAX_ADDRESSES,
    Aliases,
    AliasFault,
    UnsafeFile,
    items_of,
    parse_aliases,
    read_safe,
)
from mailrider.errors import InvalidValue
from mailrider.model.address import Mailbox
from mailrider.model.domain import Domain

if TYPE_CHECKING:
    from pathlib import Path

    from mailrider.files import FileStamp

HERE = Domain("host.example.org")


def written(folder: Path, text: str, name: str = "aliases") -> Path:
    path = folder / name
    path.write_text(text)
    path.chmod(0o644)
    return path


def reading(folder: Path, text: str) -> Aliases:
    return Aliases(written(folder, text), HERE)


def followed(aliases: Aliases, address: str) -> list[str] | None:
    members = aliases.members(Mailbox.parse(address))
    return None if members is None else [str(each.mailbox) for each in members]


def refused(aliases: Aliases, address: str) -> AliasFault:
    with pytest.raises(AliasFault) as caught:
        aliases.members(Mailbox.parse(address))
    return caught.value


FOLLOWED = [
    # the file, who is asked for, where that leads
    ("root: a@example.net", "root", ["a@example.net"]),
    ("root: a@example.net", "root@host.example.org", ["a@example.net"]),
    ("root: a@example.net", "ROOT@HOST.example.org", ["a@example.net"]),
    ("Root : a@example.net", "root", ["a@example.net"]),
    ("root: a@example.net", "root@example.net", None),  # of another domain
    ("root: a@example.net", "other", None),
    ("root: root, a@example.net", "root", ["root@host.example.org", "a@example.net"]),  # sendmail and Exim do so
    ("root: Root", "root", ["Root@host.example.org"]),
    ("postmaster: root\nroot: root, a@example.net", "postmaster", ["root@host.example.org", "a@example.net"]),
    (
        "root: a@example.net, b@example.net,\n\tc@example.net",
        "root",
        ["a@example.net", "b@example.net", "c@example.net"],
    ),
    ("# a comment\n\n  # another\nroot: a@example.net\n", "root", ["a@example.net"]),
    ("root: a@example.net,\n# in between\n b@example.net", "root", ["a@example.net", "b@example.net"]),
    ("root: Ann <a@example.net>", "root", ["a@example.net"]),
    ('root: "Smith, Ann" <a@example.net>', "root", ["a@example.net"]),
    ('"two words": a@example.net', '"two words"', ["a@example.net"]),
    ("root: a@example.net, a@example.net", "root", ["a@example.net"]),
    ("cron: root\nroot: ann\nann: a@example.net", "cron", ["a@example.net"]),
    ("cron: root@host.example.org\nroot: a@example.net", "cron", ["a@example.net"]),
    ("cron: ann", "cron", ["ann@host.example.org"]),
    ("root: \\root, a@example.net", "root", ["root@host.example.org", "a@example.net"]),
    ("root: root@host.example.org, a@example.net", "root", ["root@host.example.org", "a@example.net"]),
    ("root: a@example.net\r\ncron: root\r\n", "cron", ["a@example.net"]),
    ("a: b, c\nb: d\nc: d\nd: x@example.net", "a", ["x@example.net"]),  # twice, and no loop
]


@pytest.mark.parametrize(("text", "asked", "expected"), FOLLOWED)
def test_an_alias_leads_to_its_addresses(tmp_path: Path, text: str, asked: str, expected: list[str] | None) -> None:
    assert followed(reading(tmp_path, text), asked) == expected


BAD = [
    ('root: "|/usr/bin/procmail -d root"', "mail is not given to programs: '|/usr/bin/procmail -d root'"),
    ("root: |/usr/bin/vacation", "mail is not given to programs: '|/usr/bin/vacation'"),
    ("root: /var/mail/archive", "mail is not written to files: '/var/mail/archive'"),
    ('root: "/var/mail/the archive"', "mail is not written to files: '/var/mail/the archive'"),
    ("root: :include:list", "expected :include: and an absolute path, not 'list'"),
    ("root: :include:/no/such/file", "cannot read /no/such/file: No such file or directory"),
    ("root:", "it leads to nobody"),
    ("root: a@@example.net", "not a list of addresses"),
    ("root: a b@example.net", "not a list of addresses"),
    ('root: "a@example.net', "a quote is not closed"),
    ("root: a@example.net\nroot: b@example.net", "the alias stands there twice, first in line 1"),
]


@pytest.mark.parametrize(("line", "reason"), BAD)
def test_a_bad_line_makes_its_own_alias_wait_and_no_other(tmp_path: Path, line: str, reason: str) -> None:
    aliases = reading(tmp_path, f"{line}\ngood: a@example.net\nthis is no alias\nbad: root\n")
    fault = refused(aliases, "root")
    number = line.count("\n") + 1
    assert (fault.reply.code, str(fault.reply.status)) == (451, "4.3.5")
    assert str(fault).startswith(f"{tmp_path}/aliases:{number}: root: ")
    assert reason in str(fault)
    assert followed(aliases, "good") == ["a@example.net"]
    assert refused(aliases, "bad").reply.code == 451  # it leads there
    told = aliases.load()
    assert told[0] == str(fault)
    assert told[1] == f"{tmp_path}/aliases:{number + 2}: expected NAME: ADDRESS, ..."
    assert len(told) == 2


def test_a_name_with_a_domain_is_a_mistake(tmp_path: Path) -> None:
    aliases = reading(tmp_path, "root@example.org: a@example.net")
    (told,) = aliases.load()
    assert "expected a name without a domain" in told


@pytest.mark.parametrize(
    "text", ["a: b\nb: c\nc: a\nroot: a", "root: x@example.net, cron\ncron: root@host.example.org"]
)
def test_a_circle_leads_nowhere(tmp_path: Path, text: str) -> None:
    fault = refused(reading(tmp_path, text), "root")
    assert (fault.reply.code, str(fault.reply.status)) == (554, "5.4.6")
    assert "circle" in fault.reply.text
    assert any("these aliases lead in a circle" in each for each in reading(tmp_path, text).load())


@pytest.mark.parametrize(("levels", "works"), [(10, True), (11, False)])
def test_ten_aliases_may_stand_one_behind_the_other(tmp_path: Path, levels: int, works: bool) -> None:
    lines = [f"a{number}: a{number + 1}" for number in range(1, levels)]
    aliases = reading(tmp_path, "\n".join([*lines, f"a{levels}: x@example.net"]))
    if works:
        assert followed(aliases, "a1") == ["x@example.net"]
    else:
        assert str(refused(aliases, "a1").reply).startswith("554 5.4.6")


@pytest.mark.parametrize("way", ["line", "include", "aliases"])
@pytest.mark.parametrize(("count", "works"), [(MAX_ADDRESSES, True), (MAX_ADDRESSES + 1, False)])
def test_an_alias_has_a_thousand_addresses_at_most(tmp_path: Path, way: str, count: int, works: bool) -> None:
    addresses = [f"u{number}@example.net" for number in range(count)]
    text = {
        "line": f"all: {','.join(addresses)}",
        "include": f"all: :include:{written(tmp_path, chr(10).join(addresses), 'list')}",
        "aliases": f"all: one, two\none: {addresses[0]}\ntwo: {','.join(addresses[1:])}",
    }[way]
    aliases = reading(tmp_path, text)
    if works:
        assert followed(aliases, "all") == addresses
    else:
        assert str(refused(aliases, "all").reply).startswith("554 5.4.6")


def test_aliases_that_multiply_are_followed_once_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def counted(text: str) -> list[str]:
        asked.append(text)
        return items_of(text)

    monkeypatch.setattr(module, "items_of", counted)
    lines = [f"{side}{level}: l{level + 1}, r{level + 1}" for level in range(8) for side in "lr"]
    aliases = reading(tmp_path, "\n".join([*lines, "l8: x@example.net", "r8: x@example.net"]))
    assert followed(aliases, "l0") == ["x@example.net"]
    assert len(asked) == 17


# Included files ------------------------------------------------------------------------------------------------------


def test_an_included_file_holds_addresses_on_any_number_of_lines(tmp_path: Path) -> None:
    included = written(tmp_path, "# the staff\na@example.net, ann\n\nBob <b@example.net>\n", "staff")
    aliases = reading(tmp_path, f"staff: :include:{included}, c@example.net\nann: d@example.net")
    assert followed(aliases, "staff") == ["a@example.net", "d@example.net", "b@example.net", "c@example.net"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (":include:/etc/other", "an included file includes no other"),
        ("|program", "mail is not given to programs"),
        ("/file", "mail is not written to files"),
        ("a@example.net b@example.net", "not a list of addresses"),
    ],
)
def test_an_included_file_can_do_no_more_than_name_addresses(tmp_path: Path, line: str, reason: str) -> None:
    included = written(tmp_path, f"a@example.net\n{line}\n", "staff")
    fault = refused(reading(tmp_path, f"staff: :include:{included}"), "staff")
    assert fault.reply.code == 451
    assert f"{included}: line 2: {reason}" in str(fault)


# Owners --------------------------------------------------------------------------------------------------------------

OWNED = [
    # the file, the members of `all` with whom failures are told
    ("all: a@x.net, b@x.net", {"a@x.net": None, "b@x.net": None}),
    ("all: a@x.net, b@x.net\nowner-all: o@x.net", {"a@x.net": "o@x.net", "b@x.net": "o@x.net"}),
    ("all: a@x.net\nowner-all: o@x.net", {"a@x.net": None}),  # one address is no list
    (
        "all: a@x.net, b@x.net\nowner-all: o@x.net, p@x.net",
        {"a@x.net": "owner-all@host.example.org", "b@x.net": "owner-all@host.example.org"},
    ),
    (
        "all: part, c@x.net\npart: a@x.net, b@x.net\nowner-part: o@x.net",
        {"a@x.net": "o@x.net", "b@x.net": "o@x.net", "c@x.net": None},
    ),
    (
        "all: part, c@x.net\npart: a@x.net, b@x.net\nowner-part: o@x.net\nowner-all: p@x.net",
        {"a@x.net": "o@x.net", "b@x.net": "o@x.net", "c@x.net": "p@x.net"},
    ),
]


@pytest.mark.parametrize(("text", "expected"), OWNED)
def test_the_owner_of_a_list_hears_of_its_failures(tmp_path: Path, text: str, expected: dict[str, str | None]) -> None:
    members = reading(tmp_path, text).members(Mailbox.parse("all"))
    assert members is not None
    assert {str(each.mailbox): each.owner and str(each.owner) for each in members} == expected


def test_a_list_whose_owner_cannot_be_found_out_waits(tmp_path: Path) -> None:
    assert refused(reading(tmp_path, "all: a@x.net, b@x.net\nowner-all: |x"), "all").reply.code == 451


# Files ---------------------------------------------------------------------------------------------------------------


def test_a_file_is_read_again_when_it_has_changed(tmp_path: Path) -> None:
    included = written(tmp_path, "a@example.net", "staff")
    aliases = reading(tmp_path, f"root: :include:{included}")
    assert followed(aliases, "root") == ["a@example.net"]
    written(tmp_path, "bob@example.net", "staff")
    assert followed(aliases, "root") == ["bob@example.net"]
    written(tmp_path, "root: carol@example.net")
    assert followed(aliases, "root") == ["carol@example.net"]
    (tmp_path / "aliases").unlink()
    fault = refused(aliases, "anybody")
    assert (fault.reply.code, "No such file" in str(fault)) == (451, True)
    assert followed(aliases, "a@example.net") is None  # other domains have nothing to do with it
    written(tmp_path, "root: dave@example.net")
    assert followed(aliases, "root") == ["dave@example.net"]


@pytest.mark.parametrize("mode", [0o664, 0o646])
@pytest.mark.parametrize("which", ["aliases", "staff"])
def test_a_file_that_others_can_write_to_is_not_believed(tmp_path: Path, mode: int, which: str) -> None:
    included = written(tmp_path, "a@example.net", "staff")
    aliases = reading(tmp_path, f"root: :include:{included}")
    (tmp_path / which).chmod(mode)
    fault = refused(aliases, "root")
    assert fault.reply.code == 451
    assert f"others than its owner may write to {tmp_path / which} (chmod go-w)" in str(fault)


def test_a_file_of_another_user_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    aliases = reading(tmp_path, "root: a@example.net")
    uid = (tmp_path / "aliases").stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
    if uid == 0:  # root's files are everybody's to read
        assert followed(aliases, "root") == ["a@example.net"]
        os.chown(tmp_path / "aliases", 12345, -1)
        uid = 12345
    assert f"belongs to user {uid}" in str(refused(aliases, "root"))


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "aliases")
    with pytest.raises(UnsafeFile, match="it is not a regular file"):
        Aliases(tmp_path / "aliases", HERE).load()
    with pytest.raises(UnsafeFile, match="it is not a regular file"):
        Aliases(tmp_path, HERE).load()


def test_a_file_is_text_of_a_bounded_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, "")
    path.write_bytes(b"root: \xff@example.net")
    with pytest.raises(UnsafeFile, match="not UTF-8"):
        Aliases(path, HERE).load()
    monkeypatch.setattr(module, "MAX_FILE", 10)
    path.write_bytes(b"root: a@example.net")
    with pytest.raises(UnsafeFile, match="larger than 10 octets"):
        Aliases(path, HERE).load()


def test_no_more_than_twenty_faults_are_told(tmp_path: Path) -> None:
    assert len(reading(tmp_path, "".join(f"a{number}: |x\n" for number in range(30))).load()) == 20


def test_included_files_that_are_named_no_more_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ADDRESSES", 2)
    lines = [f"a{each}: :include:{written(tmp_path, 'x@example.net', f'list{each}')}\n" for each in range(4)]
    aliases = reading(tmp_path, "".join(lines))
    assert aliases.load() == []
    read: list[Path] = []

    def noted(path: Path) -> tuple[str, FileStamp]:
        read.append(path)
        return read_safe(path)

    monkeypatch.setattr(module, "read_safe", noted)
    assert aliases.load() == []
    assert read, "one of four at least was forgotten"


@pytest.mark.parametrize("text", ["\0", ":::", "\n\n", " : x", '"', "#", "a" * 5000])
def test_whatever_stands_in_a_file_is_read_to_its_end(text: str) -> None:
    for line in parse_aliases(text).values():
        try:
            module.items_of(line.text)
        except InvalidValue:
            pass
