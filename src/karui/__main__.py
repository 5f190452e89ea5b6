"""`python -m karui` is the command `karui`."""

from karui.cli.main import run

run()
