import shutil

import pytest
import tiny
import torch
from torch import nn

from randfeat.inference.readout import FeatureSpec, read
from randfeat.models import packed


@pytest.fixture(params=tiny.VARIANTS, ids=lambda variant: "-".join(map(str, variant)))
def model(request):
    name, config = request.param
    return tiny.model(name, dropout=0.5, **config)


def logits_of_two_steps(model, seeds=(0, 1)):
    order = tiny.batch(model, len(seeds))[2]
    state = model.start(torch.arange(len(seeds)))
    first = model.step(state, None, order[:, :1])
    return torch.cat((first, model.step(state, first.argmax(-1), order[:, 1:2])), 1)


@torch.no_grad()
def test_an_inference_copy_is_the_same_function(model):
    copy = packed.inference_copy(model)
    tokens, label, order = tiny.batch(model)
    torch.testing.assert_close(copy(tokens, label, order), model(tokens, label, order), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(logits_of_two_steps(copy), logits_of_two_steps(model), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_an_inference_copy_in_half_precision_is_as_near_as_the_model(model):
    exact = logits_of_two_steps(model)
    half = model.bfloat16()
    error = (logits_of_two_steps(packed.inference_copy(half)).float() - exact).abs().mean()
    assert error <= 1.5 * (logits_of_two_steps(half).float() - exact).abs().mean() + 1e-3


def states_of(network, build_from, images=3):
    tokens, label, order = tiny.batch(build_from, images)
    return torch.cat(network.hidden(tokens, label, order, [2, 1], "causal", build_from.streams[-1]))


@torch.no_grad()
def test_an_inference_copy_reads_what_the_model_reads(model):
    expected = states_of(model.eval(), model)
    torch.testing.assert_close(states_of(packed.inference_copy(model), model), expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_under_autocast_an_inference_copy_is_as_near_as_the_model(model):
    exact, before = states_of(model.eval(), model), packed.inference_copy(model)
    with torch.autocast("cpu", torch.bfloat16):
        plain = (states_of(model, model) - exact).abs().mean()
        for copy in (before, packed.inference_copy(model)):  # prepacked before autocast, and plain inside
            assert (states_of(copy, model) - exact).abs().mean() <= 1.5 * plain
    assert 0 < plain < 0.1 * exact.abs().mean()
    torch.testing.assert_close(states_of(before, model), exact, rtol=1e-5, atol=1e-5)


def test_features_read_under_autocast_are_single_precision(model):
    tokens, spec = tiny.batch(model)[0], FeatureSpec(layers=(2,))
    with torch.autocast("cpu", torch.bfloat16):
        (feature,) = read(packed.inference_copy(model), tokens, [spec])
    assert feature.dtype == torch.float32


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="torch's compiler needs one of C++")
@torch.no_grad()
def test_a_compiled_copy_reads_the_same_and_is_compiled_for_all_batches():
    from torch._dynamo.utils import counters

    model, graphs = tiny.model("randar"), []
    compiled = packed.compiled_copy(model.train())
    for images in (3, 5, 2, 7, 4):
        torch.testing.assert_close(
            states_of(compiled, model, images), states_of(model.eval(), model, images), rtol=1e-5, atol=2e-5
        )
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[0] > 0
    assert len(set(graphs[1:])) == 1  # the second size makes the general one


@torch.no_grad()
def test_without_onednn_it_computes_the_very_same(model, monkeypatch):
    monkeypatch.setattr(packed, "can_prepack", lambda _: False)
    assert torch.equal(logits_of_two_steps(packed.inference_copy(model)), logits_of_two_steps(model))


def test_an_inference_copy_leaves_the_model_alone(model):
    model.train()
    modules, state = list(model.modules()), {name: value.clone() for name, value in model.state_dict().items()}
    copy = packed.inference_copy(model)
    assert not copy.training
    assert model.training
    assert all(module.training for module in model.modules())
    assert list(map(id, model.modules())) == list(map(id, modules))
    assert copy.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(mine is theirs for mine, theirs in zip(copy.parameters(), model.parameters(), strict=True))


@torch.no_grad()
def test_dropout_is_off_in_a_copy_of_a_model_in_training(model):
    expected = logits_of_two_steps(packed.inference_copy(model.eval()))
    assert torch.equal(logits_of_two_steps(packed.inference_copy(model.train())), expected)


@torch.no_grad()
def test_it_is_made_anew_after_a_training_step(model):
    before = logits_of_two_steps(packed.inference_copy(model))
    for parameter in model.parameters():
        parameter.data.mul_(1.5)
    assert not torch.allclose(logits_of_two_steps(packed.inference_copy(model)), before)


def test_modes_of_an_inference_copy_are_its_own(model):
    copy = packed.inference_copy(model.train())
    with copy.evaluating():
        assert all(module.training for module in model.modules())
    copy.train()
    copy.eval()
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_signature_changes_with_the_weights(model, dtype):
    model = model.to(dtype)
    before = packed.signature(model)
    assert packed.signature(model) == before
    model(*tiny.batch(model)).float().sum().backward()
    assert packed.signature(model) == before
    for number, parameter in enumerate(model.parameters()):
        whole = parameter.detach().clone()
        with torch.no_grad():
            parameter.view(-1)[-1] += 1
        assert packed.signature(model) != before, number
        before = packed.signature(model)
        parameter.data.view(-1)[-1] += 1  # behind torch's back
        assert packed.signature(model) != before, number
        for moved in (parameter.flip(0), parameter.roll(1, -1)):
            if not torch.equal(moved, parameter):
                before = packed.signature(model)
                parameter.data.copy_(moved.detach())
                assert packed.signature(model) != before, number
        parameter.data = whole
        before = packed.signature(model)


def test_a_signature_takes_any_tensors():
    with torch.inference_mode():
        made_without_counters = nn.Linear(3, 5)
    buffer = torch.arange(22.0)
    views = nn.Linear(3, 7, bias=False)
    views.weight.data = buffer[1:].view(7, 3)  # not where 64-bit words begin
    views.weight.data[0, 0] = torch.nan
    for network in (made_without_counters, views, nn.Linear(3, 5).bfloat16()):
        before = packed.signature(network)
        assert packed.signature(network) == before
        with torch.inference_mode():
            network.weight[-1, -1] += 1
        assert packed.signature(network)[1][2:] != before[1][2:]  # the sums of the weight


def test_a_copy_of_a_copy_is_itself(model):
    copy = packed.inference_copy(model)
    assert packed.inference_copy(copy) is copy


@torch.no_grad()
def test_layers_that_are_not_ours_work_as_they_are():
    network = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Dropout(0.9)).train()
    x = torch.rand(3, 4)
    copy = packed.inference_copy(network)
    assert torch.equal(copy(x), copy(x))  # dropout is off
    assert torch.equal(copy(x), network.eval()(x))


@torch.no_grad()
def test_what_was_added_to_a_model_runs(model):
    plain, seen = logits_of_two_steps(packed.inference_copy(model)), []
    hook = model.blocks[0].register_forward_hook(lambda *_: seen.append("block"))
    assert torch.allclose(logits_of_two_steps(packed.inference_copy(model)), plain, atol=1e-5)
    assert seen == ["block"] * 2
    hook.remove()
    nn.utils.parametrizations.weight_norm(model.head)
    model.train()
    assert torch.allclose(logits_of_two_steps(packed.inference_copy(model)), plain, atol=1e-5)
    model.head = nn.Sequential(model.head, nn.Dropout(0.9))
    assert torch.allclose(logits_of_two_steps(packed.inference_copy(model)), plain, atol=1e-5)
    assert model.head.training
