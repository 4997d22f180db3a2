"""Training with conditions."""

from dataclasses import replace

import pytest
import tiny
import torch
from material import data
from randfeat.pretrain import (
    ControlConfig,
    ControlObjective,
    ModelConfig,
    Objective,
    PretrainConfig,
    RuntimeConfig,
    TrainingConfig,
    run_pretraining,
    train,
)

from randfeat import load, weights
from randfeat.data import conditions
from randfeat.data.token_store import TokenWriter
from randfeat.models import create, name_of
from randfeat.tokenizers import PatchTokenizer

TRAINING = TrainingConfig(steps=12, batch_size=8, learning_rate=0.01, warmup=2, eval_every=4)
STEERING = ControlConfig("edges", width=8, depth=1)
RECIPE = PretrainConfig(
    "randar", True, ModelConfig(16, 2, 2, ffn_dim=24, dropout=0.1), TRAINING, RuntimeConfig(save_every=5)
)


@pytest.fixture(scope="module")
def tokenizer():
    return PatchTokenizer.fit(torch.rand(50, 1, 4, 6, generator=torch.Generator().manual_seed(0)), 7, 2)


def make_store(directory, tokenizer, tokens, names=None):
    (_, labels), fingerprint = data(len(tokens)), weights.fingerprint(tokenizer)
    paths = names or [f"{i}.png" for i in range(len(tokens))]
    of = dict(tokenizer=fingerprint, grid=(2, 3), vocab_size=7)
    writer = TokenWriter(directory, paths, labels.tolist(), **of, classes=["ant", "bee", "cat"])
    writer.write(0, tokens[:, None].numpy(), torch.ones(len(tokens), 2, dtype=torch.int32).numpy())
    return writer.finish()


@pytest.fixture
def store(tmp_path, tokenizer):
    return make_store(tmp_path / "tokens", tokenizer, data(20)[0])


def pixels(tokenizer, grid=(2, 3)):
    return lambda tokens: tokenizer.decode(tokens.unflatten(1, grid))


@pytest.mark.parametrize("name", ["arpg", "randar"])
def test_the_loss_is_that_of_the_steered_forward(name, tokenizer):
    model = tiny.model(name, control=tiny.CONTROL)
    tokens, labels, order = tiny.batch(model, 6)
    objective = ControlObjective(model, False, pixels(tokenizer), dropout=0.5)
    images = conditions.make(pixels(tokenizer)(tokens), "edges")
    assert images.any()
    with torch.no_grad():
        logits = model(tokens, labels, order, model.control(images)).log_softmax(-1)
        plain = Objective(model)(tokens, labels, order)[1]
        losses = objective(tokens, labels, order)[1]
        torch.testing.assert_close(losses, -logits.gather(-1, tokens.gather(1, order)[..., None])[..., 0])
        model.train()  # in which conditions are dropped
        torch.manual_seed(1)
        dropped = objective(tokens, labels, order)[1]
        again = {True: losses, False: plain}
        chosen = [torch.allclose(dropped[i], losses[i]) for i in range(6)]
        assert 0 < sum(chosen) < 6
        assert all(torch.allclose(dropped[i], again[kept][i]) for i, kept in enumerate(chosen))
        for dropout, expected in ((0.0, losses), (1.0, plain)):
            torch.testing.assert_close(
                ControlObjective(model, False, pixels(tokenizer), dropout)(tokens, labels, order)[1], expected
            )


def test_it_computes_in_bfloat16_and_sees_the_same_edges(tokenizer):
    model = tiny.model("randar", control=tiny.CONTROL)
    batch = tiny.batch(model, 6)
    with torch.no_grad():
        exact, coarse = (ControlObjective(model, half, pixels(tokenizer), 0.0)(*batch)[1] for half in (False, True))
    torch.testing.assert_close(coarse, exact, atol=0.1, rtol=0.05)


