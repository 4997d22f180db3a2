"""Numbers on samples: right where they can be worked out, and never without the evaluator they come from."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from pipelines import make_sampler
from randfeat.probes.tasks.generation import measure_quality, table

from randfeat.data.decode import UnreadableImage
from randfeat.features.evaluators import EncoderEvaluator, Inception, LikelihoodEvaluator, evaluate, load_images
from randfeat.features.opening import open_encoder
from randfeat.inference.likelihood import class_log_prob
from randfeat.utils import arrays

pytest.importorskip("torch_fidelity", reason="torch-fidelity is not installed: pip install 'randfeat[fid]'")


def gaussian(mean, scale, count=4000, seed=0):
    rng = np.random.default_rng(seed)
    return mean + scale * rng.standard_normal((count, 3))


def test_the_frechet_distance_of_gaussians_is_that_of_the_formula():
    found = measure_quality(gaussian(0.0, 1.0), gaussian(np.array([3.0, 0, 0]), 2.0, seed=1), "numbers")
    assert found.frechet == pytest.approx(9 + 3 * (1 - 2) ** 2, rel=0.05)
    assert (found.samples, found.reference, found.evaluator) == (4000, 4000, "numbers")
    assert found.inception_score is None


def test_precision_and_recall_tell_what_is_missing_from_what_is_wrong():
    few = gaussian(0.0, 0.2, 500)
    wide = gaussian(0.0, 3.0, 500, seed=1)
    narrow = measure_quality(few, wide, "numbers")
    assert narrow.precision > 0.9
    assert narrow.recall < 0.2
    assert measure_quality(wide, few, "numbers").recall > 0.9
    same = measure_quality(few, few, "numbers")
    assert (same.precision, same.recall) == (1, 1)
    assert same.frechet == pytest.approx(0, abs=1e-6)


def test_precision_is_the_share_within_reach_of_a_reference_by_its_third_neighbour():
    mine, real = (gaussian(shift, 1.0, 40, seed) for seed, shift in ((0, 0.0), (1, 1.0)))

    def within(points, others):
        reach = [np.sort(np.linalg.norm(others - one, axis=1))[3] for one in others]
        return np.mean([(np.linalg.norm(others - one, axis=1) <= reach).any() for one in points])

    found = measure_quality(mine, real, "numbers")
    assert found.precision == pytest.approx(within(mine, real))
    assert found.recall == pytest.approx(within(real, mine))


def test_the_score_of_classes_is_their_number_where_all_are_sure_and_alike():
    logits = 100 * torch.eye(5).repeat(200, 1)
    found = measure_quality(logits, logits, "numbers", logits)
    assert found.inception_score == pytest.approx(5, rel=0.02)
    assert measure_quality(logits, logits, "numbers", 0 * logits).inception_score == pytest.approx(1)
    text = table({"mine": found}, is_inception=False)
    assert "Fréchet distance" in text
    assert "FID" not in text
    assert "Evaluator: numbers; reference: 1,000 pictures." in text
    assert "FID" in table({"mine": found}, is_inception=True)


def test_three_pictures_are_too_few():
    with pytest.raises(ValueError, match="3 samples and 9 of reference: give 4 at least"):
        measure_quality(gaussian(0.0, 1.0, 3), gaussian(0.0, 1.0, 9), "numbers")


def noises(count, size=(12, 8), seed=0):
    rng = np.random.default_rng(seed)
    return [Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)) for _ in range(count)]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Random ones, in the form of the published file."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3 as Network

    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Network, "load_state_dict", lambda *_: None)
        torch.save({}, path)
        network = Network("inception", ["2048"], str(path))
    torch.save(network.state_dict(), path)
    return path


@pytest.mark.slow
def test_inception_is_torch_fidelitys(weights, tmp_path):
    import torch_fidelity

    for name, seed in (("a", 0), ("b", 1)):
        (tmp_path / name).mkdir()
        for number, picture in enumerate(noises(12, seed=seed)):
            picture.save(tmp_path / name / f"{number:02}.png")
    theirs = torch_fidelity.calculate_metrics(
        input1=str(tmp_path / "a"),
        input2=str(tmp_path / "b"),
        fid=True,
        isc=True,
        cuda=False,
        verbose=False,
        cache=False,
        save_cpu_ram=True,
        feature_extractor_weights_path=str(weights),
    )
    judge = Inception(weights)
    a, b = (evaluate(judge, load_images(tmp_path / name)[1], 12, 5) for name in ("a", "b"))
    ours = measure_quality(a.features, b.features, judge.name, a.logits)
    assert judge.is_inception
    assert ours.frechet == pytest.approx(theirs["frechet_inception_distance"], rel=1e-3, abs=1e-5)
    assert ours.inception_score == pytest.approx(theirs["inception_score_mean"], rel=1e-4)
    with pytest.raises(ValueError, match="pictures are of 4 x 4 and 12 x 8 pixels, and FID compares those of one size"):
        judge([*noises(1), *noises(1, (4, 4))])


def test_inception_without_its_weights_says_where_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(ValueError, match=r"the weights of Inception are not at .*: get https://github.com/toshas/"):
        Inception()
    (tmp_path / "other.pth").write_bytes(b"something else")
    with pytest.raises(ValueError, match=r"other\.pth does not hold the weights of Inception"):
        Inception(tmp_path / "other.pth")


def test_a_model_judges_by_its_features_and_a_classifier_by_its_likelihoods(tmp_path):
    model, pictures = make_sampler(), noises(5, (6, 4))
    make_sampler().save(tmp_path / "tiny")
    encoder = open_encoder(str(tmp_path / "tiny"), ["raster/causal/token/L1/mean/mean"])
    seen = evaluate(EncoderEvaluator(encoder), pictures, 4, 3)
    assert seen.logits is None
    assert torch.equal(
        seen.features,
        torch.from_numpy(np.concatenate([encoder.features(pictures[:3])[0], encoder.features(pictures[3:4])[0]])),
    )
    judge = LikelihoodEvaluator(model, 2, "tiny")
    found = judge(pictures)
    expected = class_log_prob(model.generator, model.encode(pictures), None, 2).mean(-1)
    torch.testing.assert_close(found.logits, expected)
    assert judge.name == "class likelihoods of tiny, 2 orders"
    with pytest.raises(ValueError, match="trained without labels: it has no likelihood of classes"):
        LikelihoodEvaluator(make_sampler(num_classes=0))


def test_an_archive_of_pictures_comes_back_one_by_one(tmp_path):
    pictures, paths = noises(4), []
    for number, picture in enumerate(pictures):
        paths.append(tmp_path / f"{number}.png")
        picture.save(paths[-1])
    arrays.write_images(tmp_path / "ours.npz", paths, None)
    np.savez_compressed(tmp_path / "theirs.npz", arr_0=np.stack([np.asarray(picture) for picture in pictures]))
    for name in ("ours.npz", "theirs.npz"):
        count, found = load_images(tmp_path / name)
        assert count == 4
        assert [picture.tobytes() for picture in found] == [picture.tobytes() for picture in pictures]
    np.savez(tmp_path / "grey.npz", arr_0=np.zeros((2, 4, 4), dtype=np.uint8))
    np.savez(tmp_path / "floats.npz", arr_0=np.zeros((2, 4, 4, 3)))
    np.savez(tmp_path / "other.npz", images=np.zeros((2, 4, 4, 3), dtype=np.uint8))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "ours.npz").read_bytes()[:500])
    for name in ("grey", "floats", "other", "cut"):
        with pytest.raises(ValueError, match=rf"{name}.npz holds no pictures as uint8 \(N, H, W, 3\)"):
            load_images(tmp_path / f"{name}.npz")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(b"text")
    with pytest.raises(UnreadableImage, match=r"a\.png of .*photos cannot be read \(.*\): take it out"):
        list(load_images(tmp_path / "photos")[1])
    with pytest.raises(FileNotFoundError, match=r"there is no .*missing\.npz"):
        load_images(tmp_path / "missing.npz")
