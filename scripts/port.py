"""Say in one sentence when JupyterLab could not listen on a port: `python scripts/port.py 8888`."""

import socket
import sys

try:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does: a port just left is free
        probe.bind(("127.0.0.1", int(sys.argv[1])))
except (OSError, OverflowError, ValueError) as error:
    sys.exit(
        f"Port {sys.argv[1]} cannot be used ({error}): perhaps the course is open in another window already; "
        "if not, choose another port, for example `make lab PORT=8899`."
    )
