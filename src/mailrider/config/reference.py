"""The reference manual, written from the declarations: `python -m mailrider.config.reference [DIRECTORY]`.

A page for each block that stands by itself or in several others, with every directive: type, default, unit, meaning.
Each block is described once, and linked to from where else it may stand. The page on the language itself is written by
hand and is not touched.
"""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mailrider.config.kinds import ENDPOINTS, KINDS
from mailrider.config.settings import Globals
from mailrider.endpoint.pipeline.settings import CheckSettings
from mailrider.endpoint.settings import EndpointRouteSettings, SourceSettings
from mailrider.net.settings import ServerTLSOptions
from mailrider.settings.directive import Block, Section, directives_of
from mailrider.signing.settings import ModifySettings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mailrider.settings.directive import Directive, Settings

COMMAND = "python -m mailrider.config.reference"
DIRECTORY = Path("docs/reference")
_WRITTEN = f"<!-- Written by `{COMMAND}` from the settings: change those, not this. -->"
_LANGUAGE = ("language.md", "The language", "comments, quotes, blocks, macros, snippets, imports, values")
_SENTENCE_END: Final = re.compile(r"(?<!\.)\. ")  # not the `...` of an example

# The pages beside those of KINDS: file name, title, what it is about, the settings. Other blocks are sections.
_ALONE: tuple[tuple[str, str, type[Settings]], ...] = (
    ("global", "Global directives", Globals),
    *((kind.name, f"`{kind.name}`", kind.settings) for kind in KINDS.values()),
    *((name, f"`{name}`", cls) for name, cls in ENDPOINTS.items()),
    *((name, f"`{name}`", directives_of(Globals)[name].type.settings) for name in ("tls_client", "tlsrpt", "dns")),  # type: ignore[attr-defined] # a Block
)
# Blocks that stand in several others: each is described once.
_SHARED: tuple[tuple[str, str, type[Settings]], ...] = (
    ("source", "`source` and `default_source`", SourceSettings),
    ("destination", "`destination` and `default_destination`", EndpointRouteSettings),
    ("check", "`check`", CheckSettings),
    ("modify", "`modify`", ModifySettings),
    ("tls", "`tls`", ServerTLSOptions),
)
_OWN_PAGES = (*_ALONE, *_SHARED)
_PAGE_OF = {cls: f"{name}.md" for name, _, cls in _OWN_PAGES}


def pages() -> dict[str, str]:
    """The files of the manual, by name."""
    written = {f"{name}.md": _page(title, name, cls) for name, title, cls in _OWN_PAGES}
    index = [_WRITTEN, "", "# Configuration reference", ""]
    index.append(f"- [{_LANGUAGE[1]}]({_LANGUAGE[0]}): {_LANGUAGE[2]}")
    index += [
        f"- [{title}]({name}.md): {_SENTENCE_END.split(_about(cls)[0], 1)[0].rstrip('.')}"
        for name, title, cls in _OWN_PAGES
    ]
    return {"README.md": "\n".join(index) + "\n", **written}


def _page(title: str, name: str, cls: type[Settings]) -> str:
    kind = KINDS.get(name)
    lines = [_WRITTEN, "", f"# {title}", "", *_about(cls)]
    if kind is not None:
        lines += [f"    {kind.name} {'NAME' if kind.needs_name else '[NAME]'} {{ ... }}", ""]
    if name in ENDPOINTS:
        lines += [f"    {name} ADDRESS... {{ ... }}", ""]
    return "\n".join([*lines, *_directives(cls, "##")]).rstrip() + "\n"


def _directives(cls: type[Settings], level: str, written: dict[type[Settings], str] | None = None) -> Iterator[str]:
    """A section for each; `written`: the blocks that this page has already, and the directives that they stand at."""
    written = {} if written is None else written
    for known in directives_of(cls).values():
        if known.only_global:
            continue
        yield from (f"{level} {known.name}", "", f"    {_usage(known)}", "", _facts(known), "", known.doc, "")
        nested = known.type.item or known.type
        if isinstance(nested, Block):
            yield from _nested(nested, known.name, level, written)


def _nested(block: Block, name: str, level: str, written: dict[type[Settings], str]) -> Iterator[str]:
    cls = block.settings
    if cls in _PAGE_OF:
        yield from (f"Its directives: [{_PAGE_OF[cls]}]({_PAGE_OF[cls]}).", "")
    elif cls in written:
        yield from (f"Its directives: those of [{written[cls]}](#{written[cls]}).", "")
    else:
        written[cls] = name
        yield from _about(cls)
        yield from _directives(cls, f"{level}#", written)


def _usage(known: Directive) -> str:
    if not isinstance(known.type, Block) or isinstance(known.type, Section):
        return f"{known.name} {known.type.name}"
    forms = [f"{known.name} {{ ... }}"]
    forms += [f"{known.name} &NAME"] if known.type.reference else []
    forms += [f"{known.name} {word}" for word in known.type.shorthand]
    return "  |  ".join(forms)


def _facts(known: Directive) -> str:
    facts = [f"Type: {known.type.name.rstrip('.')}"]
    facts += [f"Unit: {known.unit}"] if known.unit else []
    facts += ["May be repeated"] if known.repeatable else []
    facts += ["Required"] if known.required else []
    return ". ".join([*facts, f"Default: {_default(known)}"]) + "."


def _default(known: Directive) -> str:
    if known.shown_default or known.default is None:
        return known.shown_default or "none"
    return f"`{known.type.show(known.default)}`" if known.default != () else "none"


def _about(cls: type[Settings]) -> list[str]:
    """The first paragraph of a class's docstring: the others are for those who construct one."""
    paragraph = inspect.cleandoc(cls.__doc__ or "").split("\n\n", 1)[0]
    return [" ".join(paragraph.split()), ""]


def write(directory: Path) -> None:
    """Write all pages."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (directory / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if sys.argv[1:] else DIRECTORY)
