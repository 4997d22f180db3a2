"""Serve MODEL over HTTP: features, classes, samples, and neighbours in INDEX, of images that are sent to it.

MODEL is what randfeat.load takes, timm:NAME or open_clip:NAME@FILE, as `randfeat extract --help` says; INDEX is what
`randfeat index build` made.

  POST /v1/features   features of images at a spec, as JSON or as an array (npy)
  POST /v1/classify   classes that make images likeliest, of a model with labels
  POST /v1/sample     images of classes
  POST /v1/search     neighbours of images in INDEX
  GET  /v1/about      model, specs and index
  GET  /healthz /metrics /docs    whether it answers; figures for Prometheus; all of it described (OpenAPI)

Images are sent as files of a form (multipart) or as base64 in JSON. Addresses and paths are never fetched or opened.
Images of several requests that wait are computed together. What a request may hold, and how much may wait, is limited;
what is too much is answered with 429, and may be sent again.

On 127.0.0.1, where nobody else reaches it, no token is asked for unless RANDFEAT_TOKEN is set in the environment.
On any other --host it must be set, and requests bear it: Authorization: Bearer TOKEN. /healthz and /docs ask for none.

examples:
  randfeat serve fashion-randar
  randfeat serve timm:vit_base_patch14_dinov2 --index photos.index --device cuda
  RANDFEAT_TOKEN=... randfeat serve arpg-l --host 0.0.0.0 --allow-host features.example.org

exit code: 0 when Ctrl-C or SIGTERM ends it, after what was taken is answered; 1 after an error, one sentence.
"""

from __future__ import annotations

import argparse
import ipaddress
import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from . import options

if TYPE_CHECKING:
    from ..serve.limits import Limits

HOW_TO_RESUME = "Nothing was changed."
PACKAGES = ("fastapi", "fastapi_offline", "multipart", "prometheus_client", "pydantic", "python_multipart", "uvicorn")
PORT = 8000
TOKEN = "RANDFEAT_TOKEN"  # environment variable: arguments of a process are seen by others


def add_arguments(parser: argparse.ArgumentParser, command: str) -> None:
    """Add the arguments of `randfeat serve`."""
    parser.usage = f"randfeat {command} MODEL [--index INDEX] [options]"
    options.add_model(parser, "model that reads the images: see above")
    parser.add_argument("--index", metavar="INDEX", help="index to search")
    options.add_spec(parser, "feature specs that requests may name, the default first (the model's own)")
    reached = parser.add_argument_group("address")
    reached.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    reached.add_argument("--port", type=int, default=PORT, help=f"of the service; 0 takes a free one ({PORT})")
    reached.add_argument(
        "--allow-host", nargs="+", default=[], metavar="NAME", help="names by which requests may ask for it (its host)"
    )
    limits = parser.add_argument_group("limits")
    limits.add_argument("--max-size", type=int, default=16, metavar="MB", help="of a request (16)")
    limits.add_argument("--max-pixels", type=int, default=32_000_000, metavar="N", help="of an image (32,000,000)")
    limits.add_argument("--max-images", type=int, default=64, metavar="N", help="of a request (64)")
    limits.add_argument("--max-requests", type=int, default=128, metavar="N", help="answered at a time (128)")
    limits.add_argument("--timeout", type=int, default=30, metavar="S", help="seconds that a request may take (30)")
    limits.add_argument("--queue", type=int, default=1024, metavar="N", help="images that may wait (1,024)")
    machine = options.machine(parser)
    options.add_batch_size(machine)
    options.add_device(machine)
    options.add_dtype(machine)


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C or SIGTERM, and answer what was taken before."""
    from ..utils import distributed, network, progress

    try:
        import uvicorn

        from ..serve.application import application
        from ..serve.opening import open_service
    except ModuleNotFoundError as error:
        if error.name not in PACKAGES:
            raise
        raise RuntimeError("the service needs FastAPI: pip install 'randfeat[serve]'") from None
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it warns of each form that is refused
    limits, token = limits_of(args), os.environ.get(TOKEN) or None
    hosts = allowed_hosts(args.host, args.allow_host, token)
    with progress.warnings_as_lines(), distributed.ended_by_sigterm(), network.bound(args.host, args.port) as listening:
        device = options.pick_device(args)
        service = open_service(args.model, args.spec, args.index, device, options.dtype_of(args))
        host, port = listening.getsockname()[:2]
        print(
            f"http://{f'[{host}]' if ':' in host else host}:{port} serves {args.model}, on {device}; Ctrl-C ends it",
            flush=True,
        )
        config = uvicorn.Config(
            application(service, limits, token, hosts),
            log_level="warning",
            access_log=False,
            lifespan="on",
            server_header=False,
            timeout_graceful_shutdown=limits.seconds,
        )
        with suppress(KeyboardInterrupt):  # uvicorn raises the signal again that ended it
            uvicorn.Server(config).run([listening])
    return 0


def limits_of(args: argparse.Namespace) -> Limits:
    """Return the limits that the arguments say."""
    from ..serve.limits import Limits

    return Limits(
        size=args.max_size << 20,
        pixels=args.max_pixels,
        images=args.max_images,
        seconds=args.timeout,
        requests=args.max_requests,
        queue=args.queue,
        batch=args.batch_size,
    )


def allowed_hosts(host: str, allowed: Sequence[str], token: str | None) -> list[str]:
    """Return the names by which the service may be asked. Raises a ValueError for others than this machine's address
    without a token, or for all addresses without names.
    """
    local = is_loopback(host)
    if not local and not token:
        raise ValueError(
            f"others reach a service on {host}: set a token in the environment variable {TOKEN}, or leave --host out"
        )
    if allowed:
        return [*allowed]
    if local:
        return ["localhost", "127.0.0.1"]
    if host in ("0.0.0.0", "::"):  # nosec B104 # refused without names that it is asked by
        raise ValueError(
            f"{host} is all addresses: say with --allow-host by which names the service is asked, * for any"
        )
    return [host]


def is_loopback(host: str) -> bool:
    """Return whether an address is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
