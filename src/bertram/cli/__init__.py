"""The command line: one function a command, and no logic.

Heavy rooms are imported inside the commands, so that `bertram --help` answers at once.
"""

from bertram.cli.app import main as main
