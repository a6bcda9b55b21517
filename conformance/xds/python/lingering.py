"""How a backend leaves: on SIGTERM it goes on for LINGER seconds, as endpoints that are
on their way out are still called until everybody has heard of it. With LINGER=0 it falls
over at once.
"""

import os
import signal
import threading

NAME = os.environ["POD_NAME"].encode()
LINGER = float(os.environ["LINGER"])


def leave(*_):
    if LINGER == 0:
        os._exit(0)
    threading.Timer(LINGER, lambda: os._exit(0)).start()


def on_sigterm():
    signal.signal(signal.SIGTERM, leave)
