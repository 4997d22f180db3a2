"""Server of the page, reached from this machine only."""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import gradio as gr
import uvicorn
from fastapi import FastAPI
from fastapi.middleware.trustedhost import TrustedHostMiddleware

from ...utils import network
from . import page
from .state import AppState

HOST = "127.0.0.1"
LOOPBACK = (HOST, "localhost")
LARGEST_UPLOAD = "64mb"
GRACE = 1  # seconds that listeners have to finish after Ctrl-C
FONT, MONO = ("system-ui", "sans-serif"), ("ui-monospace", "monospace")  # fonts of the machine, so that none is fetched
UPLOADS = "GRADIO_TEMP_DIR"  # environment variable with gradio's folder for uploads


def bound(port: int) -> socket.socket:
    """Return a listening socket on 127.0.0.1, which no other machine reaches. port: 0 takes a free one."""
    return network.bound(HOST, port)


def address(listening: socket.socket) -> str:
    """Return the URL of the page."""
    return f"http://{HOST}:{listening.getsockname()[1]}/"


@contextmanager
def served(state: AppState, listening: socket.socket, hosts: Sequence[str] = ()) -> Iterator[threading.Thread]:
    """Serve the page while the block runs, in a thread that ends with it. hosts: as of `application`.

    Uploads are deleted then. A listener that still computes goes on, see `computes`.
    """
    with _upload_folder():
        with ThreadPoolExecutor(1) as loops:
            app = loops.submit(asyncio.run, _built(state, hosts)).result()
        config = uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=GRACE, lifespan="on")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listening],), name="randfeat app", daemon=True)
        thread.start()
        try:
            yield thread
        finally:
            server.should_exit = True
            thread.join(2 * GRACE)


def computes() -> bool:
    """Return whether a listener still computes after its page has ended."""
    return any(thread.name == "AnyIO worker thread" for thread in threading.enumerate())


async def _built(state: AppState, hosts: Sequence[str]) -> FastAPI:
    """Return `application`, made inside an event loop; without one gradio makes loops that nobody closes."""
    return application(state, hosts)


def application(state: AppState, hosts: Sequence[str] = ()) -> FastAPI:
    """Return the page as an application, without gradio's footer, programming interface, history and monitoring.

    It answers requests for this machine's own names alone, and for `hosts`: a page of another site can give its name
    this machine's address (DNS rebinding), and would read paths and pictures then.
    """
    blocks = page.build(state)
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
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*LOOPBACK, *hosts], www_redirect=False)
    blocks.has_launched = True  # mounting does not set it; it makes gradio refuse files that were not uploaded
    return app


@contextmanager
def _upload_folder() -> Iterator[None]:
    """Make a folder for uploads while the block runs, unless the user or another page of this process has set one."""
    if UPLOADS in os.environ:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="randfeat-app-") as folder:
        os.environ[UPLOADS] = folder
        try:
            yield
        finally:
            del os.environ[UPLOADS]
