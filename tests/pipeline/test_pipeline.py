import copy
import pickle

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from pipelines import SIZE, make_pipeline

from randfeat import FeatureSpec, Guidance, Pipeline, Sampling
from randfeat.data.images import to_pil
from randfeat.inference import extrapolation, likelihood, readout, sampling
from randfeat.inference.extrapolation import Extrapolation
from randfeat.models import MODELS, SIZES, packed
from randfeat.utils import drawing

ANY_IMAGES = torch.rand(2, 1, *SIZE, generator=torch.Generator().manual_seed(0))


def make(name="randar", channels=1, **config):
    return make_pipeline(name, channels, {"steps": 3}, **config)


@pytest.fixture(params=MODELS)
def pipeline(request):
    return make(request.param)


# what it does -----------------------------------------------------------------------------------------------


def test_pictures_become_tokens_and_pictures_again(pipeline):
    assert pipeline.image_size == SIZE
    tokens = pipeline.encode(ANY_IMAGES)
    assert tokens.shape == (2, 6)
    assert torch.equal(tokens, pipeline.tokenizer.encode(ANY_IMAGES).flatten(1))
    decoded = pipeline.decode(tokens)
    assert decoded.shape == ANY_IMAGES.shape
    assert torch.equal(pipeline.encode(decoded), tokens)
    assert pipeline.encode(Image.new("RGB", (60, 40))).shape == (1, 6)  # pictures are scaled, arrays are not
    with pytest.raises(ValueError, match="images must be 4 x 6 pixels, got 6 x 4"):
        pipeline.encode(ANY_IMAGES.mT)


def test_features_are_those_of_the_tokens(pipeline):
    reading = "bidirectional/causal/query" if "query" in pipeline.generator.streams else "raster/echo/token"
    text = f"{reading}/L1,L2/none/concat"
    expected = readout.read(pipeline.generator, pipeline.encode(ANY_IMAGES), [FeatureSpec.parse(text)])[0]
    actual = pipeline.features(ANY_IMAGES, text)
    assert isinstance(actual, np.ndarray)
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)
    assert (pipeline.features(ANY_IMAGES, FeatureSpec.parse(text)) == actual).all()


