"""Sample, Read and Classify."""

from __future__ import annotations

import browsing
import numpy as np
from PIL import Image
from randfeat.probes.report.sheets import pca_maps

from randfeat import Guidance, Sampling, load
from randfeat.data.images import to_pil

WATCH = """() => {
  window.seen = [];
  new MutationObserver(() => {
    const now = document.querySelector('figcaption')?.innerText;
    if (now && now !== window.seen.at(-1)) window.seen.push(now);
  }).observe(document.body, { subtree: true, childList: true, characterData: true });
}"""


def test_a_sample_is_watched(visit, site, place):
    sample = visit(site, "Sample")
    sample.panel.get_by_label("Class").click()
    sample.page.get_by_role("option", name="digit 3").click()
    sample.panel.get_by_label("number input for Guidance").fill("2.5")
    sample.panel.get_by_label("number input for Steps").fill("5")
    sample.panel.get_by_label("Seed", exact=True).fill("11")
    sample.page.evaluate(WATCH)
    sample.press("Sample")
    sample.sees("seed 11, step 5, 16 of 16 tokens")
    seen = sample.page.evaluate("window.seen")
    assert len(seen) >= 3  # moments, of which the browser may leave out some
    assert seen == sorted(seen, key=lambda caption: int(caption.split("step ")[1].split(",")[0]))
    how = Sampling(steps=5, guidance=Guidance(2.5))
    expected = to_pil(load(place / "randar").sample(["digit 3"], how, seed=11)[0])
    made = sample.figures()["seed 11, step 5, 16 of 16 tokens"]
    assert (np.asarray(made) == browsing.as_shown(expected)).all()
    another = "document.querySelector('[aria-label=Seed]')?.value != '{}'"  # is proposed when a sample is done
    sample.page.wait_for_function(another.format(11))
    for wrong in ("", "-4", "1e30"):
        sample.panel.get_by_label("Seed", exact=True).fill(wrong)
        sample.press("Sample")
        assert sample.told() == "The seed is a whole number from 0 to 1,000,000,000."
        sample.panel.get_by_label("Seed", exact=True).fill("5")
        sample.press("Sample")
        sample.sees("seed 5, step 5, 16 of 16 tokens")
        sample.panel.get_by_role("alert").wait_for(state="detached")
        sample.page.wait_for_function(another.format(5))  # else it would replace the next one to be filled in


def test_a_sample_follows_the_edges_of_a_picture(visit, site, controlled, place):
    plain = visit(site, "Sample")
    assert plain.panel.get_by_text("Control").filter(visible=True).count() == 0
    sample = visit(controlled, "Sample")
    sample.sees("Control: a picture whose edges to follow")
    sample.drop(place / "plain" / "0005.png")
    sample.panel.get_by_role("button", name="Remove Image").wait_for()
    sample.panel.get_by_label("number input for Steps").fill("4")
    sample.panel.get_by_label("number input for Control scale").fill("3")
    sample.press("Sample")
    sample.sees("seed 0, step 4, 16 of 16 tokens")
    how = Sampling(steps=4, guidance=Guidance(1.0), control_guidance=Guidance(3.0))
    model, picture = load(place / "edges"), Image.open(place / "plain" / "0005.png")
    (expected,) = model.sample(["digit 0"], how, control=picture)
    made = sample.figures()["seed 0, step 4, 16 of 16 tokens"]
    assert (np.asarray(made) == browsing.as_shown(to_pil(expected))).all()
    sample.panel.get_by_role("button", name="Remove Image").click()
    sample.panel.get_by_label("Seed", exact=True).fill("0")
    sample.press("Sample")
    (without,) = model.sample(["digit 0"], Sampling(steps=4))
    sample.page.wait_for_timeout(500)
    sample.sees("seed 0, step 4, 16 of 16 tokens")
    made = sample.figures()["seed 0, step 4, 16 of 16 tokens"]
    assert (np.asarray(made) == browsing.as_shown(to_pil(without))).all()


def test_a_model_without_labels_and_of_raster_order_samples(visit, raster):
    sample = visit(raster, "Sample")
    for absent in ("Class", "number input for Guidance", "number input for Steps"):
        assert sample.panel.get_by_label(absent).count() == 0
    sample.press("Sample")
    sample.sees("seed 0, step 16, 16 of 16 tokens")


def test_features_are_read_as_colours(visit, site, place):
    read = visit(site, "Read")
    read.drop(place / "plain" / "0004.png")
    read.sees("16 numbers at each of 4 × 4 places")
    model, picture = load(place / "randar"), Image.open(place / "plain" / "0004.png")
    reading = read.panel.get_by_label("Feature spec")
    assert reading.input_value() == model.generator.default_dense_spec

    def shown():
        return np.asarray(list(read.figures().values())[1])

    def expected(spec):
        own, grey = model.features([picture, Image.new(picture.mode, picture.size, 128)], spec)
        return browsing.as_shown(Image.fromarray(pca_maps(own[None], grey)[0]))

    assert (shown() == expected(model.generator.default_dense_spec)).all()
    reading.click()
    read.page.get_by_role("option", name="random*4/full/token/L0.5/none/mean").click()
    read.page.wait_for_timeout(300)
    read.sees("16 numbers")
    assert (shown() == expected("random*4/full/token/L0.5/none/mean")).all()
    for wrong, says in (
        ("raster/causal/token/L9/none/mean", "layers are numbered 1 to 2"),
        (
            "raster/causal/token/L1/mean/mean",
            "gives one vector for the whole picture, not a map: write none as its pool",
        ),
    ):
        reading.fill(wrong)
        reading.press("Enter")
        read.page.wait_for_function(
            "said => document.querySelector('[role=alert]')?.innerText.includes(said)", arg=says
        )
    reading.fill("columns/echo/query/L1,L2/none/concat")
    reading.press("Enter")
    read.sees("32 numbers at each of 4 × 4 places")
    assert read.panel.get_by_role("alert").count() == 0


def test_classes_have_the_probabilities_of_python(visit, site, place):
    classify = visit(site, "Classify")
    go = classify.panel.get_by_role("button", name="Classify", exact=True)
    assert go.is_disabled()
    classify.drop(place / "plain" / "0005.png")
    classify.press("Classify")
    classify.page.wait_for_function("!document.querySelector('progress') && document.querySelector('.bars')")
    classify.sees("read in 16 orders")
    best = load(place / "randar").classify([place / "plain" / "0005.png"], orders=16).top(10)[0]
    rows = [row.split() for row in classify.panel.locator(".bars li").all_inner_texts()]
    assert [" ".join(row[:2]) for row in rows] == [one.name for one in best]
    assert [row[2] for row in rows] == [f"{100 * one.probability:.1f}" for one in best]
    assert sum(float(row[2]) for row in rows) > 99
    classify.press("Remove Image")
    classify.sees("Drop a picture, and press Classify.")
    assert go.is_disabled()


def test_what_a_model_cannot_do_is_said_in_a_sentence(visit, raster):
    page = visit(raster)
    assert page.page.get_by_role("tab", selected=True).inner_text() == "Paint"  # the first that can do something
    page.open("Search")
    page.sees("There is no index to search here: make one with `randfeat index build`, and give it with --index.")
    page.open("Classify")
    page.sees("This model was trained without labels, so it cannot say which class makes a picture likeliest")
    page.open("Read")
    page.panel.get_by_label("Feature spec").click()
    offered = page.page.get_by_role("option").all_inner_texts()
    assert "raster/causal/token/L0.5/none/mean" in " ".join(offered)
    assert "random" not in " ".join(offered)
