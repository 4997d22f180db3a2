"""Test of a server by a connection, before a library waits for it in vain."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Thread
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

PATIENCE = 3.0  # seconds for a name and a connection
KNOWN_FOR = 60.0  # seconds that an answer holds
PORTS = {"http": 80, "https": 443}
_answers: dict[tuple[str, int], tuple[float, bool]] = {}


def reachable(address: str) -> bool:
    """Return whether the server of an address, or the proxy in front of it, takes a connection within `PATIENCE`.

    Proxies are those of the environment, as HTTP libraries take them; one that is no HTTP proxy is not tried.
    """
    parts = urlsplit(address)
    host = parts.hostname or ""
    proxy = None if proxy_bypass(host) else getproxies().get(parts.scheme)
    if proxy is not None:
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


def _connects(place: tuple[str, int]) -> bool:
    connected: list[bool] = []

    def connect() -> None:
        with suppress(OSError, UnicodeError), socket.create_connection(place, PATIENCE):
            connected.append(True)

    # names are looked up without a limit of time, in a thread that the end of the process does not wait for
    thread = Thread(target=connect, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return bool(connected)
