"""Parsers by name, each a function of bytes, with contents that they take: what `tests/faults/fuzz.py` begins from."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import tarfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import battery
import endings
import numpy as np
import torch
from PIL import Image
from randfeat.pretrain import read_recipe
from randfeat.pretrain.vq.config import read_tokenizer_recipe
from randfeat.probes.report.record import Record
from randfeat.probes.tasks.correspondence import read_spair
from randfeat.probes.tasks.revisited import read_pickle

from randfeat import FeatureSpec, Sampling, load
from randfeat.commands.app import checked_hosts
from randfeat.commands.sample import read_order
from randfeat.data import decode
from randfeat.data.sources import imagenet, open_source
from randfeat.data.token_store import TokenStore
from randfeat.features.store import FeatureStore
from randfeat.index import Filter, Index
from randfeat.utils import arrays, atomic
from randfeat.weights import checkpoints

DEEP = b"[" * 5000  # JSON deeper than Python's stack
FILE = "fuzzed"  # name, or its beginning, of what the parsers are given


@dataclass(frozen=True)
class Parser:
    """Function of a place and of bytes, and contents that it takes, made in the place."""

    parse: Callable[[battery.Place, bytes], Any]
    seeds: Callable[[battery.Place], list[bytes]]


PARSERS: dict[str, Parser] = {}


def parser(seeds: Callable[[battery.Place], list[bytes]]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that adds a function to PARSERS under its name."""

    def add(parse: Callable[..., Any]) -> Callable[..., Any]:
        PARSERS[parse.__name__] = Parser(parse, seeds)
        return parse

    return add


def ends_well(call: Callable[..., Any], *given: Any) -> Any:
    """Return what a call returns, None where it raises an error of one sentence; other errors are raised."""
    try:
        return call(*given)
    except RecursionError:
        raise
    except (ValueError, OSError, RuntimeError) as error:
        sentence = str(error)
    assert sentence, "an error without a sentence"
    assert not endings.RAW.search(sentence), sentence
    return None


def texts(*contents: str | bytes) -> Callable[[battery.Place], list[bytes]]:
    """Return seeds that are the same in every place."""
    return lambda place: [one if isinstance(one, bytes) else one.encode() for one in contents]


def files(*paths: str) -> Callable[[battery.Place], list[bytes]]:
    """Return seeds that are files of a place: the name of a thing, and the path below it."""

    def read(place: battery.Place) -> list[bytes]:
        parted = [path.partition("/") for path in paths]
        return [place[thing].joinpath(*filter(None, [name])).read_bytes() for thing, _, name in parted]

    return read


def written(place: battery.Place, suffix: str, content: bytes) -> Path:
    """Return a file of these bytes, whose name ends in `suffix`."""
    path = place.root / f"{FILE}{suffix}"
    path.write_bytes(content)
    return path


def images_of(path: Path) -> list[Any]:
    """Open a data set and each of its rows."""
    source: Any = open_source(str(path))
    source.fingerprint()
    read = getattr(source, "tokens", None) or source.read
    return [ends_well(read, i) for i in range(min(len(source), 3))]


# text ----------------------------------------------------------------------------------------------------------------


@parser(texts("raster/causal/token/L1/mean/mean", "random*2@7:per-image/full/query/L-1,L0.5/grid2/concat", "[1,0]/+"))
def feature_spec(place: battery.Place, content: bytes) -> None:
    spec = FeatureSpec.parse(content.decode("utf-8", "surrogateescape"))
    assert FeatureSpec.parse(str(spec)) == spec
    ends_well(spec.resolved, 4)


@parser(texts("0 1 2,3\n4", "5, 4, 3, 2, 1, 0", "٣ 1_0"))
def order(place: battery.Place, content: bytes) -> None:
    read_order(written(place, ".txt", content))


@parser(texts("box.example.org", "*.example.org"))
def host(place: battery.Place, content: bytes) -> None:
    checked_hosts([content.decode("utf-8", "replace")])


@parser(texts("cats/*.jpg", "[!abc]?", "[a-", "[]]", "cat"))
def pattern(place: battery.Place, content: bytes) -> None:
    text = content.decode("utf-8", "replace")
    Index.open(place["index"]).search(np.zeros((1, 16), np.float32), 1, where=Filter((), text))


# configs and settings ------------------------------------------------------------------------------------------------


@parser(texts(json.dumps(Sampling(steps=4, top_k=3).as_dict()), '{"steps": true}'))
def sampling(place: battery.Place, content: bytes) -> None:
    try:
        values = json.loads(content)
    except (ValueError, RecursionError):
        return
    if isinstance(values, dict):
        made = Sampling.from_dict(values)
        assert Sampling.from_dict(json.loads(json.dumps(made.as_dict()))) == made


