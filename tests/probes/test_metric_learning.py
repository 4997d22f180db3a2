from pathlib import Path

import numpy as np
import pytest
from randfeat.probes import evaluate_metric_learning, read_cars, read_cub, read_sop, retrieval_scores, second_half
from randfeat.probes.tasks.metric_learning import RECALLS
from scipy.io import savemat


def test_the_second_half_of_the_classes():
    assert second_half([3, 1, 2, 10, 1]).tolist() == [True, False, False, True, False]
    assert second_half(["b", "a", "c"]).tolist() == [True, False, True]
    assert second_half(np.repeat(np.arange(196), 2)).sum() == 196
    with pytest.raises(ValueError, match="expected \\(n,\\) and two or more"):
        second_half(["a", "a"])


def test_unseen_classes_are_searched_among_themselves():
    rng = np.random.default_rng(0)
    y = np.arange(60) % 6
    x = rng.normal(size=(60, 4)) + 3 * np.eye(6, 4)[y]
    unseen = second_half(y)
    scores = retrieval_scores(x[unseen], y[unseen], ks=RECALLS["cub"])
    unit = x[unseen] / np.linalg.norm(x[unseen], axis=1, keepdims=True)
    cosine = unit @ unit.T - 9 * np.eye(30)
    for k in (1, 2, 4, 8):
        near = y[unseen][np.argsort(-cosine, axis=1)[:, :k]]
        np.testing.assert_array_equal(scores[f"recall_at_{k}"], (near == y[unseen][:, None]).any(1))


def test_the_record_holds_the_scores(tmp_path):
    rng = np.random.default_rng(0)
    y = np.arange(41) % 8
    y[40] = 99  # alone in its class
    x = rng.normal(size=(41, 4)) + 2 * np.eye(8, 4)[y % 8]
    paths = [f"{i}.jpg" for i in range(41)]
    record = evaluate_metric_learning("ours", x, y, paths, RECALLS["sop"], settings={"model": "m"})
    scores = retrieval_scores(x, y, ks=RECALLS["sop"])
    assert record.headline == "recall_at_1"
    assert {metric: score.value for metric, score in record.scores.items()} == pytest.approx(
        {metric: values.mean() for metric, values in scores.items()}
    )
    assert record.arrays["paths"].tolist() == paths[:40]
    assert record.arrays["nearest"].shape == (40, 10)
    first = record.arrays["nearest"][:, 0]
    np.testing.assert_array_equal(y[first] == y[:40], record.arrays["right"])
    assert record.per_class["3"] == pytest.approx(record.arrays["right"][y[:40] == 3].mean())
    assert (record.settings["test images"], record.settings["classes"], record.settings["model"]) == (41, 9, "m")
    assert type(record).load(record.save(tmp_path)) == record


def cub(folder, classes="1 1\n2 200\n"):
    (folder / "images.txt").write_text("1 001.Black_footed_Albatross/a.jpg\n2 200.Common_Yellowthroat/b.jpg\n")
    (folder / "image_class_labels.txt").write_text(classes)


def test_cub(tmp_path):
    cub(tmp_path)
    birds = read_cub(tmp_path)
    assert birds.paths[1] == tmp_path / "images" / "200.Common_Yellowthroat" / "b.jpg"
    assert birds.labels.tolist() == [1, 200]


def test_cub_lists_that_disagree(tmp_path):
    cub(tmp_path, "1 1\n3 200\n")
    with pytest.raises(ValueError, match="number other images"):
        read_cub(tmp_path)
    cub(tmp_path, "1 1\n2\n")
    with pytest.raises(ValueError, match=r"line 2 of .*image_class_labels\.txt is not"):
        read_cub(tmp_path)


@pytest.mark.parametrize("count", [1, 3])
def test_cars(tmp_path, count):
    annotations = np.zeros((1, count), dtype=[("relative_im_path", object), ("class", object), ("test", object)])
    for i in range(count):
        annotations[0, i] = (f"car_ims/{i:06}.jpg", np.uint8(190 + i), 0)
    savemat(tmp_path / "cars_annos.mat", {"annotations": annotations})
    cars = read_cars(tmp_path)
    assert cars.paths == tuple(tmp_path / f"car_ims/{i:06}.jpg" for i in range(count))
    assert cars.labels.tolist() == [190 + i for i in range(count)]


def test_cars_of_another_format(tmp_path):
    savemat(tmp_path / "cars_annos.mat", {"other": 1})
    with pytest.raises(ValueError, match="has no annotations"):
        read_cars(tmp_path)
    (tmp_path / "cars_annos.mat").write_text("<html>")
    with pytest.raises(ValueError, match="has no annotations"):
        read_cars(tmp_path)


def test_sop(tmp_path):
    rows = "59552 11319 1 bicycle_final/251952414262_0.JPG\n59553 11320 2 cabinet_final/x_1.JPG\n"
    (tmp_path / "Ebay_test.txt").write_text("image_id class_id super_class_id path\n" + rows)
    products = read_sop(tmp_path)
    assert products.paths[0] == tmp_path / "bicycle_final" / "251952414262_0.JPG"
    assert products.labels.tolist() == [11319, 11320]
    with pytest.raises(ValueError, match="'val' is unknown"):
        read_sop(tmp_path, "val")


@pytest.mark.parametrize(
    ("read", "name"), [(read_cub, "images.txt"), (read_cars, "cars_annos.mat"), (read_sop, "Ebay")]
)
def test_a_folder_without_the_list(tmp_path: Path, read, name):
    with pytest.raises(FileNotFoundError, match=f"there is no .*{name}.*; give the folder"):
        read(tmp_path)
