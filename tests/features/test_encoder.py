import json
import pickle
from functools import partial

import numpy as np
import pytest
import timm
import tiny
import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config

from randfeat import FeatureSpec, Pipeline, load
from randfeat.data.decode import UnreadableImage
from randfeat.data.images import CentreCrop
from randfeat.features.opening import open_encoder
from randfeat.features.timm_encoder import TimmSpec
from randfeat.inference import readout
from randfeat.inference.readout import sub_patch_shifts
from randfeat.models import MODELS
from randfeat.tokenizers import PatchTokenizer
from randfeat.weights import hub

SPECS = ["raster/causal/token/L-1/mean/mean", "bidirectional/causal/query/L1,L2/none/concat"]


def picture(seed, size=(31, 22), mode="RGB"):
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(noise).convert(mode)


PICTURES = [picture(0), picture(1, (8, 60)), picture(2, mode="L"), picture(3, mode="RGBA")]


def pipeline(name="randar", channels=3):
    fitted_to = torch.rand(6, channels, 4, 6, generator=torch.Generator().manual_seed(1))
    return Pipeline(PatchTokenizer.fit(fitted_to, 7, 2), tiny.model(name, (2, 3)))


def stacked(encoder, pictures=PICTURES):
    """Path of a loader with workers: `prepare` goes through a pickle, what it makes is stacked."""
    prepare = pickle.loads(pickle.dumps(encoder.prepare))
    assert len(pickle.dumps(encoder.prepare)) < 10_000  # no weights
    return torch.from_numpy(np.stack([prepare(picture) for picture in pictures]))


# ours --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_features_are_those_of_the_pipeline(channels):
    own = pipeline(channels=channels)
    encoder = open_encoder(own, SPECS)
    assert encoder.specs == ("raster/causal/token/L2/mean/mean", "raster+reversed/causal/query/L1,L2/none/concat")
    assert encoder.name == "randar"
    batch = stacked(encoder)
    assert (batch.shape, batch.dtype) == ((4, 4, 6, channels), torch.uint8)
    arrays = encoder.encode(batch)
    assert [array.shape for array in arrays] == [(4, 16), (4, 64, 2, 3)]
    for array, spec in zip(arrays, SPECS, strict=True):
        assert array.dtype == np.float32
        np.testing.assert_allclose(array, own.features(PICTURES, spec), rtol=1e-5, atol=1e-5)
    for array, same in zip(arrays, encoder.features(PICTURES), strict=True):
        np.testing.assert_array_equal(array, same)
    for array, same in zip(arrays, encoder.encode_tokens(own.encode(PICTURES)), strict=True):
        np.testing.assert_array_equal(array, same)


@pytest.mark.parametrize("name", MODELS)
def test_the_default_is_the_models_own(name):
    model = pipeline(name)
    own = str(FeatureSpec.parse(model.generator.default_spec).resolved(2))
    assert open_encoder(model).specs == (own,)
    np.testing.assert_array_equal(model.features(PICTURES), model.features(PICTURES, own))


def test_all_specs_share_the_tokenizer_and_one_call(monkeypatch):
    encoder, calls = open_encoder(pipeline(), [*SPECS, SPECS[0]]), []
    batch = stacked(encoder)
    tokenize, read = encoder.pipeline.tokenizer.encode, readout.read
    monkeypatch.setattr(encoder.pipeline.tokenizer, "encode", lambda x: calls.append("tokenizer") or tokenize(x))
    monkeypatch.setattr(readout, "read", lambda *args, **how: calls.append("read") or read(*args, **how))
    assert len(encoder.encode(batch)) == 3
    assert calls == ["tokenizer", "read"]


