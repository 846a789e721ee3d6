"""The command line in a process that something happens to: ``driver.py WHAT WHEN ARGUMENT...``.

WHAT is ``kill`` (SIGKILL), ``full`` (no space left from then on) or ``count``, which writes how
often something was written to the file WHEN; WHEN is the number of the write: every file is written
in two steps, and either is one. Beats of leases, which are as many as the command takes long, are
not counted.
"""

import errno
import os
import pathlib
import signal
import sys
import threading

what, when, *arguments = sys.argv[1:]
steps = 0


def watched(real):
    def call(*args):
        global steps
        steps += threading.current_thread() is threading.main_thread()
        if what == "count":
            pathlib.Path(when).write_text(str(steps))
        elif steps >= int(when):
            if what == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*args)

    return call


os.fsync, os.replace = watched(os.fsync), watched(os.replace)

from entrob import cli  # noqa: E402

cli.main(arguments)
