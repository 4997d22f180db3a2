import os
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from randfeat.probes.tasks.pickles import read_pickle

plain_st = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def written(tmp_path, value, protocol=2):
    path = tmp_path / "values.pkl"
    path.write_bytes(pickle.dumps(value, protocol))
    return path


@given(plain_st, st.integers(0, 5))
@settings(max_examples=80, deadline=None)
def test_plain_values_come_back(tmp_path_factory, value, protocol):
    assert read_pickle(written(tmp_path_factory.mktemp("pickle"), value, protocol)) == value


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    "array",
    [
        np.arange(6).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.array([1, 2], dtype=">i4"),
        np.array(["ab", "c"]),
        np.array([b"ab"]),
        np.array([True, False]),
        np.zeros((0, 4), dtype=np.float32),
        np.array(3.5),
    ],
    ids=repr,
)
def test_arrays_and_their_numbers_come_back(tmp_path, protocol, array):
    back, number = read_pickle(written(tmp_path, [array, np.float64(0.5)], protocol))
    assert (back.dtype.newbyteorder("="), number) == (array.dtype.newbyteorder("="), 0.5)
    assert back.shape == array.shape
    np.testing.assert_array_equal(back, array)


def test_sets_and_arrays_written_by_python_2(tmp_path):
    assert read_pickle(written(tmp_path, {1, 2})) == {1, 2}
    old = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x02\x85cnumpy\ndtype\n"
        b"U\x02i4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x08\x01\x00\x00\x00\xff\x00\x00\x00tb."
    )
    (tmp_path / "old.pkl").write_bytes(old)
    assert read_pickle(tmp_path / "old.pkl").tolist() == [1, 255]


class Runs:
    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call[0], self.call[1:]


@pytest.mark.parametrize(
    ("call", "named"),
    [
        ((os.mkdir, "made"), "mkdir"),
        ((eval, "1"), "eval"),
        ((getattr, 1, "real"), "getattr"),
        ((np.load, "x.npy"), "load"),
        ((np.save, "made", 1), "save"),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_code_is_refused_and_not_run(tmp_path, monkeypatch, call, named, protocol):
    path = written(tmp_path, {"gnd": [Runs(*call)]}, protocol)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=rf"asks for .*{named}, expected plain containers"):
        read_pickle(path)
    assert [path.name for path in tmp_path.iterdir()] == ["values.pkl"]


@pytest.mark.parametrize(
    "array", [np.array([{}], dtype=object), np.array([(1, 2)], dtype="i4,i4"), np.zeros(2, "M8[s]")]
)
def test_arrays_of_anything_but_numbers_and_text_are_refused(tmp_path, array):
    with pytest.raises(ValueError, match=r"asks for arrays of type '.*', expected"):
        read_pickle(written(tmp_path, array))


def test_a_state_that_claims_more_memory_than_it_holds_is_refused(tmp_path):
    honest = pickle.dumps(np.arange(4, dtype=np.uint8), 2)
    (tmp_path / "lies.pkl").write_bytes(honest.replace(b"K\x04\x85", b"K\x7f\x85"))
    with pytest.raises(ValueError, match="is no readable pickle"):
        read_pickle(tmp_path / "lies.pkl")


@pytest.mark.parametrize("content", [b"", b"<html>", pickle.dumps([1, 2, 3])[:-4]])
def test_broken_files_say_so(tmp_path, content):
    (tmp_path / "broken.pkl").write_bytes(content)
    with pytest.raises(ValueError, match="is no readable pickle"):
        read_pickle(tmp_path / "broken.pkl")


def test_objects_outside_the_file_are_refused(tmp_path):
    (tmp_path / "outside.pkl").write_bytes(b"Pname\n.")
    with pytest.raises(ValueError, match="asks for the outside object 'name'"):
        read_pickle(tmp_path / "outside.pkl")
