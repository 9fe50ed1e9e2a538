"""`mailrider [-c FILE] COMMAND`: options that all commands share, and how every failure ends.

Exit codes are those of sysexits(3): 0 delivered or fine, 64 usage, 65 bad message or address, 66 a message that cannot
be read, 69 something failed, 70 a bug, 75 something deferred, 78 configuration.
"""

from __future__ import annotations

import codecs
import io
import json
import os
import sys
import traceback
from importlib import import_module
from typing import TYPE_CHECKING, Final

import click

from mailrider.cli.say import say
from mailrider.cli.streams import command_line, occupy_standard_streams
from mailrider.errors import ConfigError, MailriderError
from mailrider.files import error_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


# The module in which each command stands, under its own name. It is imported when it is asked for: nobody waits for
# what another command needs, and the product does not import the lab.
COMMANDS: Final[Mapping[str, str]] = {
    "auth": "mailrider.cli.auth",
    "check": "mailrider.cli.check",
    "dkim": "mailrider.cli.dkim",
    "explain": "mailrider.cli.explain",
    "history": "mailrider.cli.trace",
    "lab": "mailrider.lab.command",
    "migrate": "mailrider.cli.migrate",
    "queue": "mailrider.cli.queue",
    "run": "mailrider.cli.run",
    "send": "mailrider.cli.send",
    "sendmail": "mailrider.cli.sendmail",
    "setup": "mailrider.cli.set_up",
    "tlsrpt": "mailrider.cli.tlsrpt",
    "trace": "mailrider.cli.trace",
}

_FOR_ALL_COMMANDS: Final = ("-c", "--config")


class _Commands(click.Group):
    """A group that imports a command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """See `click.Group`."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """See `click.Group`."""
        if cmd_name not in COMMANDS:
            return None
        command = getattr(import_module(COMMANDS[cmd_name]), cmd_name)
        assert isinstance(command, click.Command)  # noqa: S101 # a test goes through all of them
        _show_whole_sentences(command)
        return command


def _show_whole_sentences(command: click.Command) -> None:
    """In lists of commands: click would cut them to what fits one line."""
    command.short_help = " ".join((command.help or "").split("\n\n")[0].split()).split(". ")[0].rstrip(".") + "."
    for each in command.commands.values() if isinstance(command, click.Group) else ():
        _show_whole_sentences(each)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    *_FOR_ALL_COMMANDS,
    metavar="FILE",
    help="The configuration; default: ./mailrider.conf, /etc/mailrider/mailrider.conf, built-in.",
)
@click.version_option(package_name="mailrider", prog_name="mailrider")
@click.pass_context
def cli(context: click.Context, config: str | None) -> None:
    """Gets mail to the recipients' own servers, over the strongest security that they offer."""
    context.obj = config


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit with its code; a mistake ends in one clear sentence, never in a traceback."""
    occupy_standard_streams()
    _write_what_the_terminal_cannot()
    try:
        code = cli.main(
            command_line() if arguments is None else arguments, prog_name="mailrider", standalone_mode=False
        )
    except click.exceptions.Abort:
        say("interrupted")
        code = 130  # as a shell reports SIGINT
    except click.ClickException as error:
        error.show()
        if isinstance(error, click.NoSuchOption) and (option := error.option_name) in _FOR_ALL_COMMANDS:
            say(f"{option} stands in front of the command: mailrider {option} FILE COMMAND")
        code = os.EX_USAGE
    except ConfigError as error:
        say(str(error))
        code = os.EX_CONFIG
    except MailriderError as error:
        say(str(error))
        code = os.EX_TEMPFAIL
    except SystemExit:
        # How click ends where nobody reads our output any more: whoever did has seen enough.
        code = os.EX_OK
    except OSError as error:
        say(error_text(error))
        code = os.EX_OSERR
    except Exception:
        traceback.print_exc()
        say("this is a bug of mailrider; please report what stands above")
        code = os.EX_SOFTWARE
    sys.exit(code if isinstance(code, int) else os.EX_OK)


def _write_what_the_terminal_cannot() -> None:
    """Escape characters that the locale's encoding does not have, as JSON does: nothing fails for a mark or a name."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ESCAPE)


def _escape(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)  # noqa: S101 # it is for writing only
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


_ESCAPE = "mailrider.escape"
codecs.register_error(_ESCAPE, _escape)