def test_a_path_is_opened(tmp_path):
    own = pipeline()
    own.save(tmp_path / "model")
    encoder = open_encoder(str(tmp_path / "model"), dtype=torch.bfloat16)
    assert encoder.name == str(tmp_path / "model")
    assert encoder.pipeline.generator.dtype == torch.bfloat16
    assert encoder.pipeline.tokenizer.codebook.dtype == torch.float32
    assert encoder.record()["dtype"] == "bfloat16"
    assert encoder.encode(stacked(encoder))[0].dtype == np.float32
    with pytest.raises(ValueError, match="leave them out"):
        open_encoder(str(tmp_path / "model"), num_heads=2)


def test_the_record_is_what_decides_the_numbers(tmp_path):
    own = pipeline()
    own.save(tmp_path / "a")
    own.save(tmp_path / "b")
    record = open_encoder(own, SPECS).record()
    assert json.loads(json.dumps(record)) == record
    assert open_encoder(str(tmp_path / "a"), SPECS).record() == record  # a copy elsewhere is the same
    assert open_encoder(str(tmp_path / "b"), SPECS).record() == record
    assert str(tmp_path) not in json.dumps(record)
    assert record["generator"]["name"] == "randar"
    assert record["preprocessing"] == str(CentreCrop((4, 6), 3))

    def differs(other, *names):
        assert {name for name in record if record[name] != other[name]} == {*names}

    differs(open_encoder(own, SPECS[:1]).record(), "specs")
    differs(open_encoder(load(tmp_path / "a", dtype=torch.float64), SPECS).record(), "dtype", "weights")
    own.tokenizer.codebook[0] += 1
    differs(open_encoder(own, SPECS).record(), "weights")


def test_what_a_model_cannot_do_is_refused_at_once():
    for spec, message in (
        ("raster/causal/token/L3/mean/mean", "layers are numbered 1 to 2"),
        ("raster/causal/token/L1/grid3/mean", "pool grid3 asks for more cells"),
        ("L1/mean", "has 2 parts, expected orders/context"),
    ):
        with pytest.raises(ValueError, match=message):
            open_encoder(pipeline(), [spec])
    with pytest.raises(ValueError, match="order 'random' is none of LlamaGen's"):
        open_encoder(pipeline("llamagen"), ["random/causal/token/L1/mean/mean"])


# timm's ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """timm's model of a name, and the file with its weights."""
    folder = tmp_path_factory.mktemp("timm")

    def make(name, **keywords):
        torch.manual_seed(0)
        model = timm.create_model(name, **keywords).eval()
        torch.save({"state_dict": model.state_dict(), "epoch": 3}, folder / f"{name}.pth")
        return model, f"timm:{name}@{folder / name}.pth"

    return make


