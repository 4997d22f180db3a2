import numpy as np
import pytest
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from randfeat.probes import (
    HeadRecipe,
    LinearSegmenter,
    Overlaps,
    Protocol,
    Segmentation,
    SegmentationData,
    bootstrap,
    evaluate_segmentation,
    label_maps,
    paired_maps,
    patch_labels,
    read_label_map,
)
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import confusion_matrix, jaccard_score

RECIPE = HeadRecipe("adamw", (3.0,), (0.0,), batch=4, epochs=60)


def data(n=12, h=4, w=6, classes=(1, 2, 7), seed=0):
    """Rectangles of labels, and features that show the label of each patch."""
    rng = np.random.default_rng(seed)
    maps = np.zeros((n, 8 * h, 8 * w), np.uint8)
    for labels in maps:
        labels[:] = rng.choice(classes)
        top, left = 8 * rng.integers(h), 8 * rng.integers(w)
        labels[top : top + 16, left : left + 16] = rng.choice(classes)
        labels[:3] = 255
    patches = maps[:, 4::8, 4::8]
    x = rng.normal(0, 0.3, size=(n, 9, h, w)) + np.eye(9)[patches % 8].transpose(0, 3, 1, 2)
    return x.astype(np.float32), maps


def patch_oracle(labels, grid, ignore):
    """Pixel by pixel."""
    (height, width), (h, w) = labels.shape, grid
    votes = [[[] for _ in range(w)] for _ in range(h)]
    for i in range(height):
        for j in range(width):
            if labels[i, j] != ignore:
                votes[i * h // height][j * w // width].append(int(labels[i, j]))
    return [[max(sorted(set(v)), key=v.count, default=-1) for v in row] for row in votes]


@given(
    arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 3)),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.sampled_from([0, 3, 255]),
)
def test_a_patch_has_the_majority_of_its_pixels(labels, grid, ignore):
    assert patch_labels(labels, grid, ignore).tolist() == patch_oracle(labels, grid, ignore)


def test_it_learns_and_is_scored_as_sklearn_scores():
    x, maps = data(30)
    segmenter = LinearSegmenter(RECIPE).fit(x[:20], maps[:20])
    found = segmenter.evaluate(x[20:], maps[20:])
    predicted = np.stack(list(segmenter.predict(x[20:], [maps.shape[1:]] * 10)))
    scored = maps[20:] != 255
    truth, predicted = maps[20:][scored], predicted[scored]
    assert found.classes.tolist() == [1, 2, 7]
    assert (found.confusion == confusion_matrix(truth, predicted)).all()
    assert found.miou == pytest.approx(jaccard_score(truth, predicted, average="macro"))
    np.testing.assert_allclose(found.iou, jaccard_score(truth, predicted, average=None))
    assert found.accuracy == pytest.approx((truth == predicted).mean())
    assert found.miou > 0.8


def test_logits_are_upsampled_bilinearly_before_the_largest_is_taken():
    x, maps = data()
    segmenter = LinearSegmenter(RECIPE).fit(x, maps)
    (logits,) = segmenter.logits(x[:1])
    dense = np.einsum("dhw,dc->chw", x[0], segmenter.weight_) + segmenter.bias_[:, None, None]
    np.testing.assert_allclose(logits[0], dense, atol=1e-4)
    (found,) = segmenter.predict(x[:1], [(37, 50)])
    expected = F.interpolate(logits, (37, 50), mode="bilinear").argmax(1)[0]
    assert (found == segmenter.classes_[expected]).all()


def test_a_hand_computed_score():
    found = Segmentation(np.array([0, 1]), np.array([[3, 1], [2, 4]]))
    assert found.iou.tolist() == [3 / 6, 4 / 7]
    assert found.miou == pytest.approx((3 / 6 + 4 / 7) / 2)
    assert found.accuracy == 0.7


def test_images_one_by_one_make_the_whole():
    x, maps = data(20)
    segmenter = LinearSegmenter(RECIPE).fit(x[:10], maps[:10])
    whole, each = segmenter.evaluate(x[10:], maps[10:]), segmenter.overlaps(x[10:], maps[10:])
    assert each.classes.tolist() == whole.classes.tolist()
    np.testing.assert_allclose(each.iou, whole.iou)
    assert each.scores().mean() == pytest.approx(whole.miou)
    for row in range(10):
        alone = segmenter.evaluate(x[10 + row : 11 + row], maps[10 + row : 11 + row])
        own = np.searchsorted(each.classes, alone.classes)
        assert each.both[row, own].tolist() == np.diag(alone.confusion).tolist()
        np.testing.assert_allclose(each.both[row, own] / each.either[row, own], alone.iou)


def test_the_interval_is_that_of_resampled_images():
    """Images that differ much, with a class that few of them show, beside mIoU computed anew for each resample."""
    rng = np.random.default_rng(0)
    n, often = 300, np.array([1, 0.5, 0.08])
    either = rng.integers(50, 400, (n, 3)) * (rng.random((n, 3)) < often)
    both = (either * rng.beta(3, 2, (n, 3))).astype(int)
    found = Overlaps(np.arange(3), both, either)
    rows = rng.integers(0, n, (2000, n))
    anew = np.mean(both[rows].sum(1) / either[rows].sum(1), axis=1)
    score = bootstrap(found.scores())
    assert score.value == pytest.approx(found.iou.mean())
    low, high = np.quantile(anew, (0.025, 0.975))
    assert (score.low, score.high) == pytest.approx((low, high), abs=0.15 * (high - low))


