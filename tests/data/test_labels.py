"""Whatever a person calls a class, it is that class or a sentence that helps."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import tiny
import torch

from randfeat import Pipeline, load
from randfeat.data.labels import IMAGENET, Classes
from randfeat.tokenizers import PatchTokenizer

PETS = Classes(["Cat", "dog", "sea_lion", "7", "Dog house, small"], 5)


@pytest.fixture(scope="module")
def imagenet():
    return Classes(IMAGENET, 1000)


@pytest.mark.parametrize(
    ("label", "index"),
    [
        (None, 5),
        (0, 0),
        (np.int64(4), 4),
        (torch.tensor(3), 3),
        ("Cat", 0),
        ("cAT", 0),
        ("sea lion", 2),
        ("SEA_LION", 2),
        ("7", 3),  # a class has that very name
        ("1", 1),
        (" 4 ", 4),
        ("dog house, small", 4),
    ],
)
def test_a_folders_own_names(label, index):
    assert PETS.index(label) == index


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (5, r"class 5 is outside 0\.\.4"),
        (-1, r"class -1 is outside 0\.\.4"),
        ("-1", r"class -1 is outside 0\.\.4"),
        ("9", r"class 9 is outside 0\.\.4"),
        (True, "a class is an index, a name or None, got True"),
        (1.0, "a class is an index, a name or None, got 1.0"),
        (float("nan"), "a class is an index, a name or None, got nan"),
        (torch.tensor(True), "a class is an index, a name or None"),
        (torch.tensor(1.5), "a class is an index, a name or None"),
        ([1], r"a class is an index, a name or None, got \[1\]"),
        ("dgo house, small", r"unknown class 'dgo house, small', did you mean 'dog house, small' \(4\)"),
        ("small", "unknown class 'small', expected one of Cat, dog, sea_lion, 7, Dog house, small"),
        ("", "unknown class '', expected one of Cat"),
    ],
)
def test_what_is_no_class_is_one_sentence(label, message):
    with pytest.raises(ValueError, match=message) as error:
        PETS.index(label)
    assert "\n" not in str(error.value)


def test_classes_that_differ_in_case_or_not_at_all():
    classes = Classes(["cat", "Cat", "cow", "cow"], 4)
    assert classes.indices(["cat", "Cat"]) == [0, 1]
    with pytest.raises(ValueError, match=r"several classes are called 'CAT': .* one of 0 \(cat\), 1 \(Cat\)"):
        classes.index("CAT")
    with pytest.raises(ValueError, match=r"several classes are called 'cow': .* one of 2 \(cow\), 3 \(cow\)"):
        classes.index("cow")


@pytest.mark.parametrize(
    ("label", "index"),
    [
        ("golden retriever", 207),
        ("Golden_Retriever", 207),
        ("n02099601", 207),
        ("207", 207),
        ("Tinca tinca", 0),
        ("tench, Tinca tinca", 0),
        ("tank suit", 639),
        ("maillot, tank suit", 639),
    ],
)
def test_imagenet_goes_by_any_synonym_and_by_wordnet(imagenet, label, index):
    assert imagenet.index(label) == index


def test_imagenet_helps(imagenet):
    for label, message in (
        ("crane", r"several classes are called 'crane': give the index of one of 134 \(crane\), 517 \(crane\)"),
        ("maillot", r"one of 638 \(maillot\), 639 \(maillot, tank suit\)"),
        ("golden retreiver", r"unknown class 'golden retreiver', did you mean 'golden retriever' \(207\)"),
        ("xyzzy", "unknown class 'xyzzy', expected a name or WordNet id of ImageNet or an index 0..999"),
        ("1000", r"class 1000 is outside 0\.\.999"),
    ):
        with pytest.raises(ValueError, match=message):
            imagenet.index(label)
    assert len(imagenet.names) == 1000
    assert imagenet.short(0) == "tench"
    assert imagenet.short(1000) == "no class"
    shared = set()
    for index, name in enumerate(imagenet.names):
        try:
            assert imagenet.index(name) == index
        except ValueError:
            shared.add(name)
    assert shared == {"crane", "harp", "maillot", "missile", "partridge"}


def test_names_must_fit():
    assert Classes([], 3).names == ["0", "1", "2"]
    assert Classes((), 0).index(None) == 0
    for names, count, message in (
        (["a"], 2, "1 class names for 2 classes"),
        (IMAGENET, 10, "1000 class names for 10 classes"),
        ("imagenet-2k", 1000, "class_names is 'imagenet-2k': expected 'imagenet-1k' or a list"),
    ):
        with pytest.raises(ValueError, match=message):
            Classes(names, count)
    with pytest.raises(ValueError, match="this model has no classes: leave the class out"):
        Classes([], 0).index("cat")


def test_a_model_of_imagenet_keeps_the_name_of_the_list_and_looks_it_up_late(tmp_path):
    tokenizer = PatchTokenizer.fit(torch.rand(6, 3, 4, 6, generator=torch.Generator().manual_seed(1)), 7, 2)
    Pipeline(tokenizer, tiny.model("randar", num_classes=1000), IMAGENET).save(tmp_path / "model")
    assert json.loads((tmp_path / "model" / "config.json").read_text())["class_names"] == IMAGENET
    code = (
        f"import sys, randfeat; model = randfeat.load({str(tmp_path / 'model')!r})\n"
        "model.sample([207, '360', None]); print('timm' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
    model = load(tmp_path / "model")
    assert model.class_names[207] == "golden retriever"
    assert model.label_indices(["otter", 1, None]).tolist() == [360, 1, 1000]
