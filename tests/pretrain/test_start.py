"""Models to start from: their class table for other classes, and the recipe of a fine-tuning."""

import json
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from material import data
from randfeat.pretrain import (
    ControlConfig,
    ModelConfig,
    PretrainConfig,
    RuntimeConfig,
    TrainingConfig,
    plan_finetuning,
    run_pretraining,
)
from randfeat.pretrain.start import ClassTable, class_table, fill

from randfeat import Pipeline, load, weights
from randfeat.data.token_store import TokenWriter
from randfeat.inference.sampling import Sampling
from randfeat.inference.schedules import Guidance
from randfeat.models import create, name_of
from randfeat.tokenizers import PatchTokenizer

NAMES = ["ant", "bee", "cat"]
TRAINING = TrainingConfig(steps=6, batch_size=8, learning_rate=0.0, warmup=2, eval_every=3)
RECIPE = PretrainConfig("randar", True, ModelConfig(16, 2, 2, ffn_dim=24), TRAINING, RuntimeConfig(save_every=5))


@pytest.fixture(scope="module")
def tokenizer():
    return PatchTokenizer.fit(torch.rand(50, 1, 4, 6, generator=torch.Generator().manual_seed(0)), 7, 2)


def pipeline_of(tokenizer, names=NAMES, name="randar", recipe=None, **more):
    generator = tiny.model(name, (2, 3), num_classes=len(names), vocab_size=7, ffn_dim=24, **more)
    record = {} if recipe is None else {"recipe": recipe}
    sampling = Sampling(3, guidance=Guidance(2.0)) if names else Sampling(3)
    return Pipeline(tokenizer, generator, names, record, sampling)


def store_of(directory, tokenizer, names=NAMES, count=20, vocab=7, grid=(2, 3)):
    """Tokens of images, one after the other of each class; without labels where there are no names."""
    tokens, _ = data(count, vocab)
    labels = [i % len(names) for i in range(count)] if names else None
    of = dict(tokenizer=weights.fingerprint(tokenizer), grid=grid, vocab_size=vocab)
    writer = TokenWriter(directory, [f"{i}.png" for i in range(count)], labels, **of, classes=names or None)
    writer.write(0, tokens[:, None].numpy(), np.ones((count, 2), np.int32))
    return writer.finish()


@pytest.mark.parametrize("rows", [(2, None, 0, None, 1), (1,), (), (2, 1, 0)])
def test_classes_read_as_those_whose_rows_they_took(build, rows):
    old = build()
    config = old.config | {"num_classes": len(rows)}
    new = create(name_of(old), **config).eval()
    fill(new, old, ClassTable(old.num_classes, rows))
    tokens, _, order = tiny.batch(old, 1 + len(rows))
    taken = torch.tensor([*(old.num_classes if row is None else row for row in rows), old.num_classes])
    with torch.no_grad():
        assert torch.equal(new(tokens, torch.arange(1 + len(rows)), order), old(tokens, taken, order))


def test_control_that_a_model_lacks_stays_fresh():
    old, new = tiny.model("arpg"), tiny.model("arpg", num_classes=2, seed=3, control=tiny.CONTROL)
    fresh = {name: value.clone() for name, value in new.control.state_dict().items()}
    fill(new, old, ClassTable(old.num_classes, (0, None)))
    assert all(torch.equal(value, fresh[name]) for name, value in new.control.state_dict().items())
    assert torch.equal(new.head.weight, old.head.weight)


@pytest.mark.parametrize(
    ("names", "count", "rows", "said"),
    [
        (NAMES, 3, (0, 1, 2), None),
        (["cat", "Ant", "bee"], 3, (2, 0, 1), "knows 3 classes, these images 3 in another order: each keeps its row"),
        (["bee", "ant"], 2, (1, 0), "these images 2 of the same names: each keeps its row of the class table, by name"),
        (["bee", "dog"], 2, (1, None), "these images 2, 1 of them by name: new rows in the class table"),
        (["x", "y", "z"], 3, (None,) * 3, "these images 3: a new class table, the other weights kept"),
        (None, 3, (0, 1, 2), None),  # numbers alone
        (None, 2, (None, None), "these images 2: a new class table"),
        (NAMES, 0, (), "this training is without labels: the null class and the other weights are kept"),
    ],
)
def test_rows_follow_the_names(tokenizer, names, count, rows, said):
    found = class_table(pipeline_of(tokenizer), names, count)
    assert found == ClassTable(3, rows)
    assert found.kept == (said is None)
    assert said is None or said in str(found)


