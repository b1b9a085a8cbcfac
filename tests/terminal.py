"""Python with a terminal of 80 columns as its output."""

import os
import subprocess
import sys


def on_terminal(*arguments, **environment):
    """What `python ARGUMENTS` writes there."""
    import pty  # POSIX has it

    master, slave = pty.openpty()
    with subprocess.Popen(
        [sys.executable, *arguments],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=os.environ
        | {"TERM": "xterm", "COLUMNS": "80", "PYTHONPATH": os.pathsep.join(sys.path)}
        | environment,
    ):
        os.close(slave)
        written = b""
        try:
            while chunk := os.read(master, 4096):
                written += chunk
        except OSError:  # Linux's end of file on a terminal
            pass
    os.close(master)
    return written.decode()
