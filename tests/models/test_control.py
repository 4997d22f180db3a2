"""Control: what an adapter changes, and what it must leave as it was. The promises of every generator are kept by
controlled ones in the tests of those promises (see `tiny.steer`).
"""

import copy

import pytest
import tiny
import torch
from naive import read as naive_read

from randfeat import models
from randfeat.inference.editing import canvas
from randfeat.inference.sampling import UNKNOWN, Sampling, decode, sample
from randfeat.inference.schedules import Guidance
from randfeat.models import Control, base, orders, packed
from randfeat.utils import rng

NAMES = ["arpg", "randar"]
LABEL, SEEDS = torch.tensor([0, 2, 3]), torch.tensor([5, 6, 7])  # 3 is the null class


@pytest.fixture(params=NAMES)
def plain(request):
    return tiny.model(request.param, (2, 4))


@pytest.fixture(params=NAMES)
def controlled(request):
    return tiny.model(request.param, (2, 4), control=tiny.CONTROL)


def with_fresh_control(model):
    made = copy.deepcopy(model)
    made.add_control(**tiny.CONTROL)
    return made.train(model.training)


def condition_of(model, images=3, seed=0):
    return model.control(tiny.condition_image(model, images, seed)).detach()


def readings(model):
    return [(c, s) for c in model.contexts for s in model.streams if c not in base.ASKED_BEHIND or s == "query"]


def everything(model, tokens, label, order, context, stream, condition=None):
    return torch.stack(model.hidden(tokens, label, order, range(1, model.depth + 1), context, stream, condition))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_pretrained_generator_starts_unchanged(plain, dtype):
    plain.to(dtype)
    model, batch = with_fresh_control(plain), tiny.batch(plain)
    condition = condition_of(model)
    assert condition.dtype == dtype
    assert not condition.any()
    assert torch.equal(model(*batch, condition), plain(*batch))
    for context, stream in readings(plain):
        read = everything(model, *batch, context, stream, condition)
        assert torch.equal(read, everything(plain, *batch, context, stream))
    for how in (Sampling(), Sampling(3, sweeps=1, guidance=Guidance(2.0))):
        steered = decode(model, LABEL, SEEDS, how, condition=condition)
        for a, b in zip(steered, decode(plain, LABEL, SEEDS, how), strict=True):
            assert torch.equal(a.tokens, b.tokens)
            assert torch.equal(a.raw_logits, b.raw_logits)


def test_it_starts_unchanged_in_training_and_under_autocast(plain):
    plain = models.create(models.name_of(plain), **plain.config | {"dropout": 0.5})
    torch.nn.init.normal_(plain.head.weight)
    model, batch = with_fresh_control(plain).train(), tiny.batch(plain)
    for dtype in (torch.float32, torch.bfloat16):
        read = []
        for network, given in ((plain.train(), ()), (model, (condition_of(model),))):
            torch.manual_seed(1)
            with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
                read.append(network(*batch, *given))
        assert torch.equal(*read)


def test_an_adapter_that_is_not_used_changes_nothing(controlled):
    config = {name: value for name, value in controlled.config.items() if name != "control"}
    plain = models.create(models.name_of(controlled), **config).eval()
    plain.load_state_dict({k: v for k, v in controlled.state_dict().items() if not k.startswith("control.")})
    batch = tiny.batch(plain)
    assert torch.equal(controlled(*batch), plain(*batch))
    for context, stream in readings(plain):
        assert torch.equal(everything(controlled, *batch, context, stream), everything(plain, *batch, context, stream))
    assert torch.equal(*(sample(model, LABEL, SEEDS, Sampling(3)) for model in (controlled, plain)))


def test_zeros_are_no_condition(controlled):
    batch = tiny.batch(controlled)
    condition = condition_of(controlled)
    condition[1] = 0
    logits = controlled(*batch, condition)
    assert torch.equal(logits[1], controlled(*batch)[1])
    assert (logits[[0, 2]] != controlled(*batch)[[0, 2]]).any(-1).all()


def test_a_condition_reaches_what_asks_for_its_position(controlled):
    """And with RandAR, whose queries are read, what comes later; never what comes before, nor ARPG's first half."""
    tokens, label, order = tiny.batch(controlled)
    condition, places = condition_of(controlled), torch.arange(controlled.num_tokens)
    logits, is_randar = controlled(tokens, label, order, condition), models.name_of(controlled) == "randar"
    for j in range(controlled.num_tokens):
        other = condition.clone()
        other[torch.arange(3), order[:, j]] += 1
        changed = (controlled(tokens, label, order, other) != logits).any(-1)
        assert torch.equal(changed, (places >= j if is_randar else places == j).expand(3, -1))
    for context in ("causal", "echo", "full"):
        read = [everything(controlled, tokens, label, order, context, "token", c) for c in (None, condition)]
        assert torch.equal(*read) == (not is_randar)


