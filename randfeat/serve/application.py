"""The service as an application of FastAPI."""

from __future__ import annotations

import asyncio
import functools
import io
import os
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version
from typing import Any

import numpy as np
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from fastapi.responses import JSONResponse, Response
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline
from PIL import Image
from pydantic import TypeAdapter

from ..data.crop import are_pictures
from ..features.encoder import Encoder
from ..index.query import Filter
from . import metrics, requests
from .batching import Batcher, QueueFull, Work
from .guard import RETRY, STATIC, Guard, refused
from .limits import Limits
from .opening import Service
from .work import Classify, DrawSamples, ReadFeatures, SearchIndex

NPY = "application/x-npy"
LOOPBACK = ("localhost", "127.0.0.1")
REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"description": "broken off, or for another host"},
    401: {"description": "without the token"},
    403: {"description": "sent by a page of another site"},
    408: {"description": "did not arrive in time"},
    413: {"description": "too many bytes"},
    415: {"description": "in another form"},
    422: {"description": "images that cannot be read, or wrong options"},
    429: {"description": "too much waits: send it again later"},
    503: {"description": "not answered in time"},
}
OF_IMAGES: dict[str, tuple[str, type[requests.Options]]] = {  # path: what it does, and its options
    "/v1/features": ("Features of images", requests.FeatureOptions),
    "/v1/classify": ("Classes that make images likeliest", requests.ClassifyOptions),
    "/v1/search": ("Neighbours of images in the index", requests.SearchOptions),
}
_JSON = TypeAdapter(dict[str, Any])


