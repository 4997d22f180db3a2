"""The page, its plots and its sheets: what records say stands in them, and nothing that is not so."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from PIL import Image, ImageDraw
from randfeat.probes import (
    Chart,
    CorrespondenceResult,
    Difference,
    Interval,
    Record,
    bootstrap,
    correspondence_sheet,
    curves,
    extremes,
    heat_maps,
    map_sheet,
    pca_maps,
    png,
    retrieval_sheet,
    write_report,
)
from randfeat.probes.report import plots, sheets
from randfeat.probes.report.style import BAD, GOOD, lines, text

N = 24


def picture(path):
    number = int(path.split(".")[0])
    return Image.new("RGB", (20, 10), (10 * number, 0, 255 - 10 * number))


def record(name, task="knn", share=0.8, baseline=False, seed=0, **other):
    rng = np.random.default_rng(seed)
    right = (rng.random(N) < share).astype(float)
    truth = np.array([f"class {i % 3}" for i in range(N)])
    predicted = np.where(right == 1, truth, "class <0>")
    arrays = {"right": right, "paths": np.array([f"{i}.png" for i in range(N)]), "truth": truth, "predicted": predicted}
    if task == "retrieval":
        del arrays["predicted"]
        arrays |= {"nearest": rng.integers(0, N, (N, 4)), "gallery": arrays["paths"]}
    return Record(
        name,
        task,
        {"k=20" if task == "knn" else "map_at_r": bootstrap(right, None, 200)},
        chosen=f"{name}/k=5",
        search={f"{name}/k={k}": 0.5 + k / 100 for k in (1, 5, 9)},
        per_class={one: float(right[truth == one].mean()) for one in np.unique(truth)},
        settings={"baseline": baseline, "test images": N, "train images": 90, "classes": 3, "draws": 200} | other,
        made_with={"randfeat": "0.1", "git": "abc"},
        seconds=3.0,
        arrays=arrays,
    )


@pytest.fixture
def records():
    return [
        record("ours <b>", seed=1),
        record("other", share=0.5, seed=2),
        record("pixels", share=0.3, baseline=True, seed=3),
        record("ours <b>", "retrieval", seed=4),
    ]


# the page -------------------------------------------------------------------------------------------------------------


def test_the_page_says_what_the_records_say_and_needs_nothing_beside_it(records, tmp_path):
    page = write_report(records, tmp_path / "deep" / "out", picture)
    assert page == tmp_path / "deep" / "out" / "report.html"
    html = page.read_text(encoding="utf-8")
    for one in records:
        score = one.scores[one.headline]
        assert f"{100 * score.value:.1f}" in html
        assert f"{100 * score.low:.1f}–{100 * score.high:.1f}" in html
    assert "ours &lt;b&gt;" in html
    assert "<b>" not in html
    assert not re.search(r"(src|href)=[\"'](?!data:|#)", html)
    assert "abc" in html
    assert "24 images" in html
    assert "Holm" in html
    shown = re.findall(r'<img src="data:image/(?:png|jpeg);base64,', html)
    files = sorted(file.name for file in (page.parent / "plots").iterdir())
    assert len(shown) == len(files)
    assert {name.split("-")[0] for name in files} == {"knn", "retrieval"}
    for part in ("intervals", "differences", "search", "confusion", "classes", "mistakes", "best", "worst"):
        assert any(part in name for name in files), part
    assert not any("pixels" in name for name in files)  # details are of models
    for file in (page.parent / "plots").iterdir():
        with Image.open(file) as plot:
            plot.verify()


def test_the_page_says_what_was_chosen_on_train_and_names_metrics_as_papers_do(records, tmp_path):
    searched = records[0]
    searched.scores["chosen"] = Interval(0.123, 0.1, 0.2, N)
    searched.arrays["right chosen"] = searched.arrays["right"]
    records.append(record("pixels", "retrieval", 0.2, baseline=True, seed=5))
    records.append(record("chance (noise)", "retrieval", 0.9, baseline=True, seed=6))
    html = write_report(records, tmp_path, picture).read_text(encoding="utf-8")
    summary = re.search(r"<summary>ours.*?</summary>", html, re.DOTALL)[0]
    assert "k-NN 12.3 [10.0, 20.0]" in summary
    assert "MAP@R" in html
    assert "top-1, k = 20" in html
    assert "map_at_r" not in re.sub(r"<pre>.*?</pre>", "", html, flags=re.DOTALL)
    assert html.count("† the baseline chosen on train, by its score on held-out images there") == 2
    assert "− chance" not in html
    for one in records:
        one.search.clear()
    html = write_report(records, tmp_path, picture).read_text(encoding="utf-8")
    assert "chosen on train, by its score" not in html
    assert html.count("† the baseline with the highest score of the column, since none was held out") == 2


def test_the_head_says_how_many_test_images_cannot_be_right(tmp_path):
    of_unseen = {"test images of unseen classes": 5}
    html = write_report([record("ours", **of_unseen), record("theirs", "linear", **of_unseen)], tmp_path).read_text()
    assert "24 images, 5 of classes that train lacks, which count as wrong" in html
    assert "count as wrong" not in write_report([record("ours")], tmp_path).read_text()


def test_a_page_without_pictures_has_no_sheets(records, tmp_path):
    page = write_report(records[:1], tmp_path)
    files = [file.name for file in (tmp_path / "plots").iterdir()]
    assert not any("mistakes" in name for name in files)
    assert "Paired differences" not in page.read_text(encoding="utf-8")


def test_charts_join_their_record_or_a_section_of_their_own(records, tmp_path):
    content = io.BytesIO()
    Image.new("RGB", (30, 20)).save(content, "PNG")
    charts = [
        Chart("Colours", "of ours", content.getvalue(), "ours <b>"),
        Chart("Maps", "of all <i>", content.getvalue(), "Readings"),
    ]
    html = write_report(records, tmp_path, None, charts).read_text(encoding="utf-8")
    assert html.index("Readings") < html.index("of all &lt;i&gt;")
    assert html.index("In detail") < html.index("of ours")
    assert len(list((tmp_path / "plots").glob("*Maps*.png"))) == 1


def test_a_heavy_page_names_the_files_instead(records, tmp_path, monkeypatch):
    monkeypatch.setattr("randfeat.probes.report.html._EMBEDDED", 30_000)
    page = write_report(records, tmp_path, picture)
    html = page.read_text(encoding="utf-8")
    assert "which would become too heavy" in html
    assert 0 < sum(map(len, re.findall(r"data:image/[^\"]+", html))) <= 30_000


def test_plots_of_an_earlier_page_that_this_one_lacks_go_and_other_files_stay(records, tmp_path):
    write_report(records, tmp_path)
    earlier = {path.name for path in (tmp_path / "plots").iterdir()}
    (tmp_path / "plots" / "mine.png").write_bytes(b"somebody's")
    write_report(records[:1], tmp_path)
    later = {path.name for path in (tmp_path / "plots").iterdir()}
    assert later - {"mine.png"} < earlier
    assert "mine.png" in later
    write_report(records[:1], tmp_path / "new")
    assert later - {"mine.png"} == {path.name for path in (tmp_path / "new" / "plots").iterdir()}


def test_nothing_to_report_is_refused(tmp_path):
    with pytest.raises(ValueError, match="there are no records to report on"):
        write_report([], tmp_path)


# sheets ---------------------------------------------------------------------------------------------------------------


def colours_of(sheet):
    return {f"#{r:02x}{g:02x}{b:02x}" for r, g, b in np.unique(np.asarray(sheet).reshape(-1, 3), axis=0)}


def test_retrieved_images_of_the_class_are_framed_green_and_others_red():
    found = record("ours", "retrieval").arrays
    same = {"nearest": np.array([[i - 3 if i >= 3 else i + 3 for _ in range(4)] for i in range(N)])}
    other = {"nearest": np.array([[(i + 1) % N for _ in range(4)] for i in range(N)])}
    green = colours_of(retrieval_sheet(found | same, range(3), picture))
    red = colours_of(retrieval_sheet(found | other, range(3), picture))
    assert GOOD in green
    assert BAD not in green
    assert BAD in red
    assert GOOD not in red


def test_captions_keep_the_answer(monkeypatch):
    said = []
    write = ImageDraw.ImageDraw.text
    monkeypatch.setattr(
        ImageDraw.ImageDraw,
        "text",
        lambda pen, at, words, *of, **how: (said.append(words), write(pen, at, words, *of, **how)),
    )
    truth = np.array(["German short-haired pointer"] * 2)
    predicted = np.array(["Chesapeake Bay retriever", "pneumonoultramicroscopicsilicovolcanoconiosis"])
    arrays = {"paths": np.array(["1.png", "2.png"]), "truth": truth, "predicted": predicted}
    sheets.mistakes_sheet(arrays, picture)
    assert " ".join(said).count("→ Chesapeake Bay retriever") == 1
    assert any(words.endswith("niosis") for words in said)


def test_best_and_worst_queries_are_apart_and_of_several_labels():
    scores = np.array([1, 1, 1, 0.5, 0, 0, 0])
    best, worst = extremes(scores, np.array(["a", "a", "b", "a", "b", "b", "c"]), 3)
    assert best.tolist()[0] == 0
    assert set(best.tolist()[:2]) == {0, 2}  # one of each label before the second of one
    assert set(worst.tolist()) <= {3, 4, 5, 6}
    assert set(worst.tolist()[:2]) == {4, 6}
    assert not set(best) & set(worst)


def test_mistakes_begin_with_one_of_each_confusion():
    truth = np.array(list("aaabbc"))
    predicted = np.array(list("bbacca"))
    rows = sheets.mistakes(truth, predicted).tolist()
    assert sorted(rows) == [0, 1, 3, 4, 5]
    kinds = [(truth[row], predicted[row]) for row in rows]
    assert len(set(kinds[:3])) == 3
    assert kinds[-1] in kinds[:2]


def test_pca_maps_colour_what_differs_and_do_not_depend_on_the_sign():
    dense = np.zeros((2, 5, 4, 6))
    dense[0, 1, :, 3:] = dense[1, 1, :, :3] = 7  # one direction: the right half of one, the left half of the other
    dense += 1e-3 * np.random.default_rng(0).standard_normal(dense.shape)
    maps = pca_maps(dense)
    assert maps.shape == (2, 4, 6, 3)
    assert maps[0, :, 3:, 0].min() > 240
    assert maps[0, :, :3, 0].max() < 15
    assert maps[1, :, :3, 0].min() > 240
    assert np.array_equal(maps, pca_maps(dense + 100))
    assert (pca_maps(np.ones((1, 3, 2, 2))) == 128).all()
    assert pca_maps(np.random.default_rng(1).random((3, 2, 4, 4))).shape == (3, 4, 4, 3)  # fewer than three dimensions
    with pytest.raises(ValueError, match=r"dense features have shape \(2, 3\)"):
        pca_maps(np.ones((2, 3)))


def test_pca_maps_show_the_image_and_not_the_position():
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 2, (40, 6, 6))  # of each cell of each image
    content = np.array([[0, 2, 0, 0], [1, 0, 0, 0]])[kinds].transpose(0, 3, 1, 2)
    of_positions = 9 * rng.random((4, 6, 6))
    maps = pca_maps(content + of_positions)
    one, other = (maps[kinds == kind] for kind in (0, 1))
    assert abs(np.median(one[:, 0].astype(float)) - np.median(other[:, 0].astype(float))) > 100
    assert max(one[:, 0].std(), other[:, 0].std()) < 30  # a rainbow otherwise, of which the content is a tenth
    alone = pca_maps((content + of_positions)[:1], of_positions)
    assert np.array_equal(alone, pca_maps(content[:1]))
    assert not np.array_equal(pca_maps((content + of_positions)[:1]), alone)


def test_map_sheets_have_a_row_for_each_name():
    pictures = [picture(f"{i}.png") for i in range(3)]
    one = map_sheet(pictures, {"a": np.random.default_rng(0).random((3, 4, 2, 2))})
    two = map_sheet(pictures, {name: np.random.default_rng(0).random((3, 4, 2, 2)) for name in "ab"})
    assert two.height > one.height
    assert two.width == one.width
    more = {"a": np.random.default_rng(0).random((9, 4, 2, 2))}  # further images count for the colours alone
    assert map_sheet(pictures, more).size == one.size


def test_matched_points_are_joined_in_green_or_red():
    ends, points = [picture("1.png"), picture("2.png")], np.array([[3.0, 4.0], [15.0, 6.0]])

    def drawn(right):
        result = CorrespondenceResult(*ends, points, points, points + 1, np.array(right))
        return colours_of(correspondence_sheet([result]))

    assert {GOOD, BAD} <= drawn([True, False])
    assert BAD not in drawn([True, True])
    assert GOOD not in drawn([False, False])


# plots ----------------------------------------------------------------------------------------------------------------


def interval(value):
    return Interval(value, value - 0.1, value + 0.1, 50)


def words(figure):
    return " ".join(found.get_text() for found in figure.findobj(lambda artist: hasattr(artist, "get_text")))


def test_curves_have_a_line_and_a_band_for_each_name():
    figure = curves({"query": {"L1": interval(0.2), "L2": interval(0.4)}, "token": {"L2": interval(0.5)}})
    (axes,) = figure.axes
    assert [line.get_ydata().tolist() for line in axes.lines] == [[20, 40], [50]]
    assert [line.get_xdata().tolist() for line in axes.lines] == [[0, 1], [1]]
    assert len(axes.collections) == 2
    assert "query" in words(figure)


def test_heat_maps_write_every_score_and_frame_the_highest():
    maps = {"raster": {"mean": {"L1": 0.5, "L2": 0.612}}, "random": {"mean": {"L2": 0.9}, "grid2": {"L1": 0.1}}}
    figure = heat_maps(maps)
    said = words(figure)
    for number in ("50.0", "61.2", "90.0", "10.0", "raster", "random", "grid2"):
        assert number in said
    frames = [patch for axes in figure.axes for patch in axes.patches if patch.get_width() == 1]
    assert len(frames) == 1
    with pytest.raises(ValueError, match="hold no score"):
        heat_maps({"a": {"b": {"c": float("nan")}}})


def test_confusions_are_shares_of_the_row():
    figure = plots.confusion(np.array(list("aaab")), np.array(list("aabb")))
    assert {"67", "33", "100"} <= set(words(figure).split())
    with pytest.raises(ValueError, match="1 classes for 2 labels"):
        plots.confusion(np.array(list("ab")), np.array(list("ab")), classes=["a"])


def test_of_many_classes_the_worst_and_the_best_are_shown():
    scores = {f"class {i:03}": i / 100 for i in range(100)}
    said = words(plots.class_bars({"ours": scores}))
    assert "class 000" in said
    assert "class 099" in said
    assert "class 050" not in said
    assert "60 between them are not shown" in said


def test_differences_that_hold_are_in_colour():
    rows = {"a − b": Difference(0.2, 0.1, 0.3, 9, 0.01), "c − d": Difference(-0.01, -0.1, 0.1, 9, 0.8)}
    figure = plots.differences(rows, {"a − b": True, "c − d": False})
    fills = [line.get_markerfacecolor() for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert fills == [GOOD, "w"]


def test_a_search_over_one_number_is_lines_and_others_are_ranked():
    over_c = plots.search({f"x/linear {s} C={c}": c for s in ("none", "l2") for c in (0.1, 0.5, 1)}, "x/linear l2 C=1")
    assert {"linear none", "linear l2"} <= {found.get_text() for found in over_c.axes[0].get_legend().get_texts()}
    ranked = plots.search({"x/a": 0.2, "x/b": 0.7}, "x/b")
    assert [label.get_text() for label in ranked.axes[0].get_yticklabels()] == ["b", "a"]


def test_names_are_shown_as_they_are():
    assert text("a$b$") == r"a\$b\$"
    assert text("_hidden") == " _hidden"
    assert len(text("x" * 500)) <= 62
    content = png(curves({"$x_1$ 数": {"L1": interval(0.5)}}))
    with Image.open(io.BytesIO(content)) as plot:
        assert plot.format == "PNG"


def test_long_names_take_two_lines_before_anything_is_cut():
    name = "random:fashion-randar-free raster+reversed/full/token/L3/grid2/mean"
    shown = lines(name, 44)
    assert shown == "random:fashion-randar-free\nraster+reversed/full/token/L3/grid2/mean"
    assert lines("short", 44) == "short"
    assert lines("x" * 80, 44).replace("\n", "") == "x" * 80
    cut = lines("a/" * 100 + "end", 44).split("\n")
    assert [len(line) <= 46 for line in cut] == [True, True]
    assert cut[1].endswith("end")
    figure = plots.intervals({"MAP@R": {name: interval(0.5), "pixels": interval(0.4)}})
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [lines(name, 44), "pixels"]
    confused = plots.confusion(np.array(["wire-haired fox terrier", "b"]), np.array(["b", "b"]))
    assert "wire-haired fox terrier" in words(confused)


def test_legends_are_beside_the_axes():
    long = "raster+reversed/full token grid2 mean of a long spec"
    for figure in (
        curves({long: {"L1": interval(0.2), "L2": interval(0.4)}, "b": {"L2": interval(0.5)}}),
        plots.class_bars({long: {"a": 0.5, "b": 0.7}, "b": {"a": 0.1, "b": 0.2}}),
        plots.search({f"x/{s} C={c}": c for s in (long, "l2") for c in (0.1, 0.5, 1)}, "x/l2 C=1"),
    ):
        png(figure)  # lays it out
        (axes,) = figure.axes
        assert axes.get_legend().get_window_extent().x0 >= axes.get_window_extent().x1
        assert axes.get_window_extent().width > 2 * figure.dpi