@pytest.mark.parametrize("alone", [True, False])
def test_a_run_adds_control_to_a_model(tmp_path, store, tokenizer, alone):
    first = load(run_pretraining(RECIPE, store, tokenizer, tmp_path / "plain", device="cpu")).generator
    recipe = replace(RECIPE, control=replace(STEERING, alone=alone))
    made = run_pretraining(recipe, store, tokenizer, tmp_path / "run", init=first, held_out=0.2, device="cpu")
    model = load(made).generator
    assert model.config["control"] == {"kind": "edges", "patch": 2, "channels": 1, "width": 8, "depth": 1}
    assert model.control.proj.weight.any()
    state = model.state_dict()
    kept = [torch.equal(state[name], value) for name, value in first.state_dict().items()]
    assert all(kept) if alone else not any(kept)
    assert all(parameter.requires_grad for parameter in model.parameters())
    again = run_pretraining(recipe, store, tokenizer, tmp_path / "run", init=first, held_out=0.2, device="cpu")
    assert weights.fingerprint(load(again).generator) == weights.fingerprint(model)
    on = run_pretraining(
        recipe, store, tokenizer, tmp_path / "on", init=model, device="cpu"
    )  # which has control already
    assert load(on).generator.config == model.config
    other = replace(recipe, control=replace(STEERING, kind="mask"))
    with pytest.raises(ValueError, match=r"the model to start from has control\.kind edges, not mask"):
        run_pretraining(other, store, tokenizer, tmp_path / "other", init=model, device="cpu")
    with pytest.raises(ValueError, match="the model to start from has control"):
        run_pretraining(RECIPE, store, tokenizer, tmp_path / "other", init=model, device="cpu")


def test_control_starts_where_the_model_was(tmp_path, store, tokenizer):
    first = load(run_pretraining(RECIPE, store, tokenizer, tmp_path / "plain", device="cpu")).generator
    still = replace(RECIPE, control=STEERING, training=replace(TRAINING, learning_rate=0.0))
    model = load(run_pretraining(still, store, tokenizer, tmp_path / "run", init=first, device="cpu")).generator
    batch = tiny.batch(model)
    condition = model.control(torch.rand(3, 1, 4, 6))
    assert torch.equal(model(*batch, condition), first(*batch))


def test_a_stopped_run_goes_on_with_the_same_conditions(tmp_path, tokenizer):
    """Dropped conditions are a function of the step."""
    tokens, labels = data(20)

    def trained(steps_first):
        torch.manual_seed(0)
        made = tiny.model("arpg", control=tiny.CONTROL)
        model = create(name_of(made), **made.config)
        model.load_state_dict(made.state_dict())

        def objective(model, half):
            return ControlObjective(model, half, pixels(tokenizer), 0.5)

        class Enough(Exception):
            pass

        def stop(step):
            if step.step == steps_first:
                raise Enough

        how = dict(objective=objective, directory=tmp_path / str(steps_first))
        arguments = model, tokens, labels, None, TRAINING, RuntimeConfig(save_every=2)
        if steps_first:
            with pytest.raises(Enough):
                train(*arguments, **how, on_step=stop)
            model.load_state_dict(made.state_dict())
        train(*arguments, **how)
        return weights.fingerprint(model)

    assert trained(0) == trained(7)


def test_an_adapter_learns_what_a_condition_says(tokenizer):
    """Tokens that nobody could guess, but that their picture shows."""
    tokens = torch.randint(7, (64, 6))
    made = create("arpg", grid=(2, 3), vocab_size=7, num_classes=0, embed_dim=16, depth=2, num_heads=2, ffn_dim=24)
    made.add_control(kind="image", patch=2, width=16, depth=1)
    how = TrainingConfig(steps=150, batch_size=64, learning_rate=0.01, warmup=5)

    def nats(objective):
        with torch.no_grad(), made.evaluating():
            order = torch.arange(6).expand(64, -1)
            return float(objective(tokens, None, order)[0]) / tokens.numel()

    def steered(model, half):
        return ControlObjective(model, half, pixels(tokenizer), 0.1)

    train(made, tokens, None, None, how, objective=steered)
    assert nats(steered(made, False)) < 0.5 * nats(Objective(made))


