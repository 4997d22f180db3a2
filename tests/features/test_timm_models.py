import numpy as np
import pytest
import timm
import tiny
import torch
from PIL import Image
from timm.data import create_dataset, create_loader, resolve_model_data_config
from timm.models import FeatureInfo, group_parameters
from timm.optim import create_optimizer_v2
from timm.utils import ModelEmaV3, freeze, unfreeze
from torch import nn

from randfeat import FeatureSpec, Pipeline, timm_models, weights
from randfeat.models import SIZES, name_of
from randfeat.tokenizers import PatchTokenizer
from randfeat.weights import published

SIZE = (8, 12)
IMAGES = torch.rand(3, 3, *SIZE, generator=torch.Generator().manual_seed(0))
READINGS = [
    ("randar", {}),
    ("randar", dict(orders="bidirectional", stream="query", merge="concat")),
    ("randar", dict(orders="random:per-image", context="echo")),
    ("arpg", {}),
    ("arpg", dict(stream="query")),
    ("arpg", dict(orders="bidirectional", stream="query", context="after")),
    ("llamagen", {}),
    ("llamagen", dict(context="full")),
    ("lpd", {}),
    ("lpd", dict(stream="query", context="after")),
    ("rar", {}),
    ("rar", dict(orders="raster+random", context="full", merge="concat")),
]


def pipeline(name="randar", channels=3, **config):
    fitted_to = torch.rand(6, channels, *SIZE, generator=torch.Generator().manual_seed(1))
    return Pipeline(PatchTokenizer.fit(fitted_to, 7, 4), tiny.model(name, (2, 3), **({"depth": 4} | config)))


@pytest.fixture(params=READINGS, ids=lambda p: "-".join((p[0], *p[1].values())))
def model(request):
    name, keywords = request.param
    return timm_models.wrap(pipeline(name), num_classes=5, layer=3, **keywords).eval()


# names -------------------------------------------------------------------------------------------------------


def test_timm_lists_every_published_model():
    assert timm.list_models("randar*") == ["randar_l", "randar_xl"]
    listed = {*timm.list_models(module="timm_models", include_tags=True)}
    assert listed - {"randfeat"} == {*timm_models.ROWS}
    assert len(timm_models.ROWS) == len(published.MODELS)
    assert {"randar_l.maskgit_in1k", "arpg_xl.in1k", "llamagen_b.in1k_384"} <= listed
    assert timm.list_models("randfeat") == ["randfeat"]
    assert timm.list_pretrained("arpg*") == ["arpg_l.in1k", "arpg_xl.in1k", "arpg_xxl.in1k"]


@pytest.mark.parametrize("name", timm_models.ROWS)
def test_every_name_makes_the_model_that_was_published(name):
    row = timm_models.ROWS[name]
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=3, layer=-1)
    size = SIZES[row.size][1]
    assert (model.num_features, model.depth) == (size["embed_dim"], size["depth"])
    assert (model.generator.grid, model.tokenizer.vocab_size) == (row.grid, row.tokenizer.vocab_size)
    side = row.grid[0] * model.tokenizer.stride
    assert side == (int(name.rpartition("_")[2]) if name[-3:].isdigit() else 256)
    assert model.default_cfg["input_size"] == (3, side, side)
    assert (model.pretrained_cfg["hf_hub_id"], model.pretrained_cfg["hf_hub_filename"]) == (row.repository, row.file)
    assert model.get_classifier().weight.shape == (3, model.num_features)


def test_pretrained_weights_come_through_load(monkeypatch):
    asked, made = [], pipeline()
    monkeypatch.setattr(timm_models, "load", lambda name: asked.append(name) or made)
    keywords = dict(pretrained=True, num_classes=2, in_chans=3, img_size=SIZE)
    model = timm.create_model("randar_l.maskgit_in1k", **keywords)
    assert asked == ["randar-l-maskgit"]
    assert torch.equal(model.generator.blocks[0].attn.qkv.weight, made.generator.blocks[0].attn.qkv.weight)
    timm.create_model("randar_l", **keywords)
    assert asked[1:] == ["randar-l-llamagen"]  # the default
    with pytest.raises(ValueError, match="set HF_HOME instead of cache_dir"):
        timm.create_model("randar_l", cache_dir="elsewhere", **keywords)