@pytest.mark.parametrize("name", ["test_vit", "test_resnet", "test_convnext"])
def test_pictures_are_prepared_as_timm_does_it(saved, name):
    model, source = saved(name)
    encoder = open_encoder(source)
    transform = create_transform(**resolve_model_data_config(model), is_training=False)
    pixels = torch.stack([transform(picture.convert("RGB")) for picture in PICTURES[:3]])
    batch = stacked(encoder, PICTURES[:3])
    assert batch.dtype == torch.uint8  # a quarter of the bytes
    torch.testing.assert_close((batch.float() / 255 - encoder._mean) / encoder._std, pixels)
    with torch.no_grad():
        expected = model.forward_head(model.forward_features(pixels), pre_logits=True)
    assert encoder.specs == ("pooled",)
    np.testing.assert_allclose(encoder.encode(batch)[0], expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(encoder.features(PICTURES[:3])[0], encoder.encode(batch)[0])


def test_layers_are_those_of_forward_intermediates(saved):
    model, source = saved("test_vit")
    specs = ["pooled", "L1/mean", "L-1/cls", "L0.5/none", "L1,L3/grid2/concat", "L1,L2/max"]
    encoder = open_encoder(source, specs)
    depth = len(model.blocks)
    middle = round(depth / 2)
    layers = ["L1/mean", f"L{depth}/cls", f"L{middle}/none", "L1,L3/grid2/concat", "L1,L2/max/mean"]
    assert encoder.specs == ("pooled", *layers)
    batch = stacked(encoder)
    arrays = encoder.encode(batch)
    with torch.no_grad():
        pixels = (batch.float() / 255 - encoder._mean) / encoder._std
        final, states = model.forward_intermediates(pixels, return_prefix_tokens=True)
        pooled = model.forward_head(final, pre_logits=True)
    maps = [state for state, _ in states]
    grids = [torch.nn.functional.adaptive_avg_pool2d(maps[i], 2).flatten(1) for i in (0, 2)]
    expected = [
        pooled,
        maps[0].mean((2, 3)),
        states[-1][1][:, 0],
        maps[middle - 1],
        torch.cat(grids, 1),
        (maps[0].amax((2, 3)) + maps[1].amax((2, 3))) / 2,
    ]
    for array, right in zip(arrays, expected, strict=True):
        assert array.dtype == np.float32
        np.testing.assert_allclose(array, right, rtol=1e-5, atol=1e-5)
    for spec, array in zip(specs, arrays, strict=True):  # alone, a reading stops early
        np.testing.assert_allclose(open_encoder(source, [spec]).encode(batch)[0], array, rtol=1e-5, atol=1e-5)


def test_convolutional_networks_have_layers_too(saved):
    model, source = saved("test_resnet")
    encoder = open_encoder(source, ["L2/mean", "L1,L5/grid2/concat", "L-1/none"])
    with torch.no_grad():
        pixels = (stacked(encoder).float() / 255 - encoder._mean) / encoder._std
        states = model.forward_intermediates(pixels, intermediates_only=True)
    second, both, last = encoder.encode(stacked(encoder))
    np.testing.assert_allclose(second, states[1].mean((2, 3)), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(last, states[4], rtol=1e-5, atol=1e-5)
    assert both.shape == (4, 4 * (states[0].shape[1] + states[4].shape[1]))


def test_one_forward_pass_serves_all_specs(saved):
    _, source = saved("test_vit")
    encoder, passes = open_encoder(source, ["pooled", "L1/mean", "L2/cls", "L1/none"]), []
    encoder.model.patch_embed.register_forward_hook(lambda *_: passes.append(1))
    encoder.encode(stacked(encoder))
    assert passes == [1]


@pytest.mark.parametrize(("name", "stride"), [("test_vit", 16), ("test_resnet", 32)])
def test_shifts_are_places_within_a_patch_or_the_stride(saved, name, stride):
    _, source = saved(name)
    specs = ["pooled/shifts2", "L-1/grid2/shifts2", "pooled", "L-1/none/shifts2", "L-1/mean"]
    encoder = open_encoder(source, specs)
    assert open_encoder(source, encoder.specs).specs == encoder.specs
    batch = stacked(encoder)
    pooled, cells, still, fine, mean = encoder.encode(batch)
    alone = encoder.with_specs(["pooled", "L-1/grid2", "L-1/mean"])
    # an edge that is filled is the same before and after the normalisation
    places = sub_patch_shifts(batch.float(), stride, 2).to(torch.uint8).unbind(1)
    expected = [np.mean(at_each, 0) for at_each in zip(*map(alone.encode, places), strict=True)]
    for found, right in zip((pooled, cells, fine.mean((2, 3))), expected, strict=True):
        np.testing.assert_allclose(found, right, rtol=1e-4, atol=1e-5)
    assert np.abs(pooled - still).max() > 1e-3
    whole = encoder.with_specs(["L-1/none"]).encode(batch)[0]
    assert fine.shape == (4, whole.shape[1], 2 * whole.shape[2], 2 * whole.shape[3])
    np.testing.assert_allclose(mean, whole.mean((2, 3)), rtol=1e-5, atol=1e-5)
    assert encoder.record()["specs"] == [*encoder.specs]


@pytest.mark.parametrize(
    "text",
    [
        "pooled",
        "pooled/shifts2",
        "L6/mean/shifts3",
        "L1,L2/max/mean/shifts2",
        "L6/mean",
        "L-1/cls",
        "L0.25/none",
        "L6,L-2/grid2/concat",
        "L1,L2/max/mean",
    ],
)
def test_a_timm_spec_prints_what_it_parses(text):
    assert str(TimmSpec.parse(text)) == text
    assert TimmSpec.parse(TimmSpec.parse(text)) == TimmSpec.parse(f" {text}\n")


def test_a_timm_record_knows_no_path(saved, tmp_path):
    model, source = saved("test_vit")
    torch.save(model.state_dict(), tmp_path / "elsewhere.pth")
    record = open_encoder(source, ["L1/mean"]).record()
    assert json.loads(json.dumps(record)) == record
    assert open_encoder(f"timm:test_vit@{tmp_path / 'elsewhere.pth'}", ["L1/mean"]).record() == record
    assert record["model"] == "timm:test_vit"
    assert "crop_pct" in record["preprocessing"]
    assert str(tmp_path) not in json.dumps(record)
    half = open_encoder(source, ["L1/mean"], dtype=torch.bfloat16)
    assert half.record()["dtype"] == "bfloat16"
    assert half.encode(stacked(half))[0].dtype == np.float32


def test_published_weights_come_through_timm(saved, monkeypatch):
    model, source = saved("test_vit")
    monkeypatch.setattr("randfeat.utils.network.reachable", lambda address: True)
    monkeypatch.setattr(timm, "create_model", partial(_pretrained, timm.create_model, model))
    expected = open_encoder(source).features(PICTURES)[0]
    np.testing.assert_array_equal(open_encoder("timm:test_vit").features(PICTURES)[0], expected)


def _pretrained(create, model, name, pretrained, num_classes):
    """timm's function with weights that need no network."""
    made = create(name, num_classes=num_classes)
    made.load_state_dict(model.state_dict(), strict=False)
    return made


def test_without_a_network_one_sentence_says_so(monkeypatch):
    from huggingface_hub import errors

    def offline(*_, **__):
        raise errors.LocalEntryNotFoundError("Cannot find the requested files")

    monkeypatch.setattr("randfeat.utils.network.reachable", lambda address: True)
    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(ConnectionError, match=r"weight file of timm/test_vit.* the hub could not be reached") as error:
        open_encoder("timm:test_vit")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("source", "specs", "message"),
    [
        ("timm:test_vot", [], r"timm has no model 'test_vot': did you mean test_vit"),
        ("timm:zzzzzzzzzz", [], "lists its names"),
        ("timm:resnet10t@nowhere.pth", [], "there is no file nowhere.pth"),
        ("{vit}", ["L1/mean/shifts0"], "shifts are written shifts2, and counted from 1"),
        ("{vit}", ["pooled/shifts17"], "reads a picture every 16 pixels, so there are no more shifts"),
        ("{vit}", ["L1"], "spec 'L1' is none for a model of timm: expected pooled.*, or layers/pool"),
        ("{vit}", ["raster/causal/token/L0.5/mean/mean"], "is none for a model of timm"),
        ("{vit}", ["L1/last"], "pool 'last' is none of mean, max, cls, none, gridG"),
        ("{vit}", ["L1/mean/sum"], "merge 'sum' is none of mean, concat"),
        ("{vit}", ["L99/mean"], r"spec L99/mean: layers are numbered 1 to \d+"),
        ("{vit}", ["L0/mean"], r"spec L0/mean: layers are numbered 1 to \d+"),
        ("{vit}", ["L1/grid99"], "asks for more cells than a map of"),
        ("{resnet}", ["L1/cls"], "test_resnet has no class token"),
        ("{resnet}", ["L1,L5/mean"], "differ in width, so they can only be merged by concat"),
        ("{resnet}", ["L1,L5/none/concat"], "differ in size: give a spec for each"),
    ],
)
def test_what_timm_cannot_do_is_one_sentence(saved, source, specs, message):
    source = source.format(vit=saved("test_vit")[1], resnet=saved("test_resnet")[1])
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        open_encoder(source, specs)
    assert "\n" not in str(error.value)


def test_a_checkpoint_fits_or_is_refused(saved, tmp_path):
    model, source = saved("test_vit", num_classes=7)  # another classifier is no matter
    assert open_encoder(source).features(PICTURES)[0].shape == (4, model.num_features)
    state = model.state_dict()
    file = tmp_path / "model.pth"
    for change, message in (
        (lambda s: s.pop("blocks.0.norm1.weight"), r"does not fit test_vit: .*1 missing \(blocks.0.norm1.weight\)"),
        (lambda s: s.update(extra=torch.zeros(1)), r"does not fit test_vit: .*1 unexpected \(extra\)"),
        (lambda s: s.update({"norm.weight": torch.zeros(3)}), "does not fit test_vit: 1 weights have the wrong shape"),
    ):
        changed = dict(state)
        change(changed)
        torch.save(changed, file)
        with pytest.raises(ValueError, match=message):
            open_encoder(f"timm:test_vit@{file}")
    file.write_bytes(b"no checkpoint")
    with pytest.raises(ValueError, match="is no checkpoint of test_vit that timm can read") as error:
        open_encoder(f"timm:test_vit@{file}")
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="is a model of timm, which takes no grid: leave it out"):
        open_encoder(f"timm:test_vit@{file}", grid=(2, 2))