def test_a_model_without_names_or_classes(tokenizer):
    unnamed = pipeline_of(tokenizer).generator
    assert class_table(unnamed, ["x", "y", "z"], 3).kept  # as many
    assert class_table(unnamed, ["2", "0"], 2) == ClassTable(3, (2, 0))
    free = class_table(pipeline_of(tokenizer, []), NAMES, 3)
    assert free == ClassTable(0, (None,) * 3)
    assert "the model knows no classes, these images 3: a new class table" in str(free)
    assert class_table(pipeline_of(tokenizer, []), None, 0).kept


def test_names_of_imagenet_are_synonyms_and_wordnet_ids(tokenizer):
    model = pipeline_of(tokenizer, []).generator
    big = Pipeline(tokenizer, create("randar", **(model.config | {"num_classes": 1000})), "imagenet-1k")
    found = class_table(big, ["n01440764", "Tinca tinca", "great white shark", "my cat", "3"], 5)
    assert found.rows == (0, 0, 2, None, None)


@pytest.mark.parametrize(
    ("before", "after", "same"), [(NAMES, ["cat", "eel"], True), (NAMES, [], False), ([], NAMES, False)]
)
def test_a_run_keeps_what_it_can(tmp_path, tokenizer, before, after, same):
    model, store = pipeline_of(tokenizer, before), store_of(tmp_path / "tokens", tokenizer, after)
    recipe = replace(RECIPE, labels=bool(after))  # whose learning rate is 0
    made = load(run_pretraining(recipe, store, tokenizer, tmp_path / "run", init=model, device="cpu"))
    old, new = model.generator.state_dict(), made.generator.state_dict()
    table = "label_embedding.weight"
    assert all(torch.equal(new[name], value) for name, value in old.items() if name != table)
    assert torch.equal(new[table][-1], old[table][-1])
    assert made.class_names == after
    assert (made.sampling == model.sampling) == same  # guidance is for models with classes
    settings = json.loads((tmp_path / "run" / "run.json").read_text())["settings"]
    rows = [before.index(name) if name in before else None for name in after]
    assert settings["class_table"] == {"known": len(before), "rows": rows}
    assert made.training_record["class_table"] == settings["class_table"]


def test_names_are_the_models_where_the_images_have_numbers(tmp_path, tokenizer):
    model, named = pipeline_of(tokenizer), store_of(tmp_path / "named", tokenizer)
    (tmp_path / "tokens").mkdir()
    meta = json.loads((named.directory / "meta.json").read_text()) | {"classes": None}
    for path in named.directory.iterdir():
        (tmp_path / "tokens" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "tokens" / "meta.json").write_text(json.dumps(meta))
    store = type(named).open(tmp_path / "tokens")
    made = run_pretraining(RECIPE, store, tokenizer, tmp_path / "run", init=model, device="cpu")
    assert load(made).class_names == NAMES
    assert "class_table" not in json.loads((tmp_path / "run" / "run.json").read_text())["settings"]


def test_what_does_not_fit_a_model_to_start_from_is_refused(tmp_path, tokenizer):
    model, store = pipeline_of(tokenizer), store_of(tmp_path / "tokens", tokenizer, ["bee", "eel"])

    def refused(message, recipe=RECIPE, tokens=store, codes=tokenizer, init=model):
        with pytest.raises(ValueError, match=message):
            run_pretraining(recipe, tokens, codes, tmp_path / "run", init=init, device="cpu")
        assert not (tmp_path / "run").exists()

    refused("model randar, not arpg", replace(RECIPE, model="arpg"))
    refused("depth 2, not 3", replace(RECIPE, size=ModelConfig(16, 3, 2, ffn_dim=24)))
    alone = replace(RECIPE, control=ControlConfig("edges", 8, 1, alone=True))
    refused("control.alone trains the adapter alone, and 1 of .*: fine-tune the model on them first", alone)
    more = PatchTokenizer.fit(torch.rand(50, 1, 4, 6, generator=torch.Generator().manual_seed(0)), 9, 2)
    refused(
        "reads tokens of 7 codes, and these are of 9", tokens=store_of(tmp_path / "nine", more, vocab=9), codes=more
    )
    wide = store_of(tmp_path / "wide", tokenizer, grid=(3, 2))
    refused("reads 2 x 3 tokens, and these images have 3 x 2", tokens=wide)
    refused("has control", init=pipeline_of(tokenizer, control=tiny.CONTROL))


