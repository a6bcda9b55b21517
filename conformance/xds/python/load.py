"""Constant load: calls at a fixed rate until standard input ends, then what came of them
as JSON: answers by their text, failures by theirs.
"""

import json
import sys
import threading
import time
from collections import Counter

# Calls a second, of all threads together.
RATE = 200

over = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()

answers, failures = Counter(), Counter()
lock = threading.Lock()


def answered(text):
    with lock:
        answers[text] += 1


def failed(text):
    with lock:
        failures[text] += 1


def turns(number, threads):
    """The turns of one of so many threads, each when its time has come."""
    at = time.monotonic() + number / RATE
    turn = number
    while not over.is_set():
        time.sleep(max(0, at - time.monotonic()))
        at += threads / RATE
        turn += 1
        yield turn


def run(*targets):
    """Runs these until the end, and tells."""
    threads = [threading.Thread(target=target) for target in targets]
    for thread in threads:
        thread.start()
    print("started", flush=True)
    for thread in threads:
        thread.join()
    print(json.dumps({"answers": answers, "failures": failures}), flush=True)
