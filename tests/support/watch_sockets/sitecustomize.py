"""Python reads this at each start: notes where the process connects, in FOGLINE_TEST_SOCKETS."""

import os
import sys

_FILE = os.open(os.environ["FOGLINE_TEST_SOCKETS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def _note(event, arguments):
    if event == "socket.connect":
        os.write(_FILE, f"connect {arguments[1]!r}\n".encode())
    elif event == "socket.getaddrinfo":
        os.write(_FILE, f"look up {arguments[0]!r}\n".encode())
    elif event == "socket.bind":
        os.write(_FILE, f"bind {arguments[1]!r}\n".encode())


sys.addaudithook(_note)