class Api:
    """Endpoints of a service."""

    def __init__(self, service: Service, limits: Limits) -> None:
        self.service, self.limits, self.metrics = service, limits, metrics.Metrics(limits.batch)
        self._decoders: ThreadPoolExecutor
        self._batcher: Batcher

    @asynccontextmanager
    async def running(self, app: FastAPI) -> AsyncIterator[None]:
        """Compute while the block runs. In it Pillow refuses images of more pixels than the limit."""
        most, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, max(1, self.limits.pixels // 2)  # it allows twice that
        with ThreadPoolExecutor(os.cpu_count()) as self._decoders, ThreadPoolExecutor(1) as computing:
            self._batcher = Batcher(computing, self.limits.batch, self.limits.queue, self.metrics.batch.observe)
            self.metrics.watch(lambda: len(self._batcher))
            task = asyncio.create_task(self._batcher.run())
            try:
                yield
            finally:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
                Image.MAX_IMAGE_PIXELS = most

    # endpoints -----------------------------------------------------------------------------------------------------

    async def features(self, request: Request) -> Response:
        """Return the features of images."""
        images, options = await requests.read_images(request, requests.FeatureOptions, self.limits)
        encoder = self.service.default
        if options.spec is not None and options.spec not in self.service.encoders:
            offered = ", ".join(self.service.encoders)
            raise HTTPException(422, f"spec {options.spec[:200]!r} is none of this service's: {offered}")
        if options.spec is not None:
            encoder = self.service.encoders[options.spec]
        rows = await self._computed(ReadFeatures(encoder), encoder, images)
        spec = encoder.specs[0]
        return await self._off(_as_features, np.stack(rows), spec, options.format)

    async def classify(self, request: Request) -> Response:
        """Return the likeliest classes of images."""
        assert self.service.classifier is not None  # else there is no such path
        images, options = await requests.read_images(request, requests.ClassifyOptions, self.limits)
        work = Classify(self.service.classifier, options.orders, options.top)
        return JSONResponse({"classes": await self._computed(work, self.service.default, images)})

    async def search(self, request: Request) -> Response:
        """Return the neighbours of images."""
        assert self.service.index is not None  # else there is no such path
        assert self.service.reader is not None
        images, options = await requests.read_images(request, requests.SearchOptions, self.limits)
        where = Filter(options.labels, options.paths)
        work = SearchIndex(self.service.reader, self.service.index, options.k, where)
        found = await self._computed(work, self.service.reader, images)
        return JSONResponse({"matches": [[match._asdict() for match in matches] for matches in found]})

    async def sample(self, request: Request) -> Response:
        """Return samples."""
        assert self.service.model is not None  # else there is no such path
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != requests.JSON:
            raise HTTPException(415, f"send {requests.JSON}")
        body = requests.parsed(_JSON, await request.body())
        options = requests.validated(requests.SampleOptions, body)
        if len(options.labels) > self.limits.images:
            raise HTTPException(422, f"a request draws at most {self.limits.images} images")
        model = self.service.model
        model.label_indices(options.labels)  # a ValueError for a class that there is not
        if options.format == "json" and not are_pictures(model.tokenizer.channels, model.tokenizer.value_range):
            raise HTTPException(422, "the samples of this model are no pictures of 8 bits: ask for the format npy")
        wanted = [(label, options.seed + i) for i, label in enumerate(options.labels)]
        drawn = await self._batcher.submit(DrawSamples(model), wanted)
        return await self._off(_as_samples, drawn, options.format)

    async def health(self) -> dict[str, str]:
        """Return that the service answers."""
        return {"status": "ok"}

    async def about(self) -> dict[str, Any]:
        """Return what the service is."""
        index = self.service.index
        return {
            "randfeat": version("randfeat"),
            "model": self.service.default.name,
            "specs": [*self.service.encoders],
            "index": None if index is None else len(index),
        }

    async def figures(self) -> Response:
        """Return the metrics."""
        return Response(self.metrics.text(), media_type=metrics.MEDIA_TYPE)

    # -----------------------------------------------------------------------------------------------------------------

    async def _computed(self, work: Work, encoder: Encoder, images: list[requests.Sent]) -> list[Any]:
        """Return the result of a work for each image that was sent."""
        return await self._batcher.submit(work, await self._off(requests.prepared, encoder, images))

    async def _off(self, function: Callable[..., Any], *given: Any) -> Any:
        """Call a function in a thread beside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._decoders, functools.partial(function, *given))


def application(
    service: Service, limits: Limits | None = None, token: str | None = None, hosts: Sequence[str] = LOOPBACK
) -> FastAPI:
    """Return a service as an application, which a server such as uvicorn runs.

    token: that requests must bear, None for none. hosts: names by which it may be asked, see `TrustedHostMiddleware`.
    """
    limits = limits or Limits()
    api = Api(service, limits)
    named = {"title": "randfeat", "version": version("randfeat")}
    described = [] if token is None else [Depends(HTTPBearer(auto_error=False))]  # `Guard` looks at it
    how: dict[str, Any] = dict(redoc_url=None, static_url=STATIC, lifespan=api.running, dependencies=described)
    app = FastAPIOffline(**named, **how)
    offered = {"/v1/features": api.features}
    if service.classifier is not None:
        offered["/v1/classify"] = api.classify
    if service.index is not None:
        offered["/v1/search"] = api.search
    for path, endpoint in offered.items():
        summary, options = OF_IMAGES[path]
        extra = requests.body_schema(options)
        app.post(path, summary=summary, response_class=JSONResponse, responses=REFUSALS, openapi_extra=extra)(endpoint)
    if service.model is not None:
        schema = {"required": True, "content": {requests.JSON: {"schema": requests.SampleOptions.model_json_schema()}}}
        app.post("/v1/sample", summary="Samples", responses=REFUSALS, openapi_extra={"requestBody": schema})(api.sample)
    app.get("/healthz", summary="Whether the service answers")(api.health)
    app.get("/v1/about", summary="Model, specs and index", responses={401: REFUSALS[401]})(api.about)
    app.get("/metrics", summary="Figures for Prometheus", responses={401: REFUSALS[401]})(api.figures)
    app.exception_handler(QueueFull)(_full)
    app.exception_handler(ValueError)(_wrong)
    paths = frozenset({*offered, "/v1/sample", "/v1/about", "/healthz", "/metrics", "/docs", "/openapi.json"})
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*hosts], www_redirect=False)
    app.add_middleware(Guard, limits=limits, metrics=api.metrics, token=token, paths=paths)
    return app


async def _full(request: Request, error: Exception) -> Response:
    return refused(429, "too many images wait: send them again later", RETRY)


async def _wrong(request: Request, error: Exception) -> Response:
    return refused(422, str(error))


def _as_features(rows: np.ndarray, spec: str, form: str) -> Response:
    if form == "npy":
        return _as_npy(rows)
    return JSONResponse({"spec": spec, "features": rows.tolist()})


def _as_samples(images: Sequence[np.ndarray], form: str) -> Response:
    if form == "npy":
        return _as_npy(np.stack(images))
    files = []
    for image in images:
        file = io.BytesIO()
        Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(file, "PNG")
        files.append(b64encode(file.getvalue()).decode())
    return JSONResponse({"images": files})


def _as_npy(array: np.ndarray) -> Response:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return Response(file.getvalue(), media_type=NPY)
