"""Calls xds:///TARGET over one channel, and now and then over a new one, without any
retry; see load.py.
"""

import sys
import time
from functools import partial

import grpc
import load

target = f"xds:///{sys.argv[1]}"
THREADS = 4
OPTIONS = [("grpc.enable_retries", 0)]


def ask(channel, timeout):
    try:
        # Who has not connected yet waits; who has is told at once of what goes wrong.
        call = channel.unary_unary("/judge.Name/Ask")
        load.answered(call(b"", timeout=timeout, wait_for_ready=True).decode())
    except grpc.RpcError as error:
        load.failed(f"{error.code()} {error.details()}")


def caller(number):
    for _ in load.turns(number, THREADS):
        ask(channel, 10)


def renew():
    while not load.over.wait(0.5):
        with grpc.insecure_channel(target, OPTIONS + [("judge.fresh", time.monotonic_ns() % 2**31)]) as fresh:
            ask(fresh, 20)


channel = grpc.insecure_channel(target, OPTIONS)
ask(channel, 20)
load.run(*(partial(caller, number) for number in range(THREADS)), renew)