@pytest.mark.parametrize("guidance", [Guidance(), Guidance(3.0, "linear", start=0.5)], ids=["plain", "guided"])
@pytest.mark.parametrize("steering", [Guidance(), Guidance(2.5), Guidance(0.0)], ids=["one", "more", "none"])
def test_steps_are_those_of_the_naive_reading(controlled, guidance, steering):
    """With a condition for each image, and with the class and the condition guided apart."""
    model, count = controlled, controlled.num_tokens
    condition, null = condition_of(model), torch.full_like(LABEL, model.num_classes)
    tokens, _, order = tiny.batch(model, seed=9)
    known = tokens.scatter(1, order[:, 3:], UNKNOWN)
    for within_step in model.within_step:
        how = Sampling(3, guidance=guidance, control_guidance=steering, within_step=within_step)
        steps = list(decode(model, LABEL, SEEDS, how, known=known, condition=condition))
        order = orders.known_first(orders.random(model.grid, rng.derive(SEEDS, 0)), known != UNKNOWN)
        tokens, number = orders.gather(steps[-1].tokens, order), [0] * 3
        for k, step in enumerate(steps, 1):
            done, size = len(number), step.positions.shape[1]
            assert len(step.raw_logits) == 3 * (1 + (not guidance.off) + (not steering.off))
            asked = order[:, done : done + size]
            both, classless, alone = (
                naive_read(
                    model, label, tokens[:, :done], order[:, :done], asked, within_step, number, condition=given
                ).logits
                for label, given in ((LABEL, condition), (null, condition), (LABEL, None))
            )
            expected = both + (guidance.at(done, size, count) - 1) * (both - classless)
            expected += (steering.at(done, size, count) - 1) * (both - alone)
            torch.testing.assert_close(step.logits.double(), expected, atol=1e-4, rtol=1e-4)
            number += [k] * size


def test_guidance_of_a_condition_is_off_without_one(controlled):
    how = Sampling(3, control_guidance=Guidance(4.0))
    assert torch.equal(sample(controlled, LABEL, SEEDS, how), sample(controlled, LABEL, SEEDS, Sampling(3)))


def test_a_seed_and_a_condition_fix_an_image_whatever_the_batch(controlled):
    condition, how = condition_of(controlled), Sampling(3, guidance=Guidance(2.0), control_guidance=Guidance(2.0))
    together = sample(controlled, LABEL, SEEDS, how, condition=condition)
    for i in range(3):
        row = slice(i, i + 1)
        assert torch.equal(sample(controlled, LABEL[row], SEEDS[row], how, condition=condition[row])[0], together[i])
    assert not torch.equal(together, sample(controlled, LABEL, SEEDS, how, condition=condition.flip(0)))


def test_known_tokens_stay_and_windows_are_steered_by_their_part(controlled):
    grid, patch, how = (3, 6), tiny.CONTROL["patch"], Sampling(2)
    tokens = torch.randint(controlled.vocab_size, (1, *grid))
    known = torch.zeros(grid, dtype=torch.bool)
    known[0] = True
    image = torch.rand(1, 1, grid[0] * patch, grid[1] * patch)
    rows, columns = canvas.windows(known.numpy(), controlled.grid, (1, 2))[0]
    above = slice(rows.start * patch, rows.stop * patch), slice(columns.start * patch, columns.stop * patch)
    other = torch.zeros_like(image)
    other[:, :, above[0], above[1]] = image[:, :, above[0], above[1]]
    first, alike, plain = (
        list(canvas.paint(controlled, tokens, known, LABEL[:1], SEEDS[:1], how, (1, 2), control))[-1]
        for control in (image, other, None)
    )
    assert torch.equal(first[:, known], tokens[:, known])
    assert torch.equal(first[:, rows, columns], alike[:, rows, columns])
    assert not torch.equal(first, alike)
    assert not torch.equal(first, plain)
    window, condition = tokens[:, rows, columns].flatten(1), controlled.control(image[:, :, above[0], above[1]])
    made = canvas.complete(
        controlled, window, known[rows, columns].flatten(), LABEL[:1], SEEDS[:1], how, condition.detach()
    )
    assert torch.equal(made, first[:, rows, columns].flatten(1))


