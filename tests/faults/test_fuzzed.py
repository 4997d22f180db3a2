"""Inputs that fuzzing (fuzz.py) begins from, and those that it found: parsers end with a value or with one sentence."""

import warnings

import battery
import pytest
from parsers import DEEP, PARSERS, parsed

_NPY = b"\x93NUMPY\x01\x00v\x00%-117s\n\x01\x00\x02\x00"
# parser: inputs that once ended in an exception of another kind, or in words of Python
FOUND = {
    "recipe": [b"a: &x [*x, *x]", b"?"],
    "tokenizer_recipe": [
        b"?",
        b"a: &x [*x, *x]",
        b"network:\n  stride: 8\n  width: 8\n  multipliers: [1,2WEBP, 4, 8]\n",
    ],
    "cache_tokens_npy": [
        _NPY % b"{'descr': '<u2', 'fortran_order': False, 'shape': (12, 2, ",
        _NPY % b"{'descr': '<u2', 'fortran_order': False, 'shape': (12, 2, 6), } .cls",
    ],
    "token_tree": [_NPY % b"{'descr': '<u2', 'fortran_order': Fazlse, 'shape': (1, 4), }", _NPY % b"{'des\n\xe0'"],
    "picture": [
        _NPY % b"{'descr':+ '|u1', 'fortran_order': False, 'shape': (4, 2, 3), }",
        _NPY % b"{'descr': '|u1', 'fortran_order': False, 'shape': (4, -2, 3), }",
        b"P5\n.9 8\n255\n" + bytes(72),
        b"Pf\n9 8\n25\x7f\n5h\xd5\xce9dXL\xbb",
        b"II*\0\x08\0\0\0\x03\0"
        + b"\0\1\4\0\1\0\0\0\3\0\0\0"
        + b"\1\1\4\0\1\0\0\0\2\0\0\0"
        + b"\2\1\1\0\0\0\0\0\x10\0\0\0",
    ],
    "record": [b'{"format": "\xff"}'],
    "keypoint_pair": [b'{"category": 3}'],
    # the type of a column changed: where pyarrow is asked of the column, the process ends
    "parquet": [
        b"PAR1\x15\0\x15\x16\x15\x16,\x15\2\x15\0\x15\6\x15\6\x1c\0\0\0\2\0\0\0\2\1\1\0\0\0x\x15\0\x15\x1c\x15\x1c,"
        b"\x15\2\x15\0\x15\6\x15\6\x1c\0\0\0\2\0\0\0\2\1\1\0\0\0\0\0\0\0\x15\4\x19<5\0\x18\6schema\x15\4\0"
        b"\x15\0%\2\x18\5image\0\x15\4%\2\x18\5label\0\x16\2\x19\x1c\x19,&\0\x1c\x15\x0c\x19%\6\0\x19\x18\5image\x15\0"
        b"\x16\2\x16<\x16<&\x08I\x1c\x15\0\x15\0\x15\2\0<\x16\2\x19\6\x19&\0\2\0\0\0&\0\x1c\x15\4\x19%\6\0\x19\x18\5label"
        b"\x15\0\x16\2\x16B\x16B&DI\x1c\x15\0\x15\0\x15\2\0<)\6\x19&\0\2\0\0\0\x16~\x16\2&\x08\x16~\0"
        b"( parquet-cpp-arrow version 26.0.1\x19,\x1c\0\0\x1c\0\0\0\xc1\0\0\0PAR1"
    ],
    "table_jsonl": [b'{"\x93ath": "photos/cat/00.png", "label": 3}\n'],
    "ground_truth": [
        b"\x80\x05\x8c\x02\x8c\x8c.",
        b"\x80\x02}q\0(IX\n.",
        b"\x80\x02}r\0\0\0\x0a.",
        b"\x80\x02c_codecs\nencode\nX\x01\0\0\0bcnumpy\ndtype\n\x86R.",
    ],
    "imagenet_truth": [b"3\n", b"one\n"],
    "idx": [
        b"\x1f\x8b\x08\0\0\0\0\0\x02\x03c`\xe0`\x1b\x1f\x8b\x08\0\0\0\0\0\x02\x03c`\xe0`f```\x82b\x10\x1b\x0e\0r\x11\x86m"
    ],
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return battery.Place(tmp_path_factory.mktemp("fuzzed"))


@pytest.mark.parametrize("name", PARSERS)
def test_where_fuzzing_begins(place, name):
    """Each parser takes the first of its inputs, and ends well with all of them."""
    first, *others = PARSERS[name].seeds(place)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        PARSERS[name].parse(place, first)
    for content in others:
        parsed(name, place, content)


@pytest.mark.parametrize(("name", "content"), [(name, content) for name, found in FOUND.items() for content in found])
def test_what_fuzzing_found(place, name, content):
    parsed(name, place, content)


@pytest.mark.parametrize("name", [name for name in PARSERS if name.endswith("json") or name in ("state", "record")])
def test_json_that_is_nested_too_deep(place, name):
    parsed(name, place, DEEP)


def test_an_offset_before_the_beginning_of_a_zip(place):
    """The end of a zip file tells where its directory begins, here before the file."""
    content = bytearray(place["good_npz"].read_bytes())
    content[-10:-6] = (2**31).to_bytes(4, "little")
    parsed("npz", place, bytes(content))
