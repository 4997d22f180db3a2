"""Settings of sampling: what is refused, and how they are written."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from randfeat.inference.sampling import Sampling
from randfeat.inference.schedules import Guidance


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(temperature=0), "temperature must be above 0, got 0; top_k=1 is greedy"),
        (dict(temperature=float("nan")), "temperature must be above 0, got nan"),
        (dict(top_p=0), r"top_p must be in \(0, 1\], got 0"),
        (dict(top_p=1.1), r"top_p must be in \(0, 1\], got 1.1"),
        (dict(schedule="sine"), "unknown schedule 'sine'"),
        (dict(steps=0), "at least one step, got steps=0"),
        (dict(steps=2.5), "takes whole steps, .* got steps=2.5"),
        (dict(guidance=2.0), r"guidance is an object, got 2.0: write Guidance\(2.0\)"),
        (dict(top_k=2.5), "top_k must be a whole number from 0, got 2.5"),
        (dict(steps=True), "takes whole steps, .* got steps=True"),
        (dict(top_k=True), "top_k must be a whole number from 0, got True"),
        (dict(sweeps=np.True_), "sweeps must be a whole number from 0, got True"),
        (dict(draft=-1), "draft must be a whole number from 0, got -1"),
        (dict(exact=1), "^exact is True or False, got 1$"),
        (dict(exact=True, steps=4), "^exact sampling .* leave steps and sizes out$"),
    ],
)
def test_wrong_settings_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**wrong)


def test_numbers_of_numpy_are_kept_as_plain_ones():
    guidance = Guidance(np.float32(2.5), "linear", np.int64(1), interval=(np.float64(0.25), np.float32(0.5)))
    how = Sampling(np.int64(3), guidance=guidance, temperature=np.float64(0.5), top_k=np.uint8(4), sweeps=np.int32(1))
    kept = asdict(how)
    assert Sampling.from_dict(json.loads(json.dumps(kept))) == how
    assert [type(kept[name]) for name in ("steps", "temperature", "top_k", "sweeps")] == [int, float, int, int]
    assert kept["guidance"]["interval"] == (0.25, 0.5)


def test_settings_are_written_as_they_were_before_there_were_more():
    written = Sampling(4, guidance=Guidance(3.0, "linear", start=0.5)).as_dict()
    assert {"control_guidance", "locality", "exact", "draft", "compile"}.isdisjoint(written)
    assert "power" not in written["guidance"]
    how = Sampling(guidance=Guidance(2.0, power=3.0), control_guidance=Guidance(2.0), locality=(2.0, 1.0), draft=4)
    written = json.loads(json.dumps(how.as_dict()))
    assert written["guidance"]["power"] == 3.0
    assert "power" not in written["control_guidance"]
    assert Sampling.from_dict(written) == how