def _recipe(name: str) -> Callable[[battery.Place], list[bytes]]:
    folder = Path(__file__).parents[2] / "configs"
    return lambda place: [(folder / name).read_bytes(), b"a: &x [*x, *x]", b"%s: [1, {b: 2}]" % (b"? " * 500)]


@parser(_recipe("arpg_s.yaml"))
def recipe(place: battery.Place, content: bytes) -> None:
    read_recipe(written(place, ".yaml", content))


@parser(_recipe("tokenizer_tiny.yaml"))
def tokenizer_recipe(place: battery.Place, content: bytes) -> None:
    read_tokenizer_recipe(written(place, ".yaml", content))


def _replaced(kind: str, name: str, use: Callable[[Path], Any]) -> Callable[[battery.Place, bytes], Any]:
    """Return a parser of a folder of which one file has the content."""

    def parse(place: battery.Place, content: bytes) -> None:
        folder = place[f"{kind}_to_change"]
        whole = (place[kind] / name).read_bytes()
        _another(folder / name, content)
        try:
            use(folder)
        finally:
            _another(folder / name, whole)

    return parse


def _another(path: Path, content: bytes) -> None:
    """Put another file in the place of one that may still be mapped, which a shorter content would pull away."""
    path.unlink()
    path.write_bytes(content)


def _with_deep(*paths: str) -> Callable[[battery.Place], list[bytes]]:
    return lambda place: [*files(*paths)(place), DEEP]


def _use_store(folder: Path) -> None:
    store = FeatureStore.open(folder)
    assert len(store) == len(store.paths)
    store.classes, [store.as_numpy(spec) for spec in store.specs], store.absolute_paths(), store.as_dataframe()


def _use_cache(folder: Path) -> None:
    store = TokenStore.open(folder)
    store.classes, store.grid, store.crops, store.vocab_size, store.labels, store.tokens[:]


def _use_index(folder: Path) -> None:
    index = Index.open(folder)
    index.stats(), [*index.labels()], index.search(np.zeros((1, 16), np.float32), 1)


for _kind, _name, _use in (
    ("model", "config.json", load),
    ("model", "tokenizer/config.json", load),
    ("model", "model.safetensors", load),
    ("store", "meta.json", _use_store),
    ("store", "rows.parquet", _use_store),
    ("store", "features.npy", _use_store),
    ("cache", "meta.json", _use_cache),
    ("cache", "rows.parquet", _use_cache),
    ("cache", "tokens.npy", _use_cache),
    ("index", "meta.json", _use_index),
    ("index", "000001.faiss", _use_index),
    ("index", "000001.parquet", _use_index),
):
    _label = f"{_kind}_{_name.replace('/', '_').replace('.', '_')}"
    _seeds = _with_deep(f"{_kind}/{_name}") if _name.endswith("json") else files(f"{_kind}/{_name}")
    PARSERS[_label] = Parser(_replaced(_kind, _name, _use), _seeds)


@parser(_with_deep("index/meta.json"))
def state(place: battery.Place, content: bytes) -> None:
    atomic.read_json(written(place, ".json", content), "index of randfeat, version 1")


@parser(_with_deep("record"))
def record(place: battery.Place, content: bytes) -> None:
    path = written(place, ".json", content)
    path.with_suffix(".npz").write_bytes(place["record"].with_suffix(".npz").read_bytes())
    Record.load(path)


@battery.maker
def _record(place: battery.Place, path: Path) -> Path:
    from randfeat.probes.stats import Interval

    scores = {"top-1": Interval(0.5, 0.4, 0.6, 10)}
    return Record("features", "knn", scores, arrays={"right": np.ones(10)}).save(path)


battery.MAKERS["record"] = battery.MAKERS.pop("_record")


# data sets -----------------------------------------------------------------------------------------------------------

_TABLE = "path,label\nphotos/cat/00.png,cat\nphotos/dog/01.png,dog\n"


def _table(suffix: str, *seeds: str | bytes) -> None:
    def parse(place: battery.Place, content: bytes) -> None:
        images_of(written(place, suffix, content))

    PARSERS[f"table_{suffix[1:]}"] = Parser(parse, texts(*seeds))


_table(".csv", _TABLE, "path;label\na.png;1\n", "path,label,split\na.png,,train\n", '"a\n.png","b')
_table(".tsv", _TABLE.replace(",", "\t"))
_table(".txt", "photos/cat/00.png cat\nphotos/dog/01.png dog\n", "photos/cat/00.png\n")
_table(".jsonl", '{"path": "photos/cat/00.png", "label": 3}\n', '{"tokens": [1, 2], "class_id": 3}\n', DEEP)


def _tars(place: battery.Place) -> list[bytes]:
    picture = place["picture"].read_bytes()
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        members = {"a 1.5.png": picture, "a 1.5.cls": b"3", "b.json": b'{"label": "cat"}', "b.png": picture}
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return [made.getvalue()]


@parser(_tars)
def tar(place: battery.Place, content: bytes) -> None:
    images_of(written(place, ".tar", content))


