"""Macros, environment variables, snippets, imports."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mailrider.config.expand import Allowance, Expander
from mailrider.config.source import Problems, Source, TooMuch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mailrider.config.parser import Node

ENVIRONMENT = {"HOST": "mx.example.org", "EMPTY": "", "TRICKY": '$(a) {env:HOST} { } # " x'}


def written(node: Node) -> str:
    head = " ".join((node.name.text, *(f"<{word.text}>" for word in node.arguments)))
    return head if node.children is None else f"{head} {{{'; '.join(map(written, node.children))}}}"


def expanded(text: str, files: Mapping[str, str] | None = None) -> tuple[list[str], list[str]]:
    """The directives as text, and the problems with their places and trails."""

    def read(path: Path) -> bytes:
        try:
            return (files or {})[str(path)].encode()
        except KeyError:
            raise FileNotFoundError(2, "No such file or directory") from None

    problems = Problems()
    try:
        nodes = Expander(problems, ENVIRONMENT, read, Allowance(problems)).expand(Source("main", text, Path("/etc")))
    except TooMuch:
        nodes = ()
    told = [" < ".join((f"{each.place} {each.message}", *each.trail)) for each in problems.in_order()]
    return [written(node) for node in nodes], told


MACROS = {
    "a macro is its value": ("$(a) = x\nb $(a)", ["b <x>"]),
    "a macro may have several values, which become arguments": ("$(a) = x y\nb 1 $(a) 2", ["b <1> <x> <y> <2>"]),
    "a macro may hold none": ("$(a) = $(nothing)\nb 1 $(a) 2", ["b <1> <2>"]),
    "a macro in a longer argument": ("$(a) = x\nb 1$(a)2$(a)", ["b <1x2x>"]),
    "several values in a longer argument are joined": ("$(a) = x y\nb 1$(a)2", ["b <1x y2>"]),
    "a macro in quotes stays one argument": ('$(a) = x y\nb "$(a)"', ["b <x y>"]),
    "an undefined macro vanishes": ("b 1 $(a) 2", ["b <1> <2>"]),
    "an undefined macro vanishes from a longer argument": ("b 1$(a)2", ["b <12>"]),
    "an undefined macro in quotes leaves an empty argument": ('b "$(a)"', ["b <>"]),
    "a macro may use others": ("$(a) = x y\n$(b) = $(a) $(a)z\nc $(b)", ["c <x> <y> <x yz>"]),
    "a macro holds from its definition on": ("b $(a)\n$(a) = x\nb $(a)\n$(a) = y\nb $(a)", ["b", "b <x>", "b <y>"]),
    "a macro's value is not expanded again": ("$(a) = $(b)\n$(b) = x\nc $(a)", ["c"]),
    "a macro works in a block": ("$(a) = x\nb { c $(a) }", ["b {c <x>}"]),
    "quoted values are text": ('$(a) = "x y" "{"\nb $(a)', ["b <x y> <{>"]),
    "what is no macro is text": ("b $() $(a $a (a) $(a)b)", ["b <$()> <$(a> <$a> <(a)> <b)>"]),
    "an unclosed macro is text": ("b $(a", ["b <$(a>"]),
}

VARIABLES = {
    "a variable is its value": ("b {env:HOST}", ["b <mx.example.org>"]),
    "a variable in a longer argument": ("b a.{env:HOST}:{env:HOST}", ["b <a.mx.example.org:mx.example.org>"]),
    "a variable in quotes": ('b "{env:HOST} x"', ["b <mx.example.org x>"]),
    "an unset variable is an empty argument": ("b {env:NONE} c", ["b <> <c>"]),
    "an empty variable is an empty argument": ("b {env:EMPTY}", ["b <>"]),
    "an unclosed variable stays": ("b {env:HOST c", ["b <{env:HOST> <c>"]),
    "an unclosed variable before another stays": ("b {env:A{env:HOST}", ["b <{env:Amx.example.org>"]),
    "a variable's value is never expanded": ("$(a) = x\nb {env:TRICKY}", ['b <$(a) {env:HOST} { } # " x>']),
    "a variable in a macro": ("$(a) = {env:HOST}\nb $(a)", ["b <mx.example.org>"]),
    "a name is no argument": ("{env:HOST} b", ["{env:HOST} <b>"]),
}

SNIPPETS = {
    "a snippet is inserted": ("(s) { a 1\n b { c } }\nimport s", ["a <1>", "b {c}"]),
    "a snippet is inserted in a block": ("(s) { a }\nx { import s\n y }", ["x {a; y}"]),
    "a snippet may stand behind its use": ("import s\n(s) { a }", ["a"]),
    "a snippet that is not used is nothing": ("(s) { a }\nb", ["b"]),
    "a snippet may be empty": ("(s) { }\nimport s\nb", ["b"]),
    "a snippet may import another": ("(s) { import t\n a }\n(t) { b }\nimport s", ["b", "a"]),
    "a snippet may be imported often": ("(s) { a }\nimport s\nimport s", ["a", "a"]),
    "the macros at the import count": ("(s) { a $(x) }\n$(x) = 1\nimport s\n$(x) = 2\nimport s", ["a <1>", "a <2>"]),
    "the name may come from a macro": ("(s) { a }\n$(x) = s\nimport $(x)", ["a"]),
    "a quoted name is a directive": ('"(s)" { a }\n"import" s\n"$(x)" = y', ["(s) {a}", "import <s>", "$(x) <=> <y>"]),
    "braces around no name are a directive's": ("() { a }", []),
}


@pytest.mark.parametrize("case", [*MACROS, *VARIABLES, *SNIPPETS])
def test_expansion(case: str) -> None:
    text, expected = {**MACROS, **VARIABLES, **SNIPPETS}[case]
    nodes, problems = expanded(text)
    assert nodes == expected
    if case == "braces around no name are a directive's":
        assert problems == ["main:1:1 expected the definition of a snippet: (name) { ... }"]
    else:
        assert problems == []


FILES = {
    "/etc/a": "one\n",
    "/etc/sub/b": "import c\nimport /etc/a\n",
    "/etc/sub/c": "two { three }\n",
    "/etc/macros": "$(x) = 1\n(s) { from_file $(x) }\n",
    "/etc/s": "a file of a snippet's name",
    "/etc/loop": "import sub/loop\n",
    "/etc/sub/loop": "x {\n import ../loop\n}\n",
    "/etc/self": "import main\n",
    "/etc/wrong": "\nx {\n",
    "/etc/wrong2": "y\n import wrong\n",
    "/etc/crlf": 'a "b\r\nc" \\\r\n d\r\ne\r\n',
    "/etc/bom": "\ufeffa",
}

IMPORTS = {
    "a file is inserted": ("import a\nb", ["one", "b"]),
    "a file is inserted in a block": ("x { import a }", ["x {one}"]),
    "a file is relative to the one that imports it": ("import sub/b", ["two {three}", "one"]),
    "a file may bring macros and snippets": ("import macros\nimport s\nb $(x)", ["from_file <1>", "b <1>"]),
    "a file in a block may bring macros and snippets": ("z { import macros\nimport s\n}", ["z {from_file <1>}"]),
    "a snippet goes before a file": ("(s) { a }\nimport s", ["a"]),
    "a file may be imported often": ("import macros\nimport macros\nimport a\nimport a", ["one", "one"]),
    "CRLF ends lines like LF": ("import crlf", ["a <b\nc> <d>", "e"]),
    "a byte order mark is nothing": ("import bom", ["a"]),
}


@pytest.mark.parametrize("case", IMPORTS)
def test_imports(case: str) -> None:
    text, expected = IMPORTS[case]
    assert expanded(text, FILES) == (expected, [])


WRONG = {
    "a macro in a block": (
        "x { $(a) = 1 }",
        ["main:1:5 macros are defined at the top level, not inside a block"],
    ),
    "a macro in a snippet": (
        "(s) {\n $(a) = 1\n}\nimport s",
        ["main:2:2 macros are defined at the top level, not inside a block < main:4:8"],
    ),
    "a macro without =": ("$(a) b", ["main:1:1 expected a definition of a macro: $(name) = value ..."]),
    "a macro without anything": ("$(a)", ["main:1:1 expected a definition of a macro: $(name) = value ..."]),
    "a macro without a value": ("$(a) =", ["main:1:1 the macro $(a) has no value: expected $(a) = value ..."]),
    "a macro with a quoted =": ('$(a) "=" b', ["main:1:1 expected a definition of a macro: $(name) = value ..."]),
    "a macro without spaces": ("$(a)=b", ["main:1:1 expected a definition of a macro: $(name) = value ..."]),
    "a macro with a block": ("$(a) = b { }", ["main:1:1 expected a definition of a macro: $(name) = value ..."]),
    "a snippet in a block": (
        "x { (s) { } }",
        ["main:1:5 snippets are defined at the top level, not inside a block"],
    ),
    "a snippet in a snippet": (
        "(s) {\n (t) { }\n}\nimport s",
        ["main:2:2 snippets are defined at the top level, not inside a block < main:4:8"],
    ),
    "a snippet without a block": ("(s)", ["main:1:1 expected the definition of a snippet: (name) { ... }"]),
    "a snippet with arguments": ("(s) a { }", ["main:1:1 expected the definition of a snippet: (name) { ... }"]),
    "two snippets of one name": (
        "(s) { }\n(s) { }",
        ["main:2:1 the snippet (s) is already defined, at main:1:1"],
    ),
    "an import of nothing": (
        "import",
        ["main:1:1 expected the name of one snippet or file, and no block: import NAME"],
    ),
    "an import of two": (
        "import a b",
        ["main:1:1 expected the name of one snippet or file, and no block: import NAME"],
    ),
    "an import with a block": (
        "import a { }",
        ["main:1:1 expected the name of one snippet or file, and no block: import NAME"],
    ),
    "an import of an empty name": (
        "import {env:NONE}",
        ["main:1:1 expected the name of one snippet or file, and no block: import NAME"],
    ),
    "an import of what is not there": (
        "(common) { }\nimport comon",
        [
            'main:2:8 there is neither a snippet nor a file of that name: "/etc/comon"; did you mean "common"?',
        ],
    ),
    "a loop of snippets": (
        "(s) { import t }\n(t) { import s }\nimport s",
        ["main:2:14 this import never ends: (s) -> (t) -> (s) < main:1:14 < main:3:8"],
    ),
    "a snippet that imports itself": (
        "(s) { import s }\nimport s",
        ["main:1:14 this import never ends: (s) -> (s) < main:2:8"],
    ),
    "a loop of files": (
        "import loop",
        [
            (
                "/etc/sub/loop:2:9 this import never ends: /etc/loop -> /etc/sub/loop -> /etc/loop"
                " < /etc/loop:1:8 < main:1:8"
            )
        ],
    ),
    "a file that imports the first one": (
        "import self",
        ["/etc/self:1:8 this import never ends: /etc/main -> /etc/self -> /etc/main < main:1:8"],
    ),
    "an error in an imported file": (
        "a\nimport wrong2",
        [
            (
                "/etc/wrong:2:3 this block is never closed: expected } before the end of the file"
                " < /etc/wrong2:2:9 < main:2:8"
            )
        ],
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_expanded(case: str) -> None:
    text, expected = WRONG[case]
    _, problems = expanded(text, FILES)
    assert problems == expected


def test_a_node_remembers_the_macros_that_vanished() -> None:
    expander = Expander(problems := Problems(), {}, lambda _: b"", Allowance(problems))
    (node,) = expander.expand(Source("f", "a $(x) 1$(y)", Path()))
    assert node.undefined == ("x", "y")


def test_255_levels_may_come_together_from_several_places() -> None:
    inner = "(s) {\n" + "a {\n" * 200 + "}\n" * 201
    _, problems = expanded(inner + "b {\n" * 55 + "import s\n" + "}\n" * 55)
    assert problems == []
    _, problems = expanded(inner + "b {\n" * 56 + "import s\n" + "}\n" * 56)
    assert problems == ["main:201:1 blocks are nested more than 255 levels deep < main:459:8"]


def test_20_files_may_import_each_other_and_no_more() -> None:
    files = {f"/etc/{number}": f"import {number + 1}" for number in range(1, 20)} | {"/etc/20": "a"}
    assert expanded("import 1", files) == (["a"], [])
    files |= {"/etc/20": "import 21", "/etc/21": "a"}
    _, (problem,) = expanded("import 1", files)
    assert problem.startswith("/etc/20:1:8 more than 20 imports inside each other < /etc/19:1:8 < ")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PermissionError(13, "Permission denied"), "Permission denied"),
        (IsADirectoryError(21, "Is a directory"), "Is a directory"),
        (ValueError("embedded null byte"), "embedded null byte"),
    ],
)
def test_a_file_that_cannot_be_read(error: Exception, message: str) -> None:
    def read(_: Path) -> bytes:
        raise error

    expander = Expander(problems := Problems(), {}, read, Allowance(problems))
    assert expander.expand(Source("f", "import x", Path("/etc"))) == ()
    assert [each.message for each in problems.in_order()] == [f'cannot read "/etc/x": {message}']


def test_a_file_that_is_no_text() -> None:
    expander = Expander(problems := Problems(), {}, lambda _: b"a\nb\xe4c", Allowance(problems))
    assert expander.expand(Source("f", "import x", Path("/etc"))) == ()
    (problem,) = problems.in_order()
    assert (problem.place, problem.trail) == ("/etc/x:2:2", ("f:1:8",))
    assert problem.message == "the file is not UTF-8: the octet 0xe4 stands here"