def test_a_record_of_segmentation():
    x, maps = data(40)
    paths = [f"{i}.jpg" for i in range(40)]
    readings = {"bad": np.random.default_rng(0).normal(size=x.shape).astype(np.float32), "good": x}
    parts = [
        SegmentationData({name: r[rows] for name, r in readings.items()}, maps[rows], paths[rows])
        for rows in (slice(0, 25), slice(25, 40))
    ]
    record = evaluate_segmentation("ours", *parts, 255, Protocol(draws=200), {"baseline": False})
    assert record.chosen.startswith("good/")
    assert len(record.search) == 6
    assert record.scores["mIoU"].value > 0.85
    assert record.scores["mIoU"].value == pytest.approx(np.mean(list(record.per_class.values())))
    assert set(record.per_class) == {"1", "2", "7"}
    assert record.arrays["paths"].tolist() == paths[25:]
    assert record.scores["mIoU"].low <= record.scores["mIoU"].value <= record.scores["mIoU"].high <= 1
    plain = evaluate_segmentation("bad", *parts, 255, Protocol(draws=200, search=False))
    assert {one.split("/")[0] for one in plain.search} == {"bad", "good"}
    assert set(plain.search) == {"bad/lr=0.05", "good/lr=0.05"}


def test_label_maps_are_resized_by_nearest():
    labels = np.arange(12).reshape(3, 4)
    assert (read_label_map(labels, (6, 8)) == labels.repeat(2, 0).repeat(2, 1)).all()
    assert (read_label_map(labels, (1, 2)) == [[5, 7]]).all()
    x, maps = data()
    small = LinearSegmenter(RECIPE, size=(16, 24)).fit(x, maps)
    assert small.evaluate(x, maps).confusion.sum() == (maps[:, 1::2, 1::2] != 255).sum()


@pytest.fixture
def folders(tmp_path):
    voc, ade = tmp_path / "voc", tmp_path / "ade"
    for folder in ("ImageSets/Segmentation", "JPEGImages", "SegmentationClass"):
        (voc / folder).mkdir(parents=True)
    for folder in ("images/training", "annotations/training"):
        (ade / folder).mkdir(parents=True)
    palette = Image.fromarray(np.array([[0, 1, 255]], np.uint8), "L").convert("P")
    palette.putpalette([200, 3, 4] * 256)
    for name in "ab":
        Image.new("RGB", (3, 1)).save(voc / f"JPEGImages/{name}.jpg")
        palette.save(voc / f"SegmentationClass/{name}.png")
        Image.new("RGB", (2, 2)).save(ade / f"images/training/{name}.jpg")
        Image.fromarray(np.array([[0, 150]], np.uint8)).save(ade / f"annotations/training/{name}.png")
    (voc / "ImageSets/Segmentation/val.txt").write_text("b\na\n")
    return voc, ade


def test_folders_of_both_layouts_are_read(folders):
    voc, ade = label_maps(folders[0], "val"), label_maps(folders[1], "training")
    assert [(p.stem, m.stem) for p, m in zip(voc.images, voc.maps, strict=True)] == [("b", "b"), ("a", "a")]
    assert (voc.ignore, ade.ignore) == (255, 0)
    assert read_label_map(voc.maps[0]).tolist() == [[0, 1, 255]]
    assert read_label_map(ade.maps[1]).tolist() == [[0, 150]]
    (folders[1] / "images/training/a.jpg").unlink()
    with pytest.raises(ValueError, match=r"1 of 2 images of 'training' lack the image or the label map \(first: a\)"):
        label_maps(folders[1], "training")
    assert [path.stem for path in paired_maps(voc.images[0].parent, voc.maps[0].parent).images] == ["a", "b"]
    with pytest.raises(ValueError, match=r"1 of 2 images of .* lack the image"):
        paired_maps(folders[1] / "images/training", ade.maps[0].parent)
    with pytest.raises(ValueError, match=r"there are no label maps .*JPEGImages/\*\.png"):
        paired_maps(voc.images[0].parent, voc.images[0].parent)
    with pytest.raises(ValueError, match="expected Pascal VOC's or ADE20K's layout"):
        label_maps(folders[0], "test")
    with pytest.raises(ValueError, match="save labels, not colours"):
        read_label_map(folders[0] / "JPEGImages/a.jpg")


def test_odd_data():
    """Seeds, images without a labelled pixel, a class that only test has, half precision."""
    x, maps = data()
    a, b = (clone(LinearSegmenter(RECIPE, seed=s)).fit(x, maps) for s in (0, 1))
    assert (a.weight_ != b.weight_).any()
    assert (clone(a).fit(x, maps).weight_ == a.weight_).all()
    with_blank = np.concatenate([x, np.full_like(x[:1], 50)]), np.concatenate([maps, np.full_like(maps[:1], 255)])
    assert (clone(a).fit(*with_blank).weight_ == a.weight_).all()
    other = np.full_like(maps, 9)
    found = a.evaluate(x.astype(np.float16), other)
    assert found.miou == 0
    assert 9 in found.classes


def test_bad_input():
    x, maps = data()
    bad = x.copy()
    bad[[1, 4], 0, 0, 0] = np.nan
    segmenter = LinearSegmenter(RECIPE)
    with pytest.raises(ValueError, match=r"NaN or infinity in 2 of 12 rows \(first: 1, 4\)"):
        segmenter.fit(bad, maps)
    with pytest.raises(ValueError, match="one class"):
        segmenter.fit(x, maps * 0)
    with pytest.raises(ValueError, match="3 label maps for 12 images"):
        segmenter.fit(x, maps[:3])
    with pytest.raises(ValueError, match="all pixels are labelled 255"):
        segmenter.fit(x, maps * 0 + 255)
    with pytest.raises(NotFittedError):
        segmenter.evaluate(x, maps)
    with pytest.raises(ValueError, match="all pixels are labelled 255"):
        segmenter.fit(x, maps).evaluate(x, maps * 0 + 255)