OF_THE_MODEL = {
    "model": "randar",
    "labels": True,
    "size": {"embed_dim": 16, "depth": 2, "num_heads": 2},
    "training": {"steps": 1000, "batch_size": 10, "learning_rate": 0.002, "betas": [0.8, 0.9], "ema": 0.99, "seed": 5},
    "agreement": {"weight": 0.5},
}


def test_the_recipe_is_the_models_on_a_shorter_schedule(tokenizer):
    model = pipeline_of(tokenizer, recipe=OF_THE_MODEL, dropout=0.3)
    found = plan_finetuning(model, 5000, labelled=True)
    recipe, training = found.recipe, found.recipe.training
    assert (recipe.model, recipe.labels, recipe.agreement.weight) == ("randar", True, 0.5)
    own = model.generator.config
    assert vars(recipe.size) == {name: own[name] for name in vars(recipe.size)}
    assert recipe.size.dropout == 0.3
    assert (training.steps, training.batch_size, training.learning_rate) == (200, 10, 0.0005)
    assert (training.warmup, training.eval_every, training.betas, training.seed) == (10, 20, (0.8, 0.9), 5)
    assert training.ema == pytest.approx(0.95)  # which looks back on a twentieth
    assert "200 steps of 10 images, a fifth of its 1,000; learning rate 0.0005, a quarter of its 0.002" in found.why
    few = plan_finetuning(model, 12, labelled=False, changes=["training.learning_rate=0.001"])
    assert few.recipe.training.steps == 200  # 100 epochs of two steps
    assert not few.recipe.labels
    assert "100 epochs" not in few.why
    assert "0.001, as set; without labels" in few.why
    assert plan_finetuning(model, 7, True).recipe.training.steps == 100
    assert "100 steps of 10 images, 100 epochs of 7 images" in plan_finetuning(model, 7, True).why
    changed = plan_finetuning(model, 5000, True, changes=["training.steps=40", "training.warmup=9"]).recipe.training
    assert (changed.steps, changed.warmup, changed.eval_every, changed.ema) == (40, 9, 4, 0.75)


def test_a_model_that_keeps_no_recipe_gets_a_rate_by_its_width(tokenizer):
    found = plan_finetuning(pipeline_of(tokenizer, name="arpg"), 10**6, True)
    assert (found.recipe.training.steps, found.recipe.training.learning_rate) == (5000, 0.00313)
    assert "0.05 over its width of 16" in found.why
    assert found.recipe.size.dropout == 0.1
    assert not plan_finetuning(pipeline_of(tokenizer, []), 10**6, True).recipe.labels  # the model has none


def test_control_stays_that_of_the_model(tokenizer):
    model = pipeline_of(tokenizer, name="arpg", control=tiny.CONTROL, recipe=OF_THE_MODEL | {"agreement": {}})
    control = plan_finetuning(model, 100, True).recipe.control
    assert (control.kind, control.width, control.depth, control.alone) == ("edges", 8, 1, False)


def test_a_recipe_for_a_model_may_leave_out_what_the_model_is(tmp_path, tokenizer):
    path = tmp_path / "mine.yaml"
    path.write_text("training: {steps: 30, learning_rate: 1e-4}\n")
    found = plan_finetuning(pipeline_of(tokenizer, recipe=OF_THE_MODEL), 5000, True, path, ["training.warmup=3"])
    expected = TrainingConfig(steps=30, learning_rate=1e-4, warmup=3)
    assert found.recipe.training == expected
    assert (found.recipe.model, found.recipe.size.depth, found.recipe.agreement.weight) == ("randar", 2, 0.0)
    for text, message in (("training: {stepz: 3}\n", "stepz"), ("size: {depth: many}\n", "depth")):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            plan_finetuning(pipeline_of(tokenizer), 5000, True, path)
