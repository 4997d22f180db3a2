import pytest
import tiny
import torch

from randfeat import Pipeline, load, weights
from randfeat.tokenizers import PatchTokenizer


def test_official_names_and_back(build_official):
    model, other = build_official(), build_official(seed=1)
    official = weights.to_official(model)
    weights.load_strict(other, weights.from_official(other, official))
    assert all(torch.equal(a, b) for a, b in zip(other.parameters(), model.parameters(), strict=True))
    assert sum(x.numel() for x in official.values()) == sum(x.numel() for x in model.parameters())
    same = {name for name in set(official) & set(model.state_dict()) if not name.startswith("control.")}
    if model.rotary:  # LPD and RAR call most of their blocks as we do
        assert same <= {"norm.weight", "head.weight"}  # the others have other names
    else:
        assert not same & {"label_embedding.weight", "embedding.weight", "position_embedding"}


def test_gradients_can_have_official_names_too(build_official):
    model = build_official()
    zeros = {name: torch.zeros_like(value) for name, value in model.state_dict().items()}
    named = weights.to_official(model, zeros)
    assert {name: value.shape for name, value in named.items()} == {
        name: value.shape for name, value in weights.to_official(model).items()
    }
    assert not any(value.any() for value in named.values())


def test_a_model_of_no_official_code_has_no_official_names():
    with pytest.raises(ValueError, match="no official code has PositionedARPG"):
        weights.to_official(tiny.model("arpg_positioned"))


def test_a_type_on_disk_is_for_numbers_with_a_fraction():
    found = weights.converted({"weight": torch.tensor([0.1, 2.0]), "index": torch.tensor([70000])}, torch.float16)
    assert [one.dtype for one in found.values()] == [torch.float16, torch.int64]
    assert found["index"].item() == 70000
    with pytest.raises(ValueError, match="weight has values beyond"):
        weights.converted({"weight": torch.tensor([70000.0])}, torch.float16)


def test_weights_of_another_model_are_refused(build_official):
    model = build_official()
    official = weights.to_official(model)
    name = "norm.weight" if "norm.weight" in official else "cls_token"
    official["surplus"] = official.pop(name)
    message = rf"1 missing \({name}\), 1 unexpected \(surplus\)"
    with pytest.raises(ValueError, match=message):
        weights.from_official(model, official)
    state = dict(model.state_dict())
    state["surplus"] = state.pop(name)
    with pytest.raises(ValueError, match=message):
        weights.load_strict(model, state)
    with pytest.raises(ValueError, match=r"\d+ missing \(.*, .*, .*, \.\.\.\), 0 unexpected \(none\)"):
        weights.load_strict(model, {})


def test_weights_of_another_size_are_refused_and_none_is_loaded(build):
    model, other = build(), build(vocab_size=8, seed=1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"[23] weights have the wrong shape: .*head.weight: \(8, 16\) for \(7, 16\)"):
        weights.load_strict(model, other.state_dict())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_what_is_written_is_read(tmp_path):
    config = {"grid": [2, 3], "names": ["ä", "b"]}
    tensors = {"a": torch.rand(3, 2).T, "b": torch.rand(4).bfloat16(), "c": torch.tensor(float("nan"))}
    weights.write(tmp_path, config, tensors)
    read, state = weights.read(tmp_path)
    assert read == config
    assert state.keys() == tensors.keys()
    for name, value in tensors.items():
        torch.testing.assert_close(state[name], value, rtol=0, atol=0, equal_nan=True)


def test_damaged_directories_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"is no model directory: it has no config.json"):
        weights.read(tmp_path / "missing")
    weights.write(tmp_path, {}, {"a": torch.rand(100)})
    whole = (tmp_path / weights.WEIGHTS).read_bytes()
    for size in (0, 20, len(whole) - 1):
        (tmp_path / weights.WEIGHTS).write_bytes(whole[:size])
        with pytest.raises(ValueError, match="is damaged or cut short"):
            weights.read(tmp_path)
    (tmp_path / weights.CONFIG).write_text("{")
    with pytest.raises(ValueError, match="is not valid JSON"):
        weights.read(tmp_path)
    (tmp_path / weights.WEIGHTS).unlink()
    with pytest.raises(FileNotFoundError, match=r"it has no model.safetensors"):
        weights.read(tmp_path)


def test_only_what_save_writes_is_taken_for_a_model(tmp_path):
    weights.write(tmp_path, {"randfeat": "1", "generator": {}}, {"a": torch.rand(3)})
    assert weights.is_model(tmp_path)
    (tmp_path / "README.md").write_text("a card, a repository, somebody's own")
    assert not weights.is_model(tmp_path)
    (tmp_path / "README.md").unlink()
    weights.write(tmp_path, {"model_type": "bert"}, {"a": torch.rand(3)})
    assert not weights.is_model(tmp_path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_in_half_precision_are_opened_as_float32(dtype, build, tmp_path):
    made = Pipeline(PatchTokenizer(7, 2, 1), build())
    made.tokenizer.codebook.copy_(torch.rand(7, 4))
    made.save_pretrained(tmp_path / "half", dtype)
    on_disk = weights.read_safetensors(tmp_path / "half" / weights.WEIGHTS)
    assert {value.dtype for value in on_disk.values()} == {dtype}
    opened = load(tmp_path / "half")
    for name, value in made.generator.state_dict().items():
        assert torch.equal(opened.generator.state_dict()[name], value.to(dtype).float())
    assert torch.equal(opened.tokenizer.codebook, made.tokenizer.codebook)  # rounded codes choose other tokens
    assert made.generator.dtype == torch.float32


def test_weights_that_a_type_cannot_hold_are_not_written(build, tmp_path):
    made = Pipeline(PatchTokenizer(7, 2, 1), build())
    for dtype in ("float16", torch.int8):
        with pytest.raises(ValueError, match=r"weights cannot be written as .*: give a floating-point torch.dtype"):
            made.save(tmp_path / "made", dtype)
    with torch.no_grad():
        next(made.generator.parameters()).view(-1)[0] = 1e5
    with pytest.raises(ValueError, match=r"has values beyond torch.float16: write the weights in bfloat16 or float32"):
        made.save(tmp_path / "made", torch.float16)
    assert not (tmp_path / "made").exists()
