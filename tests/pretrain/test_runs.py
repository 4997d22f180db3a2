from dataclasses import replace

import numpy as np
import pytest
import torch
from material import data
from randfeat.pretrain import (
    AgreementConfig,
    ControlConfig,
    ModelConfig,
    PretrainConfig,
    RuntimeConfig,
    TrainingConfig,
    read_recipe,
    run_pretraining,
)

from randfeat import load, weights
from randfeat.data.token_store import TokenWriter
from randfeat.tokenizers import PatchTokenizer

TRAINING = TrainingConfig(steps=12, batch_size=8, warmup=2, eval_every=4)
RECIPE = PretrainConfig(
    "randar", True, ModelConfig(16, 2, 2, ffn_dim=24, dropout=0.1), TRAINING, RuntimeConfig(save_every=5)
)


@pytest.fixture(scope="module")
def tokenizer():
    return PatchTokenizer.fit(torch.rand(50, 1, 4, 6, generator=torch.Generator().manual_seed(0)), 7, 2)


@pytest.fixture
def store(tmp_path, tokenizer):
    """Makes a store of `count` images with two crops each."""

    def make(name="tokens", count=20, labelled=True, fingerprint=None):
        tokens, labels = data(count)
        writer = TokenWriter(
            tmp_path / name,
            [f"{i}.png" for i in range(count)],
            labels.tolist() if labelled else None,
            tokenizer=fingerprint or weights.fingerprint(tokenizer),
            grid=(2, 3),
            vocab_size=7,
            crops=2,
            classes=["ant", "bee", "cat"] if labelled else None,
        )
        writer.write(0, torch.stack((tokens, tokens.flip(1)), 1).numpy(), np.ones((count, 2), np.int32))
        return writer.finish()

    return make


def test_a_run_leaves_a_model_that_load_opens(tmp_path, store, tokenizer):
    tokens = store()
    made = run_pretraining(RECIPE, tokens, tokenizer, tmp_path / "run", validation=tokens, device="cpu")
    pipeline = load(made)
    assert pipeline.class_names == ["ant", "bee", "cat"]
    assert pipeline.generator.num_classes == 3
    history = pipeline.training_record["history"]
    assert [step for step, _ in history["train"]] == list(range(1, 13))
    assert history["kept_step"] in (4, 8, 12)
    assert weights.fingerprint(pipeline.tokenizer) == weights.fingerprint(tokenizer)
    assert len(pipeline.sample(["bee"], seed=0)) == 1
    before = weights.fingerprint(pipeline.generator)
    again = run_pretraining(RECIPE, tokens, tokenizer, tmp_path / "run", validation=tokens, device="cpu")
    assert weights.fingerprint(load(again).generator) == before


def test_without_labels(tmp_path, store, tokenizer):
    recipe = replace(RECIPE, labels=False)
    pipeline = load(run_pretraining(recipe, store(labelled=False), tokenizer, tmp_path / "run", device="cpu"))
    assert pipeline.generator.num_classes == 0
    with pytest.raises(ValueError, match=r"trains with labels and .* has none: set labels to false"):
        run_pretraining(RECIPE, store("other", labelled=False), tokenizer, tmp_path / "two", device="cpu")


def test_crops_agree_where_there_are_two(tmp_path, store, tokenizer):
    recipe = replace(RECIPE, agreement=AgreementConfig(weight=0.5, width=8, dim=4))
    tokens = store()
    pipeline = load(run_pretraining(recipe, tokens, tokenizer, tmp_path / "run", validation=tokens, device="cpu"))
    assert pipeline.training_record["recipe"]["agreement"]["weight"] == 0.5
    plain = load(run_pretraining(RECIPE, tokens, tokenizer, tmp_path / "plain", validation=tokens, device="cpu"))
    assert set(plain.generator.state_dict()) == set(pipeline.generator.state_dict())
    assert weights.fingerprint(plain.generator) != weights.fingerprint(pipeline.generator)
    raster = replace(recipe, model="llamagen")
    with pytest.raises(ValueError, match="context 'after' is none of LlamaGen's"):
        run_pretraining(raster, tokens, tokenizer, tmp_path / "raster", device="cpu")
    with pytest.raises(ValueError, match="control are trained one after the other"):
        replace(recipe, control=ControlConfig("edges"))


def test_it_starts_from_given_weights(tmp_path, store, tokenizer):
    tokens = store()
    first = load(run_pretraining(RECIPE, tokens, tokenizer, tmp_path / "run", device="cpu")).generator
    still = replace(RECIPE, training=replace(TRAINING, learning_rate=0.0))
    second = load(run_pretraining(still, tokens, tokenizer, tmp_path / "two", init=first, device="cpu")).generator
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    deeper = replace(RECIPE, size=ModelConfig(16, 3, 2, ffn_dim=24))
    with pytest.raises(ValueError, match="the model to start from has depth 2, not 3, as recipe and tokens require"):
        run_pretraining(deeper, tokens, tokenizer, tmp_path / "three", init=first, device="cpu")


def test_what_does_not_fit_together_is_refused(tmp_path, store, tokenizer):
    with pytest.raises(ValueError, match="were made by another tokenizer"):
        run_pretraining(RECIPE, store(fingerprint="0" * 64), tokenizer, tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()
    run_pretraining(RECIPE, store("first"), tokenizer, tmp_path / "run", device="cpu")
    with pytest.raises(ValueError, match=r"holds a run with settings\.tokens.*: choose another directory"):
        run_pretraining(RECIPE, store("second", 25), tokenizer, tmp_path / "run", device="cpu")


def test_a_recipe_says_how_the_machine_is_used(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "model: arpg\nlabels: false\nsize: {embed_dim: 16, depth: 1, num_heads: 2}\n"
        "training: {schedule: linear-end, decay_steps: 20}\nrunning: {precision: bfloat16, micro_batch: 4}\n"
    )
    recipe = read_recipe(path)
    assert recipe.running == RuntimeConfig(precision="bfloat16", micro_batch=4)
    assert (recipe.training.schedule, recipe.training.decay_steps) == ("linear-end", 20)
    assert read_recipe("digits_arpg").running == RuntimeConfig()
    path.write_text(path.read_text().replace("bfloat16", "half"))
    with pytest.raises(ValueError, match="precision"):
        read_recipe(path)
    path.write_text(
        path.read_text().replace("half", "float32").replace("decay_steps: 20", "decay_steps: 20, warmup: -1")
    )
    with pytest.raises(ValueError, match="warmup must be 0 or more, got -1"):
        read_recipe(path)
