"""`python -m cgeartheye` is the command `cgeartheye`."""

from cgeartheye.cli.main import main

main()