def test_any_number_of_images_is_read_in_batches(pipeline, capsys):
    images = torch.rand(7, 1, *SIZE, generator=torch.Generator().manual_seed(1))
    together = pipeline.features(images)
    assert together.shape == (7, pipeline.generator.embed_dim)
    pictures = (to_pil(image) for image in images)  # an iterator, as of a folder that is too large to hold
    quantised = pipeline.features([to_pil(image) for image in images])
    np.testing.assert_allclose(pipeline.features(pictures, batch_size=2), quantised, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(pipeline.features(images, batch_size=3), together, rtol=1e-4, atol=1e-4)
    assert not capsys.readouterr().err
    tokens = pipeline.tokens(images, batch_size=2, progress=True)
    assert "encoding: 100%" in capsys.readouterr().err
    assert tokens.dtype == np.uint16
    assert (tokens == pipeline.encode(images).numpy()).all()
    with pytest.raises(ValueError, match="batch_size must be a whole number from 1, got 0"):
        pipeline.features(images, batch_size=0)
    for nothing in ([], images[:0], iter([])):
        with pytest.raises(ValueError, match="there are no images"):
            pipeline.features(nothing)


def test_a_compiled_model_reads_through_the_compiler_and_writes_as_ever(pipeline, monkeypatch):
    calls = []

    def compiled(network):
        calls.append(network)
        return copy.copy(packed.inference_copy(network))

    monkeypatch.setattr(packed, "compiled_copy", compiled)
    before = pipeline.features(ANY_IMAGES)
    pipeline.compile()
    assert calls == [pipeline.generator]
    assert pipeline.feature_generator() is not pipeline.inference_generator()
    assert [*pipeline.children()] == [pipeline.tokenizer, pipeline.generator]
    np.testing.assert_allclose(pipeline.features(ANY_IMAGES), before, rtol=1e-5, atol=1e-5)
    again = pickle.loads(pickle.dumps(pipeline))
    assert again.feature_generator() is again.inference_generator()  # what was compiled stays in its process


def test_a_reading_is_refused_before_an_image_is_opened(pipeline):
    with pytest.raises(ValueError, match="layers are numbered 1 to"):
        pipeline.features(["no such file.png"], "raster/causal/token/L9/mean/mean")


def test_labels_are_indices_names_or_nothing(pipeline):
    assert pipeline.label_indices([0, "cow", None, 2, "cat"]).tolist() == [0, 2, 3, 2, 0]
    how = Sampling(tiny.steps(pipeline.generator, 3), guidance=Guidance(2))
    images = pipeline.sample([1, "dog", None], how, seed=4)
    assert images.shape == (3, 1, *SIZE)
    tokens = sampling.sample(pipeline.generator, torch.tensor([1, 1, 3]), torch.tensor([4, 5, 6]), how)
    assert torch.equal(images, pipeline.decode(tokens))
    assert torch.equal(pipeline.sample(["dog"], how, seed=5), images[1:2])  # image i has the seed `seed + i`


def test_wrong_labels_are_refused(pipeline):
    for label, message in (
        (3, r"class 3 is outside 0\.\.2"),
        (-1, "class -1 is"),
        ("fox", "'fox', expected one of cat, dog, cow"),
    ):
        with pytest.raises(ValueError, match=message):
            pipeline.sample([label])
    unlabelled = Pipeline(pipeline.tokenizer, tiny.model("arpg", (2, 3), num_classes=0))
    assert unlabelled.sample([None]).shape == (1, 1, *SIZE)
    with pytest.raises(ValueError, match="this model has no classes: leave the class out"):
        unlabelled.sample([0])


def test_a_seed_of_its_own_makes_the_batch_invisible(pipeline):
    labels, how = [0, 1, 2, None, 1], Sampling(tiny.steps(pipeline.generator, 3), guidance=Guidance(2))
    together = pipeline.sample(labels, how, seed=4)
    for size in (1, 2, 5):
        assert torch.equal(pipeline.sample(labels, how, seed=4, batch_size=size), together)
    assert torch.equal(pipeline.sample(labels[::-1], how, seed=[8, 7, 6, 5, 4]), together.flip(0))
    assert torch.equal(pipeline.sample(labels, how, seed=torch.arange(4, 9)), together)


def test_tokens_are_forbidden_or_favoured_by_place(pipeline):
    generator = pipeline.generator
    bias = torch.zeros(5, 6, 7)
    bias[:, 4], bias[3, 2] = -torch.inf, -torch.inf
    bias[:, 4, 5] = bias[3, 2, 1] = 0.0
    calls = []
    labels, tick = [0, 1, 2, 0, 1], lambda taken: calls.extend(taken.tolist())
    images = pipeline.sample(labels, seed=2, batch_size=2, bias=bias, tick=tick)
    tokens = pipeline.encode(images).flatten(1)
    assert (tokens[:, 4] == 5).all()
    assert tokens[3, 2] == 1
    assert calls == [6] * 5
    known = torch.tensor([True, True, False, False, False, False])
    completed = pipeline.complete(tokens, known, seed=2, bias=bias[3])
    assert torch.equal(completed[:, :2], tokens[:, :2])
    assert (completed[:, 4] == 5).all()
    assert (completed[:, 2] == 1).all()
    with pytest.raises(ValueError, match=r"a bias has the shape .* B = 1, N = .* and V = 7, got \(2, 6, 7\)"):
        pipeline.sample([0], bias=bias[:2])
    if not generator.raster_only and generator.rotary:
        with pytest.raises(ValueError, match="a bias is of tokens of the trained grid"):
            pipeline.sample([0], bias=bias[0], extrapolation=Extrapolation())


def test_an_order_can_be_given(pipeline):
    raster = pipeline.generator.raster_only
    one, seeds = range(6) if raster else [3, 1, 5, 0, 2, 4], torch.tensor([0, 1])
    tokens = sampling.sample(pipeline.generator, torch.tensor([0, 1]), seeds, Sampling(), torch.tensor([*one]))
    assert torch.equal(pipeline.sample([0, 1], order=one), pipeline.decode(tokens))
    if not raster:
        each = torch.tensor([[*one], [*range(6)]])
        images = pipeline.sample([0, 1], order=each, batch_size=1)
        assert torch.equal(images[:1], pipeline.decode(tokens)[:1])
        assert torch.equal(images[1:], pipeline.sample([1], order=range(6), seed=1))


def test_larger_images_can_be_asked_for():
    pipeline, how = make("randar", channels=3), Extrapolation(2, spatial=Guidance(2))
    images = pipeline.sample(["cat", None, "dog"], Sampling(5), seed=3, extrapolation=how, batch_size=2)
    assert images.shape == (3, 3, 8, 12)
    label, seeds = torch.tensor([0, 3, 1]), torch.tensor([3, 4, 5])
    tokens = extrapolation.sample(pipeline.generator, label, seeds, Sampling(5), how)
    assert torch.equal(images, pipeline.decode(tokens, (4, 6)))
    order = how.order((2, 3), "random", seeds)
    given = pipeline.sample(["cat", None, "dog"], Sampling(5), seed=3, order=order, extrapolation=how)
    assert torch.equal(given, images)


NO_PERMUTATION = "not a permutation: entry 5 of order 0, 0, occurs twice"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(labels=[]), "there is nothing to sample"),
        (dict(labels="cat"), r"labels are a list with one for each image, got 'cat': write \['cat'\]"),
        (dict(labels=1), r"labels are a list with one for each image, got 1: write \[1\]"),
        (dict(seed=0.5), "a seed is a whole number, got 0.5"),
        (dict(seed=True), "a seed is a whole number, got True"),
        (dict(seed=[1, 2.0]), "a seed is a whole number"),
        (dict(seed=[1]), "1 seeds for 2 images"),
        (dict(seed=2**63 - 1), "seeds are numbers of 64 bits, 9223372036854775807 leads outside"),
        (dict(batch_size=0), "batch_size must be a whole number from 1, got 0"),
        (dict(batch_size=1.5), "batch_size must be a whole number from 1, got 1.5"),
        (dict(order=[0, 1, 2, 3, 4, 0]), NO_PERMUTATION),
        (dict(order=[0.0, 1.0, 2.0, 3.0, 4.0, 5.5]), "holds 6 int64 positions, got torch.float32"),
        (dict(order=[*range(24)]), "an order for the grid 2 x 3 holds 6 int64 positions"),
        (dict(order=[[*range(6)]] * 3), r"orders of shape \(3, 6\) for 2 images"),
        (dict(order=[*range(24)], extrapolation=Extrapolation(2)), "the first 6 entries must be the small image"),
        (dict(order=[*range(6)], extrapolation=Extrapolation(2)), "an order for the grid 4 x 6 holds 24"),
    ],
)
def test_what_cannot_be_sampled_is_one_sentence(wrong, message):
    arguments = {"labels": [0, 1]} | wrong
    with pytest.raises(ValueError, match=message) as error:
        make().sample(**arguments)
    assert "\n" not in str(error.value)


