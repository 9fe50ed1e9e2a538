"""Regular expressions are right on every Python that we run on, and a stranger's input makes none of them slow.

Python before 3.11.5 matches possessive groups, `(...)*+` and `(?>...)`, wrongly if something in them can be matched in
two ways (python/cpython#106052), and Debian 12 has 3.11.2; so there are none. A single character with `*+` is right.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import mailrider
from mailrider.errors import InvalidValue
from mailrider.header.addresses import Address, parse_addresses
from mailrider.header.complete import MAX_OCTETS, complete_addresses
from mailrider.header.fields import MAX_LINES, header_fault, header_fields, submitted_header
from mailrider.model.domain import Domain
from tests.unit.test_work import HERE, PASSAGE

if TYPE_CHECKING:
    from collections.abc import Iterator

parser: Any = importlib.import_module("re._parser")
constants: Any = importlib.import_module("re._constants")
SINGLE = (constants.LITERAL, constants.NOT_LITERAL, constants.IN, constants.ANY)


def possessive_groups(pattern: str | bytes, flags: int = 0) -> int:
    return sum(_is_possessive_group(*each) for each in _parts(parser.parse(pattern, flags)))


def _is_possessive_group(operation: object, argument: Any) -> bool:
    if operation is constants.ATOMIC_GROUP:
        return True
    return operation is constants.POSSESSIVE_REPEAT and [each[0] in SINGLE for each in argument[2]] != [True]


def _parts(parsed: Any) -> Iterator[tuple[object, Any]]:
    """Each operation of a parsed expression, at every depth."""
    for operation, argument in parsed:
        yield operation, argument
        for each in _flat(argument):
            yield from _parts(each)


def _flat(argument: Any) -> Iterator[Any]:
    if isinstance(argument, parser.SubPattern):
        yield argument
    elif isinstance(argument, tuple | list):
        for each in argument:
            yield from _flat(each)


@pytest.mark.parametrize(
    "pattern", ["(?:ab)*+", "(?:ab)++", "(?:ab|c)?+", "x(y(?:ab){2,3}+)", "(?>a)", "(?:(?=(?>a))|b)"]
)
def test_a_possessive_group_is_found(pattern: str) -> None:
    assert possessive_groups(pattern) == 1


@pytest.mark.parametrize("pattern", ["a*+", "[()]++", r"\)*+", "(?:ab)*", ".?+", r"\s++", "[^a]{2,3}+"])
def test_a_single_possessive_character_is_none(pattern: str) -> None:
    assert possessive_groups(pattern) == 0


def test_there_are_no_possessive_groups() -> None:
    found = [
        f"{name}.{each}"
        for _, name, _ in pkgutil.walk_packages(mailrider.__path__, "mailrider.")
        if not name.endswith("__main__")
        for each, value in vars(importlib.import_module(name)).items()
        if type(value) is re.Pattern and possessive_groups(value.pattern, value.flags)
    ]
    assert found == []


def test_there_are_none_within_functions() -> None:
    source = Path(mailrider.__path__[0])
    found = [
        f"{path.relative_to(source)}:{node.lineno}"
        for path in source.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).startswith("re.")
        and node.args
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, str | bytes)
        and possessive_groups(node.args[0].value)
    ]
    assert found == []


# --- Long inputs: to try each way to match one of these would take days -----------------------------------------------

LINES = MAX_LINES - 2
MIB = 1 << 20
FAULTS = {
    "fields": b"a: b\r\n" * LINES + b"fault\r\n",
    "continuations": b"a: b\r\n" + b" c\r\n" * LINES + b"fault\r\n",
    "blanks": b"a: b\r\n" + b" \t" * (MIB // 2) + b"\r\nfault\r\n",
    "colons": b":" * MIB + b"\r\n",
    "fields of colons": b"a" + b":a" * (MIB // 2) + b"\r\nfault\r\n",
}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_at_the_end_of_a_long_header_is_found_at_once(kind: str) -> None:
    assert header_fault(FAULTS[kind]) is not None


def test_a_long_field_is_read_whole() -> None:
    [value] = header_fields(b"To: a" + b"\r\n b" * LINES + b"\r\n", "To")
    assert value == b"a" + b" b" * LINES


def test_a_long_bcc_field_goes_to_its_last_line() -> None:
    header = submitted_header(b"Bcc: a" + b",\r\n b" * LINES + b"\r\nTo: c@x\r\n", PASSAGE)
    assert b" b" not in header
    assert header.endswith(b"\r\nTo: c@x\r\n")


@pytest.mark.parametrize(
    "text", ['"' + "a" * MIB, '"' + r"a\"" * (MIB // 4), '"' * 99_999, "a" * MIB + '@"', "[" * MIB]
)
def test_what_is_never_closed_is_refused_at_once(text: str) -> None:
    with pytest.raises(InvalidValue):
        parse_addresses(text)


def test_a_long_quoted_string_is_one_word() -> None:
    text = '"' + r"a\"b" * (MIB // 8) + '"@x.test'
    assert parse_addresses(text) == [Address(text)]


ORIGIN = Domain("origin.test")


@pytest.mark.parametrize("pieces", [rb"\"", b'"a', rb'"\\', b"[a", b'("', b"\n "])
def test_a_long_field_that_makes_no_sense_is_left_as_it_is(pieces: bytes) -> None:
    header = b'To: "' + pieces * ((MAX_OCTETS - 200) // len(pieces)) + b"\n"
    assert complete_addresses(header, ORIGIN) == header


def test_an_address_behind_a_long_quoted_name_is_completed() -> None:
    name = b'"' + rb"a\"b" * ((MAX_OCTETS - 200) // 4) + b'"'
    assert (
        complete_addresses(b"To: " + name + b" <root>\n", HERE)
        == b"To: " + name + b" <root@" + HERE.ascii.encode() + b">\n"
    )
