import pytest
import torch

from randfeat.utils import devices


def test_a_name_or_a_device_is_itself():
    assert devices.pick("cpu") == torch.device("cpu")
    assert devices.pick(torch.device("meta")) == torch.device("meta")


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_auto_takes_the_first_there(cuda, mps, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert devices.pick("auto") == torch.device(expected)


def test_each_process_has_its_own_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert devices.pick("auto") == devices.pick("cuda") == torch.device("cuda", 3)
    assert devices.pick("cuda:1") == torch.device("cuda", 1)


@pytest.mark.parametrize("name", ["mps", "cuda:1", "gpu", "tpu:0"])
def test_what_is_not_there_is_refused(name, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ValueError, match=f"there is no device '{name}' here: choose auto or one of cpu"):
        devices.pick(name)


def test_a_module_on_meta_has_shapes_and_no_values():
    before = torch.get_rng_state()
    with devices.meta():
        module = torch.nn.Sequential(torch.nn.Embedding(3, 4), torch.nn.Linear(4, 5))
        torch.nn.init.normal_(module[1].weight, std=0.02)
    assert {name: tuple(value.shape) for name, value in module.state_dict().items()} == {
        "0.weight": (3, 4),
        "1.weight": (5, 4),
        "1.bias": (5,),
    }
    assert all(value.is_meta and value.requires_grad for value in module.parameters())
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.nn.Linear(2, 2).weight.is_meta