def test_checking_raises_what_sampling_would():
    pipeline = make()
    pipeline.check_sampling(Sampling(3), [5, 4, 3, 2, 1, 0])
    pipeline.check_sampling(Sampling(3), extrapolation=Extrapolation(2))
    for name, how, more, message in (
        ("llamagen", Sampling(sweeps=1), {}, "leave sweeps out"),
        ("llamagen", Sampling(2), {}, "leave steps out"),
        ("arpg", Sampling(order="spiral"), {}, "order 'spiral' is none of ARPG's"),
        ("randar", Sampling(within_step="group"), {}, "within_step 'group' is none of RandAR's"),
        ("llamagen", Sampling(), {"extrapolation": Extrapolation(2)}, "LlamaGen knows raster order alone"),
        ("randar", Sampling(), {"order": [0, 1, 2, 3, 4, 0]}, NO_PERMUTATION),
        ("randar", Sampling(), {"order": range(24), "extrapolation": Extrapolation(2)}, "the first 6 entries"),
    ):
        with pytest.raises(ValueError, match=message):
            make(name).check_sampling(how, **more)
        with pytest.raises(ValueError, match=message):
            make(name).sample([0], how, **more)


def test_tokens_of_another_grid_need_that_grid():
    pipeline = make()
    assert pipeline.decode(torch.zeros(1, 8, dtype=torch.int64), (4, 2)).shape == (1, 1, 8, 4)
    with pytest.raises(ValueError, match=r"the grid 2 x 3 takes tokens \(B, 6\), got \(1, 8\)"):
        pipeline.decode(torch.zeros(1, 8, dtype=torch.int64))


