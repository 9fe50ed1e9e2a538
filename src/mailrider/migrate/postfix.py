"""A main.cf and master.cf of Postfix as a configuration of ours.

Each line of them is translated, or stands in a comment that says why not. Pure but for `read`, which gives the text of
a file that they name, or nothing. What a table holds of passwords is never written: `auth` names a file instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mailrider.config import loads
from mailrider.migrate.draft import comment
from mailrider.migrate.postfix_endpoints import PostfixEndpoints
from mailrider.migrate.postfix_files import parse_main, parse_master
from mailrider.migrate.postfix_source import PostfixSource
from mailrider.migrate.postfix_targets import PostfixTargets
from mailrider.migrate.postfix_top import TopLevel

if TYPE_CHECKING:
    from collections.abc import Callable


def migrate(
    main: str,
    main_name: str,
    master: str | None,
    master_name: str,
    read: Callable[[str], str | None],
    own_name: str,
) -> str:
    """The text of the configuration. `own_name`: the host's name, where main.cf does not say it."""
    source = PostfixSource(
        parse_main(main, main_name), None if master is None else parse_master(master, master_name), read, own_name
    )
    source.note_odd_lines()
    TopLevel(source).write()
    _write_tls_client(source)
    targets = PostfixTargets(source)
    targets.write()
    PostfixEndpoints(source, targets).write()
    source.note_the_rest()
    sources = " and ".join(filter(None, (main_name, "" if master is None else master_name)))
    head = (
        f"# Written by mailrider migrate from {comment(sources)}. Read it once before you use it:\n"
        "# what could not be translated stands at the end, with the reason. Then: mailrider check"
    )
    text = source.draft.text(head)
    loads(text, environment={})  # once more as a whole; `ConfigError` would be a bug here
    return text


def _write_tls_client(source: PostfixSource) -> None:
    block = source.draft.block("tls_client", "tls_client")
    source.simple("tls_client", block)
    if not block.lines:
        source.draft.blocks.remove(block)