def test_a_directory_of_ones_own_has_a_name(tmp_path):
    own = pipeline()
    own.save(tmp_path / "model")
    model = timm.create_model("randfeat", source=tmp_path / "model", num_classes=4)
    expected = timm_models.wrap(own, num_classes=4).eval()
    assert torch.equal(model.eval().forward_features(IMAGES), expected.forward_features(IMAGES))
    with pytest.raises(ValueError, match="say which model"):
        timm.create_model("randfeat")
    # what timm's training script saves is loaded as of any model
    torch.save({"state_dict": expected.state_dict()}, tmp_path / "tuned.pth")
    again = timm.create_model(
        "randfeat", source=tmp_path / "model", num_classes=4, checkpoint_path=tmp_path / "tuned.pth"
    )
    assert torch.equal(again.eval()(IMAGES), expected(IMAGES))


# reading -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "keywords"), READINGS)
def test_pooled_tokens_are_the_features_of_the_pipeline(name, keywords):
    own = pipeline(name)
    model = timm_models.wrap(own, layer=0.5, **keywords).eval()
    for pool, pooled in (("mean", "avg"), ("max", "max")):
        keyword = dict(layers=(0.5,), pool=pool) | keywords
        expected = own.features(IMAGES, FeatureSpec(**keyword))
        model.reset_classifier(0, pooled)
        with torch.no_grad():
            actual = model.forward_head(model.forward_features(IMAGES), pre_logits=True)
        # merging before the maximum is another number
        if pool == "mean" or len(model.spec.passes) == 1 or model.spec.merge == "concat":
            np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)
        assert torch.equal(model(IMAGES), actual)  # without a classifier