@pytest.mark.parametrize("name", MODELS)
def test_the_generator_alone_can_be_of_half_precision(name):
    pipeline = make(name)
    pipeline.generator.to(torch.bfloat16)
    for how in (None, Sampling(guidance=Guidance(2), top_k=3, top_p=0.9)):
        images = pipeline.sample(["cat", None], how)
        assert images.dtype == torch.float32
        assert torch.equal(pipeline.sample(["cat"], how), images[:1])


# as ARPG's published pipeline ---------------------------------------------------------------------------------


def as_published(pipeline, labels, scale, rising, schedule, steps=2, seed=6, **more):
    guidance = Guidance(scale, "linear", 1.0, "after") if rising else Guidance(scale)
    images = pipeline.sample(labels, Sampling(steps, schedule, guidance, **more), seed)
    names = [pipeline.classes.short(label) for label in pipeline.classes.indices(labels)]
    return drawing.grid([to_pil(image) for image in images], 4, names)


def test_the_published_quick_start_runs(tmp_path, monkeypatch):
    tokenizer = make(channels=3).tokenizer
    generator = tiny.model("arpg", (2, 3), num_classes=1000)
    monkeypatch.setitem(SIZES, "arpg_xl", ("arpg", {"depth": 2, "num_heads": 2, "embed_dim": 16}))
    pipeline = Pipeline(tokenizer, generator, "imagenet-1k")
    class_labels = [207, 360, 388, 113, 355, 980, 323, 979]
    generated_image = pipeline(
        model_type="ARPG-XL",
        seed=0,
        num_steps=64,
        class_labels=class_labels,
        cfg_scale=4,
        output_dir=str(tmp_path / "images"),
        cfg_schedule="constant",
        sample_schedule="arccos",
    )
    expected = as_published(pipeline, class_labels, 4, False, "arccos", 64, 0)
    assert isinstance(generated_image, Image.Image)
    assert generated_image.tobytes() == expected.tobytes()
    assert [path.name for path in (tmp_path / "images").iterdir()] == ["sampled_image.png"]
    with Image.open(tmp_path / "images" / "sampled_image.png") as saved:
        assert saved.tobytes() == expected.tobytes()
    with pytest.raises(ValueError, match="model_type is 'ARPG-L', but ARPG-XL was loaded"):
        pipeline([0], model_type="ARPG-L", output_dir=tmp_path / "other")
    with pytest.raises(ValueError, match="sample_schedule must be one of arccos, cosine, got 'sine'"):
        pipeline([0], sample_schedule="sine", output_dir=tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("name", ["arpg", "randar"])
def test_published_words_mean_what_they_meant(name):
    pipeline, labels = make(name), ["cat", 1, None]
    for published, ours in (
        (dict(cfg_scale=3.0, cfg_schedule="linear"), (3.0, True, "arccos")),
        (dict(cfg_scale=3.0, sample_schedule="cosine"), (3.0, False, "cosine-arpg")),
        (dict(cfg_scale=1), (1.0, False, "arccos")),
    ):
        picture = pipeline(labels, num_steps=2, model_type=name.upper(), **published)
        assert picture.tobytes() == as_published(pipeline, labels, *ours, top_k=600).tobytes()
    greedy = pipeline(labels, 2, temperature=0.5, top_k=1)
    assert greedy.tobytes() == as_published(pipeline, labels, 4.0, False, "arccos", top_k=1, temperature=0.5).tobytes()


def test_classify_is_the_mean_over_orders(pipeline):
    expected = likelihood.class_log_prob(pipeline.generator, pipeline.encode(ANY_IMAGES), None, 5, seed=2).mean(2)
    found = pipeline.classify(ANY_IMAGES, orders=5, seed=2, batch_size=1)
    torch.testing.assert_close(found.log_prob, expected)
    assert torch.equal(found.best, expected.argmax(1))
    assert found.passes.tolist() == [3 * (5 if pipeline.generator.many_orders else 1)] * 2
    two = pipeline.classify(ANY_IMAGES, ["dog", 0], orders=5, seed=2)
    torch.testing.assert_close(two.log_prob, expected[:, [1, 0]])
    names = [pipeline.class_names[row.argmax()] for row in expected]
    assert [ranked[0].name for ranked in found.ranked()] == names
    for ranked, row in zip(two.ranked(), expected[:, [1, 0]], strict=True):
        assert ranked[0].log_prob >= ranked[1].log_prob
        assert sum(one.probability for one in ranked) == pytest.approx(1)
        assert ranked[0].probability == pytest.approx(row.softmax(0).max().item(), rel=1e-4)
    with pytest.raises(ValueError, match="classes to choose from are named once each"):
        pipeline.classify(ANY_IMAGES, [1, 1])
    with pytest.raises(ValueError, match="unknown class 'horse'"):
        pipeline.classify(ANY_IMAGES, ["horse"])


def test_log_prob_has_a_deviation_over_orders(pipeline):
    each = likelihood.log_prob(pipeline.generator, pipeline.encode(ANY_IMAGES), torch.tensor([1, 3]), 4, seed=1)
    found = pipeline.log_prob(ANY_IMAGES, [1, None], orders=4, seed=1, batch_size=1)
    torch.testing.assert_close(found.each, each)
    torch.testing.assert_close(found.mean, each.mean(1))
    torch.testing.assert_close(found.std, each.std(1))
    assert pipeline.log_prob(ANY_IMAGES, orders=1).std.isnan().all()
    for labels in ([1], [1, 2, 0]):
        with pytest.raises(ValueError, match="give one for each"):
            pipeline.log_prob(ANY_IMAGES, labels)


def test_reading_images_keeps_no_records_for_gradients(pipeline, monkeypatch):
    encode, told = pipeline.tokenizer.encode, []
    monkeypatch.setattr(pipeline.tokenizer, "encode", lambda x: told.append(torch.is_grad_enabled()) or encode(x))
    for read in (pipeline.features, pipeline.tokens, pipeline.classify, pipeline.log_prob, pipeline.surprisal):
        read(ANY_IMAGES)
    assert told == [False] * 5


def test_surprise_has_the_shape_of_the_grid(pipeline):
    found = pipeline.surprisal(ANY_IMAGES, [0, 1], orders=2, seed=3)
    assert found.shape == (2, *pipeline.generator.grid)
    expected = likelihood.surprisal(pipeline.generator, pipeline.encode(ANY_IMAGES), torch.tensor([0, 1]), 2, seed=3)
    torch.testing.assert_close(found.flatten(1), expected)


def test_parts_that_do_not_fit_are_refused():
    tokenizer, generator = make().tokenizer, tiny.model("randar", (2, 3))
    with pytest.raises(ValueError, match="the tokenizer has 7 codes, the generator 8"):
        Pipeline(tokenizer, tiny.model("randar", (2, 3), vocab_size=8))
    with pytest.raises(ValueError, match="2 class names for 3 classes"):
        Pipeline(tokenizer, generator, ["cat", "dog"])
    assert Pipeline(tokenizer, generator).class_names == ["0", "1", "2"]
