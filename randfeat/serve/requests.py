"""Requests: images as files of a form or as base64 in JSON, with options that pydantic checks.

Nothing that is sent is a path or an address here: names of files are text for error messages, and no URL is fetched.
"""

from __future__ import annotations

import binascii
import io
from base64 import b64decode
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
from fastapi import HTTPException, Request, UploadFile
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from ..data.decode import open_picture, open_values
from ..data.errors import UnreadableImage
from ..features.encoder import Encoder
from .limits import Limits

FORM, JSON = "multipart/form-data", "application/json"
FIELDS = 64  # of a form beside its files
LONGEST = 1 << 10  # characters of a label or a pattern
NAME = 80  # characters of a file's name that are repeated
_ANY = TypeAdapter(dict[str, Any])


class Options(BaseModel):
    """Base of options: others than those declared are refused."""

    model_config = ConfigDict(extra="forbid")


class FeatureOptions(Options):
    """Options of /v1/features."""

    spec: str | None = Field(None, description="feature spec, one of those that /v1/about lists; by default the first")
    format: Literal["json", "npy"] = Field("json", description="form of the answer; npy is an array, float32 (B, F)")


class ClassifyOptions(Options):
    """Options of /v1/classify."""

    orders: int = Field(16, ge=1, le=64, description="orders over which likelihoods are averaged")
    top: int = Field(5, ge=1, le=1000, description="classes in the answer, the likeliest first")


class SearchOptions(Options):
    """Options of /v1/search."""

    k: int = Field(10, ge=1, le=1000, description="neighbours of each image")
    labels: list[str] = Field([], max_length=FIELDS, description="search among these labels only")
    paths: list[str] = Field([], max_length=FIELDS, description="search among paths of these patterns only")


class SampleOptions(Options):
    """Body of /v1/sample."""

    labels: list[int | str | None] = Field(..., min_length=1, description="index or name of a class, or null, of each")
    seed: int = Field(0, ge=0, lt=1 << 62, description="of the first image; the others count on from it")
    format: Literal["json", "npy"] = Field("json", description="PNGs in base64, or an array (B, H, W, channels)")


class Sent(NamedTuple):
    """An image that was sent: its name, for messages, and its bytes."""

    name: str
    content: bytes


Chosen = TypeVar("Chosen", bound=Options)


def body_schema(options: type[Options]) -> dict[str, Any]:
    """Return OpenAPI's description of a body of images with options, in both forms."""
    schema = options.model_json_schema()
    given, text = schema["properties"], "images in base64, without a prefix"
    forms = {}
    for form, image in (
        (JSON, {"type": "string", "format": "byte", "contentEncoding": "base64"}),
        (FORM, {"type": "string", "format": "binary", "contentMediaType": "application/octet-stream"}),
    ):
        images = {"type": "array", "items": image, "minItems": 1, "description": text if form == JSON else "files"}
        forms[form] = {"schema": {**schema, "properties": {"images": images, **given}, "required": ["images"]}}
    return {"requestBody": {"required": True, "content": forms}}


async def read_images(request: Request, options: type[Chosen], limits: Limits) -> tuple[list[Sent], Chosen]:
    """Return images and options of a request in either form. Raises an HTTPException with the reason."""
    form = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if form == FORM:
        images, given = await _form(request, limits)
        # a field that takes several values is a list, whatever number was sent
        several = {name for name, field in options.model_fields.items() if field.annotation == list[str]}
        chosen = {name: values if name in several or len(values) > 1 else values[0] for name, values in given.items()}
    elif form == JSON:
        chosen = dict(parsed(_ANY, await request.body()))
        images = _from_base64(chosen.pop("images", None))
    else:
        raise HTTPException(415, f"send images as {FORM} or {JSON}")
    if not 1 <= len(images) <= limits.images:
        raise HTTPException(422, f"a request has 1 to {limits.images} images, got {len(images):,}")
    return images, validated(options, chosen)


async def _form(request: Request, limits: Limits) -> tuple[list[Sent], dict[str, list[str]]]:
    """Return the files of a form, whatever their field's name, and the values of its other fields."""
    images: list[Sent] = []
    given: dict[str, list[str]] = {}
    async with request.form(max_files=limits.images, max_fields=FIELDS, max_part_size=1 << 16) as form:
        for name, value in form.multi_items():
            if isinstance(value, str):
                given.setdefault(name, []).append(value)
            else:
                images.append(await _file(value, len(images)))
    return images, given


async def _file(upload: UploadFile | Any, number: int) -> Sent:
    return Sent(_plain(upload.filename) or f"image {number}", await upload.read())


def _plain(name: str | None) -> str:
    return "".join(c for c in (name or "")[:NAME] if c.isprintable())


def _from_base64(given: Any) -> list[Sent]:
    if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
        raise HTTPException(422, "images: a list of texts in base64")
    sent = []
    for number, text in enumerate(given):
        try:
            sent.append(Sent(f"image {number}", b64decode(text.encode("ascii"), validate=True)))
        except (binascii.Error, UnicodeEncodeError):
            raise HTTPException(422, f"image {number} is not base64: send its bytes so, without a prefix") from None
    return sent


def validated(options: type[Chosen], given: Mapping[str, Any]) -> Chosen:
    """Return options of a request; an HTTPException names those that are wrong."""
    try:
        return options.model_validate(given)
    except ValidationError as error:
        raise _refusal(error) from None


def parsed(adapter: TypeAdapter[Any], body: bytes) -> Any:
    """Return the JSON of a body; an HTTPException says what is wrong with it."""
    try:
        return adapter.validate_json(body)
    except ValidationError as error:
        raise _refusal(error) from None


def _refusal(error: ValidationError) -> HTTPException:
    faults = [".".join(map(str, fault["loc"])) + ": " + fault["msg"] for fault in error.errors(include_input=False)[:5]]
    return HTTPException(422, "; ".join(fault.removeprefix(": ")[:LONGEST] for fault in faults))


def prepared(encoder: Encoder, images: list[Sent]) -> list[np.ndarray]:
    """Return images as an encoder takes them; an HTTPException names the first that cannot be read, and why."""
    read = open_picture if encoder.value_range is None else open_values
    made = []
    for name, content in images:
        try:
            made.append(encoder.prepare(read(io.BytesIO(content))))
        except UnreadableImage as error:
            raise HTTPException(422, f"{name} cannot be read: {error.reason}") from None
        except ValueError as error:  # other channels or values than the model's
            raise HTTPException(422, f"{name}: {error}") from None
    return made
