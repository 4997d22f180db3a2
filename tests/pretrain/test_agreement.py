"""Agreement of two crops: its loss, its pairs, and runs with it."""

import math

import pytest
import tiny
import torch
import torch.nn.functional as F
from randfeat.pretrain import (
    AgreementConfig,
    AgreementObjective,
    Batches,
    Objective,
    RuntimeConfig,
    Stopped,
    TrainingConfig,
    train,
)
from randfeat.pretrain.agreement import nt_xent, projecting

from randfeat.models import orders

CONFIG = AgreementConfig(weight=0.5, width=8, dim=4)
HOW = TrainingConfig(steps=6, batch_size=6, learning_rate=1e-2, warmup=2, other_crops=None, eval_every=3)


def crops(model, images=12, count=3):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(model.vocab_size, (images, count, model.num_tokens), generator=generator)


def test_the_loss_tells_a_partner_from_all_others():
    first, second = torch.randn(2, 5, 3).unbind()
    vectors = [F.normalize(row, dim=0) for row in (*first, *second)]
    expected = []
    for i, own in enumerate(vectors):
        others = torch.stack([own @ other / 0.3 for j, other in enumerate(vectors) if j != i])
        partner = own @ vectors[(i + 5) % 10] / 0.3
        expected.append(others.logsumexp(0) - partner)
    torch.testing.assert_close(nt_xent(first, second, 0.3), torch.stack(expected).mean())


@pytest.mark.parametrize("name", ["arpg", "randar"])
def test_the_objective_adds_agreement_to_the_loss_of_the_tokens(name):
    model = tiny.model(name)
    tokens, label, order = tiny.batch(model, 5)
    other = tokens.flip(0)
    with projecting(model, CONFIG, 0):
        objective = AgreementObjective(model, False, CONFIG)
        alone, places = objective(tokens, label, order)
        both, same = objective(tokens, label, order, other)
        raster = orders.raster(model.grid).expand_as(tokens)
        states = model.hidden(torch.cat((tokens, other)), None, raster.repeat(2, 1), [model.depth], "after", "query")
        vectors = model.projector(states[0].mean(1))
        gradients = torch.autograd.grad(both, list(model.projector.parameters()))
    torch.testing.assert_close(alone, Objective(model)(tokens, label, order)[0])
    torch.testing.assert_close(places, same)
    torch.testing.assert_close(both - alone, 0.5 * tokens.numel() * nt_xent(*vectors.chunk(2), 0.2), rtol=1e-4, atol=0)
    assert any(slope.abs().max() > 0 for slope in gradients)


def test_an_image_is_paired_with_another_of_its_crops():
    model = tiny.model("arpg")
    tokens = crops(model, images=40)
    tokens[:] = torch.arange(tokens.shape[1]).view(1, -1, 1)  # a crop is told by its tokens
    batches = Batches(tokens, None, model, TrainingConfig(batch_size=40, other_crops=None), another_crop=True)
    pairs = set()
    for epoch in range(20):
        shown = batches.show(epoch, torch.arange(40))
        pairs |= set(zip(shown.tokens[:, 0].tolist(), shown.paired[:, 0].tolist(), strict=True))
    assert pairs == {(a, b) for a in range(3) for b in range(3) if a != b}
    for wrong in (tokens[:, 0], tokens[:, :1]):
        with pytest.raises(ValueError, match="agreement is between crops of an image"):
            Batches(wrong, None, model, TrainingConfig(), another_crop=True)


def test_training_brings_crops_together_and_leaves_no_projector():
    model = tiny.model("arpg")
    before = set(model.state_dict())
    images = torch.randint(model.vocab_size, (24, 1, model.num_tokens), generator=torch.Generator().manual_seed(1))
    tokens = images.repeat(1, 2, 1)
    tokens[:, 1, ::3] = 0  # the other crop has lost a third
    how = TrainingConfig(steps=40, batch_size=24, learning_rate=1e-2, warmup=5, other_crops=None)

    def agreement():
        raster = orders.raster(model.grid).expand(24, -1)
        pooled = [
            F.normalize(model.hidden(tokens[:, crop], None, raster, [model.depth], "after", "query")[0].mean(1), dim=-1)
            for crop in (0, 1)
        ]
        return ((pooled[0] @ pooled[1].T).argmax(1) == torch.arange(24)).float().mean().item()

    start = agreement()
    train(model, tokens, None, None, how, agreement=AgreementConfig(weight=1.0))
    assert set(model.state_dict()) == before
    assert agreement() > max(start, 0.9)


def test_a_run_with_agreement_goes_on_bit_for_bit(tmp_path):
    tokens = crops(tiny.model("arpg"))
    held = crops(tiny.model("arpg"), images=4)[:, 0], None

    def run(directory, stop_at=math.inf):
        model = tiny.model("arpg")

        def tick(step):
            if step.step == stop_at:
                raise KeyboardInterrupt

        runtime = RuntimeConfig(save_every=2)
        train(model, tokens, None, held, HOW, runtime, directory=directory, agreement=CONFIG, on_step=tick)
        return model.state_dict()

    with pytest.raises((KeyboardInterrupt, Stopped)):
        run(tmp_path / "stopped", 4)
    resumed, whole = run(tmp_path / "stopped"), run(tmp_path / "whole")
    for name, tensor in whole.items():
        assert torch.equal(tensor, resumed[name]), name
    with pytest.raises(ValueError, match="agreement"):
        train(tiny.model("arpg"), tokens, None, held, HOW, directory=tmp_path / "whole")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"weight": -1}, "weight must be 0"), ({"temperature": 0}, "temperature must be above 0"), ({"dim": 0}, "dim")],
)
def test_wrong_settings_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        AgreementConfig(**wrong)