def test_intermediates_are_those_of_forward_features(model):
    """timm's own test of its models, and more: every intermediate has the numbers of a shallower reading."""
    info = FeatureInfo(model.feature_info, len(model.feature_info))
    final, intermediates = model.forward_intermediates(IMAGES)
    assert torch.equal(final, model.forward_features(IMAGES))
    assert final.shape == (3, 6, model.num_features)
    assert len(intermediates) == len(info) == model.depth == 3
    for width, stride, state in zip(info.channels(), info.reduction(), intermediates, strict=True):
        assert state.shape == (3, width, SIZE[0] // stride, SIZE[1] // stride)
    assert torch.equal(intermediates[-1].flatten(2).mT, final)
    assert all(isinstance(model.get_submodule(module), nn.Module) for module in info.module_name())

    assert torch.equal(model.forward_intermediates(IMAGES, 1, intermediates_only=True)[0], intermediates[-1])
    shallow, (first, second) = model.forward_intermediates(IMAGES, [0, -2], stop_early=True, output_fmt="NLC")
    assert torch.equal(first, intermediates[0].flatten(2).mT)
    # of the deepest block only the rows of its stream are computed, which rounds differently
    torch.testing.assert_close(second, intermediates[1].flatten(2).mT, rtol=3e-5, atol=1e-5)
    assert torch.equal(shallow, second)
    (normed,) = model.forward_intermediates(IMAGES, [1], norm=True, output_fmt="NLC", intermediates_only=True)
    torch.testing.assert_close(
        normed, second / (second.square().mean(-1, keepdim=True) + model.generator.norm_eps).sqrt()
    )
    for reshape, expected in ((True, second.mT.unflatten(2, model.generator.grid)), (False, second)):
        assert torch.equal(model.get_intermediate_layers(IMAGES, [1], reshape)[0], expected)

    deep = model.forward_features(IMAGES)
    assert model.prune_intermediate_layers([0, 1]) == [0, 1]
    assert len(model.feature_info) == model.depth == 2
    assert torch.equal(model.forward_features(IMAGES), shallow)
    assert torch.equal(model(IMAGES), shallow)  # the classifier is gone, and the pooling
    assert not torch.equal(shallow, deep)


def test_no_deeper_block_runs_than_is_asked_for(model):
    ran = []
    for name, module in model.generator.named_modules():
        if name.startswith(model.feature_info[0]["module"].split(".")[1]) and name.count(".") == 1:
            module.register_forward_hook(lambda *_, name=name: ran.append(name))
    model.forward_intermediates(IMAGES, [0], stop_early=True)
    model.forward_intermediates(IMAGES, [0, 1], intermediates_only=True)
    assert [int(name.split(".")[1]) for name in ran] == [0, 0, 1]


def test_features_only(model):
    name = name_of(model.generator)
    reading = {key: getattr(model.spec, key) for key in ("orders", "context", "stream", "merge")}
    maps = timm_models.wrap(pipeline(name), features_only=True, out_indices=(0, -2), layer=3, **reading).eval()
    expected = model.forward_intermediates(IMAGES, [0, 1], intermediates_only=True)
    assert all(torch.equal(a, b) for a, b in zip(maps(IMAGES), expected, strict=True))
    assert maps.feature_info.channels() == [model.num_features] * 2
    assert maps.feature_info.reduction() == [4, 4]


# the classifier and the rest of timm's interface -------------------------------------------------------------


def test_the_classifier_can_be_changed(model):
    assert model(IMAGES).shape == (3, 5)
    features = model.forward_features(IMAGES)
    assert torch.equal(model.forward_head(features), model(IMAGES))
    pooled = model.forward_head(features, pre_logits=True)
    assert pooled.shape == (3, model.head_hidden_size) == (3, model.num_features)
    model.reset_classifier(7, "max")
    assert model.num_classes == 7
    assert model(IMAGES).shape == (3, 7)
    assert torch.equal(model.forward_head(features, pre_logits=True), features.amax(1))
    model.reset_classifier(0, "")
    assert torch.equal(model(IMAGES), features)
    assert isinstance(model.get_classifier(), nn.Identity)
    with pytest.raises(ValueError, match="global_pool must be one of 'avg', 'max', '', got 'token'"):
        model.reset_classifier(2, "token")


def test_every_parameter_that_is_trained_has_a_gradient(model):
    model.train()(IMAGES).square().sum().backward()
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {name for name, parameter in model.named_parameters() if parameter.grad is not None} == trained
    assert not any(name.startswith("tokenizer") for name in trained)


def test_checkpointing_changes_no_number_and_keeps_less(model):
    def run():
        kept = []
        model.zero_grad()
        with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
            torch.manual_seed(0)
            logits = model(IMAGES)
        logits.square().sum().backward()
        return logits, [p.grad for p in model.parameters() if p.grad is not None], sum(kept)

    for module in model.generator.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.3
    model.train()
    logits, gradients, kept = run()
    model.set_grad_checkpointing()
    again, same_gradients, fewer = run()
    assert torch.equal(again, logits)
    assert all(torch.equal(a, b) for a, b in zip(same_gradients, gradients, strict=True))
    assert fewer < kept / 2
    model.set_grad_checkpointing(False)
    assert run()[2] == kept


def test_dropout_is_that_of_training():
    model = timm_models.wrap(pipeline(dropout=0.5), num_classes=2, drop_rate=0.5)
    assert not torch.equal(model.train()(IMAGES), model(IMAGES))
    assert torch.equal(model.eval()(IMAGES), model(IMAGES))
    assert not model.train().tokenizer.training


def test_layers_and_tables_are_known_by_name(model):
    groups = group_parameters(model, model.group_matcher())
    first, *blocks, last = groups.values()
    assert {name.split(".")[0] for name in last} == {"fc_norm", "head"}
    assert not any("blocks" in name for name in first)
    assert all(len({name.split(".")[2] for name in names if "blocks" in name}) <= 1 for names in blocks)
    order = [name for names in groups.values() for name in names]
    assert sorted(order) == sorted(name for name, _ in model.named_parameters())
    tables = model.no_weight_decay()
    assert tables
    assert tables <= {*first}


def test_wrapping_copies():
    own = pipeline()
    before = weights.fingerprint(own)
    made = timm_models.wrap(own, num_classes=2).train()
    optimizer = torch.optim.SGD(made.parameters(), 0.1)
    made(IMAGES).sum().backward()
    optimizer.step()
    assert weights.fingerprint(own) == before
    assert own.generator.head is not None
    assert all(parameter.requires_grad for parameter in own.parameters())


def test_what_does_not_fit_is_one_sentence():
    own, model = pipeline(), timm_models.wrap(pipeline(), num_classes=2)
    for call, message in (
        (lambda: timm_models.wrap(own, in_chans=1), "the model reads 3 channels, got in_chans=1"),
        (lambda: timm_models.wrap(own, img_size=224), "the model reads 8 x 12 pixels, got img_size=224"),
        (lambda: timm_models.wrap(own, layer=5), "layers are numbered 1 to 4"),
        (lambda: timm_models.wrap(own, context="sideways"), "context 'sideways' is none of"),
        (lambda: timm_models.wrap(pipeline("llamagen"), orders="random"), "order 'random' is none of LlamaGen's"),
        (lambda: model(IMAGES.mT), r"expected images \(B, 3, 8, 12\), got \(3, 3, 12, 8\)"),
        (lambda: model.forward_intermediates(IMAGES, [2]), "blocks are numbered 0 to 1"),
        (lambda: model.forward_intermediates(IMAGES, output_fmt="NHWC"), "output_fmt must be NCHW or NLC"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            call()
        assert "\n" not in str(error.value)


def test_half_precision_is_autocast():
    own = pipeline()
    model = timm_models.wrap(own, num_classes=2).eval()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model._tokens(IMAGES), own.encode(IMAGES))
        assert model(IMAGES).shape == (3, 2)
    with pytest.raises(ValueError, match="the tokenizer would choose other tokens in half precision"):
        model.to(torch.bfloat16)(IMAGES.bfloat16())


# fine-tuning -------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """Dark and bright pictures, six of each."""
    noise = np.random.default_rng(0)
    for label, (low, high) in {"bright": (150, 256), "dark": (0, 100)}.items():
        (tmp_path / "train" / label).mkdir(parents=True)
        for i in range(6):
            pixels = noise.integers(low, high, (20, 30, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "train" / label / f"{i}.png")
    return tmp_path


# timm leaves it to the garbage collector to close pictures
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", ["randar", "arpg", "llamagen", "lpd", "rar"])
def test_fine_tuning_with_timms_own_tools(name, folder):
    model = timm_models.wrap(pipeline(name), num_classes=2)
    config = resolve_model_data_config(model)
    assert config["input_size"] == (3, *SIZE)
    dataset = create_dataset("", root=folder, split="train")
    assert len(dataset) == 12

    def loader(is_training):
        return create_loader(
            dataset,
            batch_size=6,
            is_training=is_training,
            num_workers=0,
            use_prefetcher=False,
            persistent_workers=False,
            **config,
        )

    images, _ = next(iter(loader(False)))
    assert images.shape == (6, 3, *SIZE)
    assert 0 <= images.min() < images.max() <= 1
    optimizer = create_optimizer_v2(model, opt="adamw", lr=3e-3, weight_decay=0.05, layer_decay=0.75)
    scales = {group["lr_scale"] for group in optimizer.param_groups}
    assert scales == {0.75**i for i in range(4)}  # the classifier, two blocks, the tables
    average, before = ModelEmaV3(model, decay=0.5), model.generator.blocks[0].attn.qkv.weight.clone()
    losses = []
    for _ in range(8):
        for images, labels in loader(True):
            loss = nn.functional.cross_entropy(model.train()(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            average.update(model)
            losses.append(loss.item())
    assert np.mean(losses[-4:]) < 0.5 * np.mean(losses[:4])
    assert not torch.equal(model.generator.blocks[0].attn.qkv.weight, before)
    right = [(average.module.eval()(images).argmax(1) == labels) for images, labels in loader(False)]
    assert torch.cat(right).float().mean() >= 0.75

    freeze(model, ["generator.blocks.0"])
    assert not any(parameter.requires_grad for parameter in model.generator.blocks[0].parameters())
    unfreeze(model, ["generator.blocks.0"])
    assert all(parameter.requires_grad for parameter in model.generator.blocks[0].parameters())


def test_grey_models_are_models_too():
    model = timm_models.wrap(pipeline(channels=1), num_classes=2)
    assert model.pretrained_cfg["mean"] == (0.0,)
    assert model(torch.rand(2, 1, *SIZE)).shape == (2, 2)
