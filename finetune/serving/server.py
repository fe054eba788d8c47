"""Runs a service on an address until it is told to end."""

import math
import signal
import socket
import sys
from typing import Any

import uvicorn

_IDLE = 75  # seconds after which an idle connection is closed
_BACKLOG = 2048  # connections that the system holds before the service takes them


def bound(host: str, port: int) -> socket.socket:
    """A socket on this address.

    Raises:
        ValueError: naming the flag, for an address that is not free or not of this machine.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        if family not in (socket.AF_INET, socket.AF_INET6):
            raise ValueError(f"--host {host}: no address of the internet")
        return socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    except socket.gaierror as error:
        raise ValueError(f"--host {host}: no address of this name is known") from error
    except OSError as error:
        raise ValueError(
            f"--host {host}, --port {port}: {error.strerror}; give another port, or 0 for one that is free"
        ) from error


def address_of(bound: socket.socket) -> str:
    """The address for a browser."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if bound.family == socket.AF_INET6 else f"http://{host}:{port}"


def configured(application: Any, seconds: float) -> uvicorn.Config:
    """How uvicorn runs the service.

    Args:
        seconds: the longest that a request takes.
    """
    return uvicorn.Config(
        application,
        http="h11",
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_IDLE,
        timeout_graceful_shutdown=math.ceil(seconds) + 1,
    )


def serve(application: Any, bound: socket.socket, seconds: float) -> None:
    """Serves until SIGTERM or Ctrl-C. Then it takes no more connections, and answers the requests that it has.

    Args:
        seconds: as `configured`.

    Raises:
        KeyboardInterrupt: after Ctrl-C.
    """
    # When all is answered, uvicorn raises the signal again: an end that was asked for is no failure.
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        uvicorn.Server(configured(application, seconds)).run(sockets=[bound])
    finally:
        signal.signal(signal.SIGTERM, before)
