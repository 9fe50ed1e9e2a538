"""A password in a configuration is never repeated, whatever is wrong with the line that it stands in."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mailrider.config import loads
from mailrider.config.kinds import settings_classes
from mailrider.config.secrets import SECRET_WORDS, may_hold_secret
from mailrider.delivery.smarthost_settings import SmarthostSettings
from mailrider.errors import ConfigError
from mailrider.settings.directive import InvalidSetting, directives_of

if TYPE_CHECKING:
    from mailrider.settings.directive import Settings

SECRET = "hunter2"
WHERE = "hostname a.test\ntarget.smtp smart {{\nhost tls://smtp.test:465\n{line}\n}}\n{more}"

DECLARED = [(cls, name) for _, cls in settings_classes() for name, known in directives_of(cls).items() if known.secret]


def told(text: str, **environment: str) -> str:
    """All that is said of a configuration; empty if it is right."""
    try:
        configuration = loads(text, environment=environment)
    except ConfigError as error:
        return str(error) + repr(error) + "".join(traceback.format_exception(error)) + repr(error.problems)
    return repr(configuration)


def test_there_are_directives_that_are_declared_secret_and_all_look_like_it() -> None:
    assert (SmarthostSettings, "auth") in DECLARED
    assert {name for _, name in DECLARED} <= SECRET_WORDS


words = st.lists(
    st.sampled_from(
        [SECRET, f'"{SECRET}"', f"x{SECRET}", "plain", "login", "user", "off", "{", "}", "{}", "\\\n", '"', '"x', "#",
         f'"{SECRET}\n{SECRET}"', "=", "$(x)", "\x00", "ü", "\u200b"]
    ),
    max_size=7,
).map(" ".join)  # fmt: skip


@pytest.mark.parametrize("name", sorted({name for _, name in DECLARED}))
@given(
    arguments=words,
    before=st.sampled_from(["", "host tls://a:1", 'host "tls://a:1', "connect_timeout", "nonsense {", "} x {"]),
    behind=st.sampled_from(["", "auth plain u hunter2", "host x y", '"', "}"]),
    block=st.sampled_from(["target.smtp", "target.smtp", "target.lmtp", "target.remote", "limits", "nonsense"]),
    slip=st.sampled_from(["", "drop", "double", "swap", "upper", "colon"]),
)
@example(arguments=f"plain user {SECRET} extra", before="", behind="", slip="", block="target.smtp")
@example(arguments=f"plain user {SECRET}", before="", behind="auth plain u hunter2", slip="", block="target.smtp")
@example(arguments=f'plain user "{SECRET}', before="", behind="", slip="", block="target.smtp")
@example(arguments=f"plain user \\\n{SECRET} extra", before="", behind="", slip="", block="target.smtp")
@example(arguments=f"# \\\n {SECRET}", before="", behind="", slip="", block="target.smtp")
@example(arguments=f'plain user "{SECRET}"', before='host "tls://a:1', behind="", slip="", block="target.smtp")
@example(arguments=f'"{SECRET}"', before='host "tls://a:1', behind="", slip="drop", block="target.smtp")
@example(arguments=f'"{SECRET}"', before=f'host "tls://{"a" * 99}', behind="", slip="", block="target.smtp")
@example(arguments=f'"{SECRET}"', before='host "' + "a " * 2000, behind="", slip="", block="target.smtp")
@example(arguments=f'"{SECRET}"', before='host "tls://a:1', behind="", slip="drop", block="target.smtp")
def test_no_error_repeats_any_of_a_secret(
    name: str, arguments: str, before: str, behind: str, slip: str, block: str
) -> None:
    written = {
        "": name,
        "drop": name[:-1],
        "double": name[0] + name,
        "swap": name[0] + name[2] + name[1] + name[3:],
        "upper": name.upper(),
        "colon": name + ":",
    }[slip]
    line = "\n".join((before, f"{written} {arguments}", behind))
    text = f"hostname a.test\n{block} smart {{\nhost tls://smtp.test:465\n{line}\n}}\n"
    assert SECRET not in told(text), text


@pytest.mark.parametrize(
    "text",
    [
        f"$(pw) = {SECRET}\n$(pw) {SECRET}\n" + WHERE.format(line="auth plain user $(pw) extra", more=""),
        WHERE.format(line="auth plain user {env:PW} extra", more=""),
        WHERE.format(line=f"auth plain user {SECRET}", more=f"target.smtp smart {{ auth plain u {SECRET} }}"),
        f"auth plain user {SECRET}\n" + WHERE.format(line="", more=""),
        WHERE.format(line=f"auth plain user {SECRET}\nauth plain user {SECRET} x", more=""),
        WHERE.format(line=f"auth {{\nplain user {SECRET}\n}}", more=""),
        WHERE.format(line=f"password {SECRET} x", more="") + f"passwd {SECRET}",
    ],
    ids=["a macro", "the environment", "the name twice", "the top level", "twice", "a block", "other software's"],
)
def test_wherever_it_stands(text: str) -> None:
    assert told(text, PW=SECRET)
    assert SECRET not in told(text, PW=SECRET)


def test_what_is_right_does_not_show_it_either() -> None:
    assert SECRET not in told(WHERE.format(line=f"auth plain user {SECRET}", more=""))


@pytest.mark.parametrize(("cls", "name"), DECLARED)
@pytest.mark.parametrize("value", [("plain", "user", SECRET, "x"), f"plain user {SECRET} x", 7, [SECRET] * 9])
def test_a_program_that_gives_it_wrongly_is_told_without_it(cls: type[Settings], name: str, value: object) -> None:
    with pytest.raises(InvalidSetting) as caught:
        cls(**{name: value, "host": ["tls://a.test:1"]})
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert caught.value.__context__ is None


def test_a_password_that_is_too_long_is_not_repeated() -> None:
    with pytest.raises(InvalidSetting) as caught:
        SmarthostSettings(host=["tls://a.test:1"], auth=("plain", "user", SECRET * 500))
    assert SECRET not in str(caught.value)


def test_other_lines_are_shown() -> None:
    shown = told("hostname a.test\ntarget.remote x {\nmx_auth {\nmtasts nonsense\n}\n}\n")
    assert "    mtasts nonsense\n" in shown
    assert not may_hold_secret(["mx_auth"])
    assert not may_hold_secret([])


def test_behind_more_text_than_is_looked_through_nothing_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailrider.config.source.MAX_TOKENS", 500)
    text = "x\n" * 600 + f'host "{SECRET}" {SECRET}\n{SECRET} {{'
    shown = told(text)
    assert SECRET not in shown