def _parquets(place: battery.Place) -> list[bytes]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = (
        {"image": [{"bytes": place["picture"].read_bytes(), "path": "a.png"}], "label": [1]},
        {"path": ["photos/cat/00.png"], "label": ["cat"]},
    )
    made = [io.BytesIO() for _ in tables]
    for table, target in zip(tables, made, strict=True):
        pq.write_table(pa.table(table), target)
    return [target.getvalue() for target in made]


@parser(_parquets)
def parquet(place: battery.Place, content: bytes) -> None:
    images_of(written(place, ".parquet", content))


_IDX = b"\0\0\x08\x03" + b"".join(n.to_bytes(4, "big") for n in (2, 2, 3)) + bytes(12)


@parser(texts(_IDX, gzip.compress(_IDX, mtime=0)))
def idx(place: battery.Place, content: bytes) -> None:
    name = "-images-idx3-ubyte" + (".gz" if content[:2] == b"\x1f\x8b" else "")
    images_of(written(place, name, content))


@parser(texts("1\n2\n", "2\n1"))
def imagenet_truth(place: battery.Place, content: bytes) -> None:
    """Read the classes of the validation images; scipy reads the other file, and a damaged one may end the process."""
    from scipy.io import savemat

    folder = place.root / f"{FILE}_kit"
    if not folder.is_dir():
        folder.mkdir()
        kind = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("num_children", "O")]
        synsets = np.array([(1, "n01440764", 0), (2, "n01443537", 0)], dtype=kind)
        savemat(folder / "meta.mat", {"synsets": synsets})
    (folder / "ILSVRC2012_validation_ground_truth.txt").write_bytes(content)
    imagenet.read_kit(folder)


_PAIR = {"category": "cat", "src_imname": "a.jpg", "trg_imname": "b.jpg", "src_kps": [[1, 2]], "trg_kps": [[3, 4]]}
_PAIR |= {"src_bndbox": [0, 0, 9, 9], "trg_bndbox": [0, 0, 9, 9], "src_imsize": [9, 9, 3], "trg_imsize": [9, 9, 3]}


@parser(texts(json.dumps(_PAIR), DEEP))
def keypoint_pair(place: battery.Place, content: bytes) -> None:
    folder = place.root / f"{FILE}_pairs"
    (folder / "PairAnnotation" / "test").mkdir(parents=True, exist_ok=True)
    (folder / "PairAnnotation" / "test" / "0.json").write_bytes(content)
    read_spair(folder, "test")


@parser(lambda place: [_npy(np.zeros((2, 4), np.int64)), _npy(np.zeros((1, 4), np.uint16))])
def token_tree(place: battery.Place, content: bytes) -> None:
    folder = place.root / f"{FILE}_tree" / "cat"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "0.npy").write_bytes(content)
    images_of(folder.parent)


# files of pictures, arrays and weights -------------------------------------------------------------------------------


def _npy(array: np.ndarray) -> bytes:
    made = io.BytesIO()
    np.save(made, array)
    return made.getvalue()


def _pictures(place: battery.Place) -> list[bytes]:
    picture = Image.open(place["picture"])
    made = [place["picture"].read_bytes(), _npy(np.zeros((2, 2, 3), np.uint8)), _npy(np.zeros((2, 2), np.float32))]
    for form, mode in (("JPEG", "RGB"), ("GIF", "P"), ("BMP", "L"), ("TIFF", "I;16"), ("WEBP", "RGB"), ("PPM", "L")):
        target = io.BytesIO()
        (Image.new("I;16", (3, 2)) if mode == "I;16" else picture.convert(mode)).save(target, form)
        made.append(target.getvalue())
    return made


@parser(_pictures)
def picture(place: battery.Place, content: bytes) -> None:
    for read in (decode.open_picture, decode.open_layer, decode.open_values):
        ends_well(read, io.BytesIO(content))


@parser(files("good_npz"))
def npz(place: battery.Place, content: bytes) -> None:
    path = written(place, ".npz", content)
    arrays.count_images(path)
    for one in arrays.read_images(path):
        assert one.mode == "RGB"


def _weights(place: battery.Place) -> list[bytes]:
    made = io.BytesIO()
    torch.save({"model": {"a.weight": torch.zeros(2)}, "steps": 3}, made)
    return [made.getvalue()]


@parser(_weights)
def checkpoint(place: battery.Place, content: bytes) -> None:
    checkpoints.read(written(place, ".pt", content))


@parser(lambda place: [pickle.dumps({"bbx": [1.5, 2], "ok": np.arange(3)}, protocol) for protocol in (0, 2, 5)])
def ground_truth(place: battery.Place, content: bytes) -> None:
    read_pickle(written(place, ".pkl", content))


def parsed(name: str, place: battery.Place, content: bytes) -> None:
    """Give bytes to a parser, which has to end well."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ends_well(PARSERS[name].parse, place, content)
