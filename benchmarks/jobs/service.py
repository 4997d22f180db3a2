"""`randfeat serve` under many clients on loopback, beside `extract` of the same images on the same processors.

Clients run in a process of their own, on the same machine: what they take is missing to the service. So what counts is
the processor's seconds of the service.
"""

from __future__ import annotations

import http.client
import multiprocessing
import os
import statistics
import subprocess
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from PIL import Image

from benchmarks.cases import Case, Setting, Spent
from benchmarks.jobs.data import afresh
from benchmarks.measure import python
from randfeat import open_encoder
from randfeat.data.builtin import load_fashion_part
from randfeat.data.sources import open_source
from randfeat.features.extract import extract

MODEL, BATCH, OF_A_REQUEST = "fashion-arpg-free", 64, 8
BAD = 200  # requests that are refused, before the memory is looked at again
BOUNDARY = "images-of-a-benchmark"


def pictures(folder: Path, count: int) -> list[Path]:
    """Return pictures of Fashion-MNIST as PNG files, written when they are not there yet."""
    paths = [folder / f"{number:05}.png" for number in range(count)]
    if not folder.exists():
        folder.mkdir()
        images = load_fashion_part().images
        for number, path in enumerate(paths):
            Image.fromarray(images[number % len(images)].squeeze()).save(path)
    return paths


def by_extract(setting: Setting, count: int) -> Callable[[], Any]:
    """Return an extraction with a model that is open, in batches that this process decodes."""
    folder = setting.scratch / "pictures"
    pictures(folder, count)
    encoder, source = open_encoder(MODEL), open_source(str(folder))
    out = setting.scratch / "features"
    return afresh(out, partial(extract, encoder, source, out, BATCH, 0))


def body_of(paths: list[Path]) -> bytes:
    """Return a form with pictures that asks for an array."""
    parts = [f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="format"\r\n\r\nnpy\r\n'.encode()]
    for path in paths:
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="images"; filename="{path.name}"\r\n\r\n'
        parts.append(head.encode() + path.read_bytes() + b"\r\n")
    return b"".join([*parts, f"--{BOUNDARY}--\r\n".encode()])


def ask(address: str, bodies: list[bytes], clients: int, found: Any) -> None:
    """Let clients ask all requests, each one after the other, and put (status, seconds) of all into a queue."""
    answers: list[tuple[int, float]] = []
    place = urlsplit(address)

    def client(number: int) -> None:
        connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=120)
        headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
        for body in bodies[number::clients]:
            began = time.perf_counter()
            connection.request("POST", "/v1/features", body, headers)
            answer = connection.getresponse()
            answer.read()
            answers.append((answer.status, time.perf_counter() - began))
        connection.close()

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found.put(answers)


def processor_of(process: int) -> float:
    """Return the processor's seconds of another process, with all of its threads."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(process: int) -> float:
    """Return the resident memory of another process in MB."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def refused(address: str, count: int) -> dict[int, int]:
    """Ask for features of what is no image, no form and too large, and return how often each status was answered."""
    place, statuses = urlsplit(address), Counter[int]()
    form, text = f"multipart/form-data; boundary={BOUNDARY}", "text/plain"
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="images"; filename="a.png"\r\n\r\n'.encode()
    end = f"\r\n--{BOUNDARY}--\r\n".encode()
    kinds = [(form, head + os.urandom(1 << 20) + end), (form, os.urandom(1 << 16)), (text, b"no form"), (form, b"")]
    for number in range(count):
        kind, body = kinds[number % len(kinds)]
        connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=120)
        connection.request("POST", "/v1/features", body, {"Content-Type": kind})
        statuses[connection.getresponse().status] += 1
        connection.close()
    return dict(statuses)


def stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    process.communicate()


def started() -> tuple[subprocess.Popen[str], str]:
    """Start a service, and return it with its address."""
    words = ["-m", "randfeat", "serve", MODEL, "--device", "cpu", "--port", "0", "--batch-size", str(BATCH)]
    service = subprocess.Popen(python(*words), stdout=subprocess.PIPE, text=True)
    assert service.stdout is not None
    return service, service.stdout.readline().split()[0]


def by_service(setting: Setting, count: int, clients: int, answers: list[tuple[int, float]]) -> Callable[[], Spent]:
    """Return a call that asks for all pictures once; answers takes those of each call in place of the last ones."""
    service, address = started()
    call = asking_of(service, address, setting, count, clients, answers)
    weakref.finalize(call, stop, service)
    return call


def asking_of(
    service: subprocess.Popen[str],
    address: str,
    setting: Setting,
    count: int,
    clients: int,
    answers: list[tuple[int, float]],
) -> Callable[[], Spent]:
    """Return the call of `by_service` for a service that runs."""
    paths = pictures(setting.scratch / "pictures", count)
    bodies = [body_of(paths[first : first + OF_A_REQUEST]) for first in range(0, count, OF_A_REQUEST)]

    def call() -> Spent:
        context = multiprocessing.get_context("spawn")
        found, began, used = context.Queue(), time.perf_counter(), processor_of(service.pid)
        asking = context.Process(target=ask, args=(address, bodies, clients, found))
        asking.start()
        answers[:] = found.get()
        asking.join()
        return Spent(time.perf_counter() - began, processor_of(service.pid) - used)

    return call


def serve(setting: Setting) -> Iterator[Case]:
    """Yield a service that clients ask for all pictures, each for 8 at a time, and the next 8 when it has these."""
    count, clients, at_least = setting.pick((16, 2, 0.0), (512, 16, 0.0), (4096, 64, 60.0))

    def facts() -> Mapping[str, Any]:
        answers: list[tuple[int, float]] = []
        every: list[tuple[int, float]] = []
        service, address = started()
        try:
            call = asking_of(service, address, setting, count, clients, answers)
            call()  # for warming
            began = time.perf_counter()
            while not every or time.perf_counter() - began < at_least:
                call()
                every += answers
            took, before = time.perf_counter() - began, resident(service.pid)
            bad = refused(address, BAD)
            after = resident(service.pid)
        finally:
            stop(service)
        times = sorted(seconds for _, seconds in every)
        return {
            "answers": dict(Counter(status for status, _ in every)),
            "seconds": took,
            "median s": statistics.median(times),
            "p99 s": times[int(0.99 * len(times))],
            "answers to bad requests": bad,
            "MB before and after these": [before, after],
        }

    ours = partial(by_service, setting, count, clients, [])
    peers = {"extract": partial(by_extract, setting, count)}
    yield Case(f"{clients} clients, {count:,} pictures", ours, peers, count, facts=facts)
