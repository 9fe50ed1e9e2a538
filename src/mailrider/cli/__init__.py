"""The command line: one file a command; `main` is the entry point."""

from mailrider.cli.main import main

__all__ = ["main"]
