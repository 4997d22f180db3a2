"""Requests to a service, good ones and bad ones of every kind."""

from __future__ import annotations

import itertools
import struct
import zlib
from base64 import b64encode
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import damaged

SPECS = ("raster/full/query/L-1/mean/mean", "random*2/causal/token/L1/grid2/concat")
HOST = "http://127.0.0.1"
SIZE = 1 << 18  # bytes of a request that bad_requests exceed
PATHS = ("/v1/features", "/v1/classify", "/v1/search")
TRICKS = (
    "../../../../etc/passwd",
    "/etc/passwd",
    "file:///etc/passwd",
    "http://127.0.0.1:1/x.png",
    "C:\\boot.ini",
    "\0",
)
NO_JSON = (b"", b"{", b"null", b"[]", b"3", b'"text"', b"\xff\xfe", b"{" * 5000, b"[" * 100_000, b'{"images": [NaN]}')


def as_form(files: Sequence[bytes]) -> list[tuple[str, tuple[str, bytes]]]:
    """Return files as the fields of a form."""
    return [("images", (f"{number}.png", content)) for number, content in enumerate(files)]


def damaged_files(folder: Path) -> dict[str, bytes]:
    return {name: damaged.write_damaged(folder / name.replace(" ", "_"), name).read_bytes() for name in damaged.DAMAGES}


def wide_png() -> bytes:
    """A PNG of more pixels than the service takes, all of them there, in a few kB."""
    rows = zlib.compress(bytes(3001 * 3000 // 8 + 3000))
    chunks = (b"IHDR", struct.pack(">IIBBBBB", 3000, 3000, 1, 0, 0, 0, 0)), (b"IDAT", rows), (b"IEND", b"")
    parts = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def bad_requests(folder: Path, good: bytes) -> Iterator[tuple[str, dict[str, Any], int]]:
    """Yield path, keywords of a request, and the status of its answer, for limits of SIZE bytes, 1 << 20 pixels and 16
    images.

    folder: to write into. good: a picture.
    """
    text = b64encode(good).decode()
    files = {**damaged_files(folder), "wide": wide_png()}
    for path, content in itertools.product(PATHS, files.values()):
        yield path, {"files": as_form([good, content])}, 422
        yield path, {"json": {"images": [b64encode(content).decode()]}}, 422
    for path, trick in itertools.product(PATHS, TRICKS):
        yield path, {"json": {"images": [trick]}}, 422
        yield path, {"data": {"images": trick}}, 415
        yield path, {"files": [("images", (trick, b"no picture"))]}, 422
        yield path, {"json": {"images": [text], "path": trick}}, 422
    for path, body in itertools.product((*PATHS, "/v1/sample"), NO_JSON):
        yield path, {"content": body, "headers": {"content-type": "application/json"}}, 422
    for path, images in itertools.product(
        PATHS, ([], [3], [None], [[text]], "text", {"a": text}, [text] * 17, ["é"], None)
    ):
        yield path, {"json": {"images": images}}, 422
    for path in (*PATHS, "/v1/sample"):
        yield path, {"content": good, "headers": {"content-type": "image/png"}}, 415
        yield path, {}, 415
        yield path, {"content": b"x" * (SIZE + 1), "headers": {"content-type": "application/json"}}, 413
        yield path, {"content": iter([b"x" * 4096] * 100), "headers": {"content-type": "application/json"}}, 413
    for path in PATHS:
        yield path, {"files": as_form([good] * 17)}, 400
        yield path, {"content": b"--x", "headers": {"content-type": "multipart/form-data"}}, 400
        broken = b'--x\r\nContent-Disposition: form-data; name="images"; filename="a.png"\r\n\r\n'
        yield path, {"content": broken, "headers": {"content-type": "multipart/form-data; boundary=x"}}, 422
    for options in (
        {"spec": "random*9999/full/query/L1/mean/mean"},
        {"spec": 3},
        {"format": "pickle"},
        {"spec": "x" * 9999},
    ):
        yield "/v1/features", {"json": {"images": [text], **options}}, 422
    for options in ({"orders": 0}, {"orders": 10**9}, {"orders": "many"}, {"top": -1}, {"orders": 1e308}):
        yield "/v1/classify", {"json": {"images": [text], **options}}, 422
    for options in ({"k": 0}, {"k": 10**12}, {"labels": "cat"}, {"labels": ["a"] * 99}, {"paths": [3]}):
        yield "/v1/search", {"json": {"images": [text], **options}}, 422
    for body in (
        {},
        {"labels": []},
        {"labels": ["cat"] * 17},
        {"labels": ["cow", "horse"]},
        {"labels": [7]},
        {"labels": 3},
    ):
        yield "/v1/sample", {"json": body}, 422
    for options in ({"seed": -1}, {"seed": 1 << 80}, {"seed": 0.5}, {"format": "jpeg"}, {"guidance": 3}):
        yield "/v1/sample", {"json": {"labels": ["cat"], **options}}, 422