# the adapter -------------------------------------------------------------------------------------------------


def test_patches_see_each_other_and_their_own_best():
    control = tiny.model("arpg", (2, 4), control=tiny.CONTROL).control
    image = torch.rand(1, 1, 4, 8)
    other = image.clone()
    other[:, :, 2:, 6:] = 1 - image[:, :, 2:, 6:]  # the last patch
    assert (control(image) != control(other)).any(-1).all()
    local = Control("edges", (2, 4), 16, patch=2, width=8, depth=0)
    torch.nn.init.normal_(local.proj.weight)
    assert (local(image) != local(other)).any(-1).tolist() == [[False] * 7 + [True]]
    assert local(torch.zeros(1, 1, 4, 8)).any()  # no edges are a condition, too


def test_fresh_control_leaves_the_generators_own_weights_as_they_were(plain):
    before = copy.deepcopy(plain.state_dict())
    torch.manual_seed(3)
    fresh = models.create(models.name_of(plain), **plain.config)
    torch.manual_seed(3)
    steered = models.create(models.name_of(plain), **plain.config, control=tiny.CONTROL)
    own = steered.state_dict()
    assert all(torch.equal(own[name], value) for name, value in fresh.state_dict().items())
    made = with_fresh_control(plain)
    assert all(torch.equal(made.state_dict()[name], value) for name, value in before.items())
    assert list(made.state_dict())[len(before)].startswith("control.")
    assert made.config == plain.config | {"control": tiny.CONTROL | {"channels": 1}}
    again = models.create(models.name_of(made), **made.config)
    again.load_state_dict(made.state_dict())


def test_a_twin_packs_the_adapter_too(controlled):
    condition, prepacked = condition_of(controlled), packed.inference_copy(controlled)
    torch.testing.assert_close(condition_of(prepacked), condition)
    batch = tiny.batch(controlled)
    torch.testing.assert_close(prepacked(*batch, condition), controlled(*batch, condition))


def test_gradients_reach_the_adapter(plain):
    model = with_fresh_control(plain)
    model(*tiny.batch(model), model.control(tiny.condition_image(model, 3))).square().sum().backward()
    assert model.control.proj.weight.grad.any()
    assert not model.control.embed.weight.grad.any()  # behind zeros, until those have moved


def test_what_cannot_be_is_refused(plain, controlled):
    name = type(plain).__name__
    condition = torch.zeros(3, 8, 16)
    batch = tiny.batch(plain)
    refusal = f"this {name} has no control that makes conditions: leave it out"
    with pytest.raises(ValueError, match=refusal):
        plain(*batch, condition)
    with pytest.raises(ValueError, match=refusal):
        plain.hidden(*batch, [1], condition=condition)
    with pytest.raises(ValueError, match=refusal):
        plain.start(LABEL, condition=condition)
    with pytest.raises(ValueError, match=r"a condition has the shape \(3, 8, 16\), got \(2, 8, 16\)"):
        controlled(*batch, condition[:2])
    with pytest.raises(ValueError, match=r"a condition is an image \(B, 1, 4, 8\), got \(3, 1, 8, 4\)"):
        controlled.control(torch.zeros(3, 1, 8, 4))
    with pytest.raises(ValueError, match="has control by edges already"):
        controlled.add_control(**tiny.CONTROL)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(patch=0), "patch of a control must be a whole number from 1, got 0"),
        (dict(channels=True), "channels of a control must be a whole number from 1, got True"),
        (dict(depth=-1), "depth of a control must be a whole number from 0, got -1"),
        (dict(width=6), "width of a control must be a multiple of 64, or of 4 and small, got 6"),
        (dict(width=130), "got 130"),
    ],
)
def test_impossible_adapters_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        tiny.model("arpg", control=tiny.CONTROL | wrong)


def test_a_raster_model_has_nothing_to_control():
    with pytest.raises(ValueError, match="LlamaGen asks for no position"):
        tiny.model("llamagen").add_control(**tiny.CONTROL)
    model = tiny.model("llamagen", (2, 4))
    with pytest.raises(ValueError, match="this LlamaGen has no control"):
        model(*tiny.batch(model), torch.zeros(3, 8, 16))
    with pytest.raises(ValueError, match="this LlamaGen has no control"):
        model.start(LABEL, condition=torch.zeros(3, 8, 16))
