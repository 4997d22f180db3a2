"""The page on this machine alone, until Ctrl-C."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import gradio as gr
import uvicorn
from fastapi import FastAPI

from . import page
from .state import Opened

HOST = "127.0.0.1"
LARGEST_UPLOAD = "64mb"
PATIENCE = 1  # seconds that listeners have to finish after Ctrl-C
FONT, MONO = ("system-ui", "sans-serif"), ("ui-monospace", "monospace")  # of the machine: none is fetched
SCRATCH = "GRADIO_TEMP_DIR"  # where gradio looks for its place for uploads


def bound(port: int) -> socket.socket:
    """Return a socket on 127.0.0.1, which nobody outside this machine reaches. port: 0 takes a free one."""
    if not 0 <= port < 1 << 16:
        raise ValueError(f"a port is a number from 0 to {(1 << 16) - 1:,}, got {port}")
    taken = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        taken.bind((HOST, port))
        taken.listen()
    except OSError as error:
        taken.close()
        if error.errno == errno.EADDRINUSE:
            raise OSError(f"port {port} is taken: choose another with --port, or 0 for one that is free") from None
        raise
    return taken


def address(listening: socket.socket) -> str:
    return f"http://{HOST}:{listening.getsockname()[1]}/"


@contextmanager
def served(opened: Opened, listening: socket.socket) -> Iterator[threading.Thread]:
    """The page is there while the block runs, in a thread of its own that ends with it. What was uploaded is deleted
    then, and a listener that still computes is left behind.
    """
    with _scratch():
        with ThreadPoolExecutor(1) as elsewhere:
            app = elsewhere.submit(asyncio.run, _built(opened)).result()
        config = uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=PATIENCE, lifespan="on")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listening],), name="randfeat app", daemon=True)
        thread.start()
        try:
            yield thread
        finally:
            server.should_exit = True
            thread.join(2 * PATIENCE)


def computes() -> bool:
    """Return whether a listener of a page that has ended still does."""
    return any(thread.name == "AnyIO worker thread" for thread in threading.enumerate())


async def _built(opened: Opened) -> FastAPI:
    """`application` inside an event loop: without one gradio makes loops that nobody closes."""
    return application(opened)


def application(opened: Opened) -> FastAPI:
    """Return the page as an application: without gradio's footer, interface for programs, history and monitoring."""
    blocks = page.build(opened)
    app = gr.mount_gradio_app(
        FastAPI(openapi_url=None),
        blocks,
        path="",
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=LARGEST_UPLOAD,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        enable_monitoring=False,
        theme=gr.themes.Base(font=FONT, font_mono=MONO),
        css_paths=page.STYLE,
    )
    blocks.has_launched = True  # which mounting leaves out; with it gradio opens no file that was not uploaded
    return app


@contextmanager
def _scratch() -> Iterator[None]:
    """A folder for uploads while the block runs, unless one was chosen, or another page of this process has made it."""
    if SCRATCH in os.environ:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="randfeat-app-") as made:
        os.environ[SCRATCH] = made
        try:
            yield
        finally:
            del os.environ[SCRATCH]
