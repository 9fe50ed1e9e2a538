"""`python -m mailrider`: the command line."""

from mailrider.cli import main

main()
