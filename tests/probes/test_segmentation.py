import numpy as np
import pytest
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from randfeat.probes import LinearSegmenter, Recipe, Segmentation, label_maps, patch_labels, read_label_map
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import confusion_matrix, jaccard_score

RECIPE = Recipe("adamw", (3.0,), (0.0,), batch=4, epochs=60)


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