def test_images_of_many_kinds(saved, tmp_path):
    encoder = open_encoder(saved("test_vit")[1])
    PICTURES[0].save(tmp_path / "picture.png")
    array = np.array(PICTURES[0])
    kinds = [
        PICTURES[0],
        tmp_path / "picture.png",
        str(tmp_path / "picture.png"),
        array,
        torch.from_numpy(array).movedim(2, 0),
    ]
    (features_,) = encoder.features(kinds)
    assert (features_ == features_[0]).all()
    assert encoder.features([array[..., 0], array[..., :1]])[0].shape[0] == 2
    (tmp_path / "broken.png").write_bytes(b"")
    with pytest.raises(UnreadableImage, match=r"broken.png cannot be read as a picture: an empty file"):
        encoder.features([tmp_path / "broken.png"])
    with pytest.raises(ValueError, match=r"image values must lie in \[0, 1\] or be uint8"):
        encoder.features([array.astype(np.float32)])


def test_the_hub_explains_for_others_too():
    with pytest.raises(ConnectionError, match="could not be transferred"), hub.explained("timm/x", "the weight file"):
        raise OSError("no space left")


def test_a_model_of_timm_at_another_size(tmp_path):
    import timm

    from randfeat.features.timm_encoder import open_timm

    path = tmp_path / "vit.pth"
    torch.save(timm.create_model("test_vit", num_classes=0).state_dict(), path)
    made = open_encoder(f"timm:test_vit?img_size=96,crop_pct=0.5@{path}")
    usual = open_encoder(f"timm:test_vit@{path}")
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 300, 3)).astype(np.uint8))
    assert made.prepare(picture).shape == (3, 96, 96)
    assert usual.prepare(picture).shape == (3, 160, 160)
    assert "crop_pct 0.5" in made.record()["preprocessing"]
    assert made.features([picture])[0].shape == (1, 64)
    assert made.record()["weights"] != usual.record()["weights"]  # positions are another grid's
    fresh = open_timm("test_vit?img_size=96", [], "cpu", torch.float32, fresh=True)
    assert fresh.prepare(picture).shape == (3, 96, 96)
    for wrong in ("img_size=x", "img_size=0", "crop_pct=2", "nonsense=3"):
        with pytest.raises(ValueError, match=r"expected .img_size=PIXELS, .crop_pct=SHARE or both"):
            open_timm(f"test_vit?{wrong}", [], "cpu", torch.float32)
