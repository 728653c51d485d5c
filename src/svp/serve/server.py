"""The server: one process, one port, loopback unless told otherwise."""

import errno
import socket
from collections.abc import Callable

import uvicorn

from svp.errors import SettingError
from svp.serve.door import Keys
from svp.serve.web import Served, app_of

PORT = 8765  # where it is free; else any


def run(served: Served, host: str, port: int | None, ready: Callable[[str, str], None]) -> None:
    """Answer until it is interrupted.

    host   the address to listen at; a name too, by which the page then goes
    port   None: PORT, or any that is free
    ready  called once browsers can connect, with the link to print and one for a browser on this machine, which works once
    Raises SettingError where that address or port cannot be had.
    """
    listening = _listen(host, port)
    machine = socket.gethostname()
    keys = Keys(listening.getsockname()[1], (host, machine, f"{machine.partition('.')[0]}.local"))
    everywhere = host in ("0.0.0.0", "::", "")
    others = _page((_outward(listening.family) or machine) if everywhere else host, keys)
    here = _page("::1" if listening.family == socket.AF_INET6 else "127.0.0.1", keys) if everywhere else others
    # No log: the token would stand in it.
    config = uvicorn.Config(
        app_of(served, keys),
        log_config=None,
        access_log=False,
        lifespan="on",
        ws="none",
        server_header=False,
        timeout_graceful_shutdown=3,
    )
    ready(others + keys.token, here + keys.once())
    uvicorn.Server(config).run(sockets=[listening])


def _page(name: str, keys: Keys) -> str:
    return f"http://{f'[{name}]' if ':' in name else name}:{keys.port}/?token="


def _outward(family: int) -> str | None:
    """The address by which others in the network reach this machine, as phones know no name of it; None where it is in none."""
    far = "2001:db8::1" if family == socket.AF_INET6 else "192.0.2.1"
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((far, 9))  # nothing is sent: it only asks which way leads out
        except OSError:
            return None
        address: str = probe.getsockname()[0]
        return address


def _listen(host: str, port: int | None) -> socket.socket:
    """A socket that browsers can connect to from now on: what they say waits until the server is up."""
    try:
        family, *_, address = socket.getaddrinfo(host, port or PORT, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise SettingError(f"--host {host} is no address of this machine ({error.strerror or error})") from None
    wanted = [port] if port is not None else [PORT, 0]
    for each in wanted:
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((address[0], each, *address[2:]))
            listening.listen(128)
        except OSError as error:
            listening.close()
            if error.errno == errno.EADDRINUSE and each != wanted[-1]:
                continue
            raise SettingError(
                f"{host}, port {each}, cannot be had ({error.strerror or error}); give another --port, or --host"
            ) from None
        return listening
    raise AssertionError("the last one returns or raises")
