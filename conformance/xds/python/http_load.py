"""Calls http://ADDRESS/ with a Host header, every other time on a connection of its own,
without any retry; see load.py.
"""

import http.client
import sys
from functools import partial

import load

address, host = sys.argv[1:3]
THREADS = 10


def ask(connection):
    connection.request("GET", "/", headers={"Host": host})
    response = connection.getresponse()
    text = response.read().decode()
    if response.status == 200:
        load.answered(text)
    else:
        load.failed(f"{response.status} {text}")


def caller(number):
    kept = None
    for turn in load.turns(number, THREADS):
        fresh = turn % 2 == 0
        connection = http.client.HTTPConnection(address, timeout=10) if fresh or not kept else kept
        try:
            ask(connection)
            if not fresh:
                kept = connection
        except Exception as error:
            load.failed(repr(error))
            connection.close()
            kept = None if connection is kept else kept
        if fresh:
            connection.close()


load.run(*(partial(caller, number) for number in range(THREADS)))
