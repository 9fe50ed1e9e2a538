"""Whatever a configuration holds, reading it comes to an end soon, in bounded memory."""

from __future__ import annotations

import pytest

from mailrider.config import expand
from tests.support.long_runs import LONG
from tests.unit.config.reading import errors, read

RUBBISH = 2_000_000 if LONG else 20_000  # characters
SMALL = 20_000  # words and characters that a test needs little time for


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real bounds are met by megabytes, which take seconds."""
    monkeypatch.setattr(expand.Allowance.__init__, "__defaults__", (SMALL, 40 * SMALL))


def doubling(kind: str, levels: int = 19) -> str:
    """Snippets that import each other twice: 2^19 of the first one."""
    snippets = [f"(s0) {{ {kind} }}"]
    snippets += [f"(s{n}) {{\nimport s{n - 1}\nimport s{n - 1}\n}}" for n in range(1, levels + 1)]
    return "\n".join([*snippets, f"import s{levels}"])


MORE_WORDS = "the configuration is too large: more than 400000 names and arguments, imports included"
MORE_TEXT = "the configuration is too large: more than 33554432 characters, imports and macros included"

BOMBS = {
    "many directives": ("x\n" * SMALL * 2, MORE_WORDS),
    "many arguments": ("hostname " + "x " * SMALL * 2, MORE_WORDS),
    "many strings": ('"" ' * SMALL * 2, MORE_WORDS),
    "many blocks": ("x { }\n" * SMALL * 2, MORE_WORDS),
    "snippets that double": (doubling("x"), MORE_WORDS),
    "snippets that double nothing": (doubling(""), MORE_WORDS),
    "macros that multiply as arguments": (
        "$(a) = x x x x x x x x x x\n$(b) = " + "$(a) " * 100 + "\n$(c) = " + "$(b) " * 100,
        MORE_WORDS,
    ),
    "macros that multiply within an argument": (
        f"$(a) = {'x' * 1000}\n$(b) = y" + "$(a)" * 100 + "\n$(c) = y" + "$(b)" * 100,
        MORE_TEXT,
    ),
    "a long text": ("#" + "x" * SMALL * 41, MORE_TEXT),
    "a file that imports another often": ("import self\nimport again", MORE_WORDS),
}


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("case", BOMBS)
def test_a_configuration_without_end_is_refused(case: str) -> None:
    text, message = BOMBS[case]
    files = {"/etc/mailrider/self": "# nothing\n", "/etc/mailrider/again": "import self\n" * SMALL}
    (problem,) = errors(text, files=files)
    assert problem.endswith(message)


HUGE = {
    "blank lines": "\n" * 3_000_000,
    "comments": "#\n" * 1_500_000,
    "continued lines": "\\\n" * 1_500_000,
    "one comment": "#" + "x" * 3_000_000,
}


@pytest.mark.parametrize("case", HUGE)
def test_megabytes_of_nothing_are_nothing(case: str) -> None:
    assert read(HUGE[case]).targets == {}


@pytest.mark.parametrize("text", ["\0", '"', "{ ", "} ", '"\\', "{", "x ", '"a\n', "$(", "a{\n"])
def test_much_rubbish_is_refused(text: str) -> None:
    assert 0 < len(errors(text * (RUBBISH // len(text)))) <= 1001


def test_a_large_configuration_that_makes_sense_is_read() -> None:
    networks = " \\\n".join(f"10.{number // 256}.{number % 256}.0/24" for number in range(5_000))
    targets = "".join(f"target.remote t{number} {{\n port 26\n}}\n" for number in range(500))
    text = f"hostname a.b\n{targets}target.remote big {{\n prohibited_addresses {networks}\n}}\n"
    assert len(read(text).targets) == 501


@pytest.mark.parametrize("size", [expand.MAX_FILE, expand.MAX_FILE + 1])
def test_a_file_is_too_large_beyond_4_mib(size: int) -> None:
    files = {"/etc/mailrider/x": b"#" * size}
    if size == expand.MAX_FILE:
        read("import x", files=files)
    else:
        assert errors("import x", files=files) == [
            '1:8 "/etc/mailrider/x": the file is too large: more than 4194304 octets'
        ]
