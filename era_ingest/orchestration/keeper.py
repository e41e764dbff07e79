"""The keeper: runs one program as long as whoever started the keeper is there, and leaves nothing of it behind.

A script of its own, run as ``python -I -S keeper.py COMMAND...`` as the leader of a session; standard library only.
Its standard input is a pipe of which the starter holds the other end. Once that is closed, in order or by the
kernel after a SIGKILL, the program is interrupted as by Ctrl-C and may take its time. Then, or where the program ends
by itself, all of the session's processes are killed, the keeper with them.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time

STOP_TIMEOUT_S = 30.0
"""How long the program may take to end once it is interrupted."""
_LOOK_EVERY_S = 0.2


def keep(program: subprocess.Popen[bytes]) -> None:
    """Wait until a program has ended, or nobody holds our standard input and it has had its time to end."""
    while program.poll() is None:
        readable, _, _ = select.select([0], [], [], _LOOK_EVERY_S)
        if readable and not os.read(0, 1):
            break
    else:
        return
    program.send_signal(signal.SIGINT)
    end = time.monotonic() + STOP_TIMEOUT_S
    while program.poll() is None and time.monotonic() < end:
        time.sleep(_LOOK_EVERY_S)


if __name__ == "__main__":
    try:
        keep(subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL))  # noqa: S603 - our starter's words
    finally:
        os.killpg(0, signal.SIGKILL)