def test_paired_pictures_say_what_the_images_do_not(tmp_path, tokenizer):
    """The images are noise, but each picture of a pair is its image with other tokens for the same."""
    tokens = torch.randint(7, (60, 6))
    store = make_store(tmp_path / "tokens", tokenizer, tokens)
    paired = make_store(tmp_path / "pairs", tokenizer, (tokens + 3) % 7)
    control = ControlConfig("image", width=16, depth=1, dropout=0.1)
    size, training = (
        ModelConfig(16, 2, 2, ffn_dim=24),
        TrainingConfig(80, 60, learning_rate=0.02, warmup=5, eval_every=40),
    )
    recipe = PretrainConfig("arpg", False, size, training, control=control)
    made = load(run_pretraining(recipe, store, tokenizer, tmp_path / "run", held_out=0.2, paired=paired, device="cpu"))
    assert made.training_record["history"]["validation"][-1][1] < 1.2  # of 1.95
    model, order = made.generator, torch.arange(6).expand(60, -1)
    depths = tokenizer.decode(((tokens + 3) % 7).unflatten(1, (2, 3)))
    with torch.no_grad():
        logits = model(tokens, None, order, model.control(depths))
    assert (logits.argmax(-1) == tokens).float().mean() > 0.5
    assert made.conditions(depths).equal(depths)
    misnamed = make_store(tmp_path / "misnamed", tokenizer, tokens, [f"{59 - i}.png" for i in range(60)])
    with pytest.raises(ValueError, match="do not hold pairs of one name: 0 differs"):
        run_pretraining(recipe, store, tokenizer, tmp_path / "other", paired=misnamed, device="cpu")
    fewer = make_store(tmp_path / "fewer", tokenizer, tokens[:50])
    with pytest.raises(ValueError, match="do not hold pairs of one name"):
        run_pretraining(recipe, store, tokenizer, tmp_path / "other", paired=fewer, device="cpu")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(kind="canny"), "unknown kind of condition 'canny', expected one of edges"),
        (dict(kind="edges", dropout=2), "dropout must be from 0 to 1, got 2"),
    ],
)
def test_impossible_steering_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        ControlConfig(**wrong)


def test_what_cannot_be_steered_is_refused(tmp_path, store, tokenizer):
    recipe = replace(RECIPE, control=replace(STEERING, alone=True))
    with pytest.raises(ValueError, match=r"control\.alone trains the adapter of a trained generator: give one"):
        run_pretraining(recipe, store, tokenizer, tmp_path / "run", device="cpu")
    with pytest.raises(ValueError, match="the generator has no control to train"):
        ControlObjective(tiny.model("arpg"), False, pixels(tokenizer), 0.1)(*tiny.batch(tiny.model("arpg")))
    given = replace(RECIPE, control=replace(STEERING, kind="image"))
    with pytest.raises(ValueError, match="a condition of kind image is not made of images: give paired pictures"):
        run_pretraining(given, store, tokenizer, tmp_path / "run", device="cpu")
    with pytest.raises(ValueError, match="paired pictures are for control, which this recipe has not"):
        run_pretraining(RECIPE, store, tokenizer, tmp_path / "run", paired=store, device="cpu")
    with pytest.raises(ValueError, match=r"hold out a share of these .--held-out., no other tokens"):
        run_pretraining(given, store, tokenizer, tmp_path / "run", paired=store, validation=store, device="cpu")
    with pytest.raises(ValueError, match="LlamaGen asks for no position"):
        run_pretraining(
            replace(RECIPE, model="llamagen", control=STEERING), store, tokenizer, tmp_path / "run", device="cpu"
        )
