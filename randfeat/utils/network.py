"""Test of a server by a connection, before a library waits for it in vain; sockets that listen."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

PATIENCE = 2.0  # seconds for a name and a connection, with the second try of TCP after one
KNOWN_FOR = 60.0  # seconds that an answer holds
PORTS = {"http": 80, "https": 443}
_answers: dict[tuple[str, int], tuple[float, bool]] = {}


def reachable(address: str) -> bool:
    """Return whether the server of an address, or the proxy in front of it, takes a connection within `PATIENCE`.

    Proxies are those of the environment, as HTTP libraries take them; one that is no HTTP proxy is not tried.
    """
    parts = urlsplit(address)
    host = parts.hostname or ""
    proxies = {} if proxy_bypass(host) else getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if proxy:
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        if parts.scheme not in PORTS:
            return True
    place = parts.hostname or "", parts.port or PORTS.get(parts.scheme, 443)
    asked, answer = _answers.get(place, (-KNOWN_FOR, False))
    if time.monotonic() - asked > KNOWN_FOR:
        answer = _connects(place)
        _answers[place] = time.monotonic(), answer
    return answer


@contextmanager
def hub_or_cache() -> Iterator[None]:
    """Let huggingface_hub use its cache alone in this block where the hub cannot be reached.

    It would try six times, in half a minute, and print a line for each.
    """
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not reachable(constants.ENDPOINT)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def bound(host: str, port: int) -> socket.socket:
    """Return a listening socket. host: a name, or an address of IPv4 or IPv6. port: 0 takes a free one.

    Raises a ValueError for a port that cannot be, an OSError for one that is taken and for a host of another machine.
    """
    if not 0 <= port < 1 << 16:
        raise ValueError(f"a port is a number from 0 to {(1 << 16) - 1:,}, got {port}: choose another")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError):
        raise OSError(f"{host} is no address of this machine: choose another with --host") from None
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(address)
        listening.listen()
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise OSError(f"port {port} is taken: choose another with --port, or 0 for one that is free") from None
        if error.errno == errno.EADDRNOTAVAIL:
            raise OSError(f"{host} is no address of this machine: choose another with --host") from None
        raise
    return listening


def _connects(place: tuple[str, int]) -> bool:
    """Return whether one of the addresses of a server takes a connection; all are tried at once, since those of IPv6
    often lead nowhere.
    """
    connected: list[bool] = []
    settled = Event()

    def connect(address: tuple[str, int]) -> None:
        with suppress(OSError), socket.create_connection(address, PATIENCE):
            connected.append(True)
            settled.set()

    def connect_to_all() -> None:
        with suppress(OSError, UnicodeError):
            found = socket.getaddrinfo(*place, type=socket.SOCK_STREAM)
            threads = [Thread(target=connect, args=(address[:2],), daemon=True) for *_, address in found]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        settled.set()

    # names are looked up without a limit of time, in a thread that the end of the process does not wait for
    Thread(target=connect_to_all, daemon=True).start()
    settled.wait(PATIENCE)
    return bool(connected)
