"""Data sets on an object store, of which a server on this machine speaks the protocol."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
import tarfile
from pathlib import Path

import damaged
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pipelines import make_sampler

from randfeat.cli import main
from randfeat.data.sources import open_source, remote
from randfeat.features.store import FeatureStore

server = pytest.importorskip("moto.server", reason="moto is not installed: pip install 'moto[server]'")
CLASSES = ("cat", "dog")


def png(number):
    file = io.BytesIO()
    Image.fromarray(damaged.noise(9, 12, seed=number)).save(file, "PNG")
    return file.getvalue()


def fill(root):
    """Write images of two classes below `photos`, the same in two tar files and in two parquet files."""
    for number in range(8):
        folder = root / "photos" / CLASSES[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.png").write_bytes(png(number) if number != 5 else b"a note")
    for part in range(2):
        with tarfile.open(root / f"shard-{part}.tar", "w") as tar:
            for number in range(4 * part, 4 * part + 4):
                for suffix, content in ((".png", png(number)), (".cls", b"%d" % (number % 2))):
                    member = tarfile.TarInfo(f"{number}{suffix}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
        rows = {"image": [{"bytes": png(number), "path": None} for number in range(4 * part, 4 * part + 4)]}
        pq.write_table(pa.table(rows | {"label": [0, 1, 0, 1]}), root / f"train-{part}.parquet", row_group_size=2)


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    """A local folder, and a server with the same files in the bucket `things`."""
    import boto3

    root = tmp_path_factory.mktemp("bucket")
    fill(root)
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (
            ("AWS_ENDPOINT_URL", f"http://{host}:{port}"),
            ("AWS_ACCESS_KEY_ID", "one"),
            ("AWS_SECRET_ACCESS_KEY", "two"),
            ("AWS_DEFAULT_REGION", "us-east-1"),
        ):
            patch.setenv(name, value)
        client = boto3.client("s3")
        client.create_bucket(Bucket="things")
        for file in sorted(root.rglob("*.*")):
            client.upload_file(str(file), "things", file.relative_to(root).as_posix())
        yield root
    running.stop()


@pytest.mark.parametrize("data", ["photos", "shard-{0..1}.tar", "shard-*.tar", "train-*.parquet", "shard-1.tar"])
def test_a_source_is_that_of_the_same_files_on_a_disk(data, bucket):
    there, here = open_source(f"s3://things/{data}"), open_source(f"{bucket}/{data}")
    there = pickle.loads(pickle.dumps(there))
    assert (there.paths, there.labels, there.classes) == (here.paths, here.labels, here.classes)
    assert there.fingerprint() == here.fingerprint()
    assert there.name == f"s3://things/{data}"
    for row in range(len(here)):
        if here.paths[row] != "dog/5.png":
            assert np.array_equal(there.values(row), here.values(row))
    sizes, *times = zip(*there.states(), strict=True)
    assert [*sizes] == [size for size, *_ in here.states()]
    assert min(map(min, times)) > 0


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        ("s3://things/nothing", FileNotFoundError, "there is no file in s3://things/nothing: check the bucket and"),
        ("s3://others/photos", FileNotFoundError, "there is no file in s3://others/photos: check the bucket and"),
        ("s3://things/shard-{0..3}.tar", FileNotFoundError, r"there is no file s3://things/shard-2.tar: check the pat"),
        (
            "s3://things",
            ValueError,
            r"s3://things holds .tar and .parquet and images: name the files of one kind; copy",
        ),
        ("ftp://things/photos", ValueError, "ftp://things/photos is on no object store that can be read: expected s3"),
    ],
)
def test_what_cannot_be_opened_is_one_sentence(data, error, message, bucket):
    with pytest.raises(error, match=message):
        open_source(data)


def test_a_file_that_has_gone_is_unreadable_and_a_store_that_has_gone_is_not(bucket, monkeypatch):
    source = open_source("s3://things/photos")
    monkeypatch.setattr(source, "files", [f"{file}.gone" for file in source.files])
    with pytest.raises(ValueError, match="no such file or directory"):
        source.read(0)
    source = open_source("s3://things/photos")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    remote._filesystem.cache_clear()
    with pytest.raises(OSError, match="NETWORK_CONNECTION"):
        source.read(0)
    remote._filesystem.cache_clear()


@pytest.mark.parametrize(
    ("data", "workers"),
    [
        ("photos", 0),
        ("shard-*.tar", 0),
        ("train-*.parquet", 0),
        pytest.param("photos", 2, marks=pytest.mark.slow),  # which are spawned, and import torch
        pytest.param("train-*.parquet", 2, marks=pytest.mark.slow),
    ],
)
def test_features_are_those_of_the_same_files_on_a_disk(data, workers, bucket, tmp_path, capsys):
    make_sampler().save(tmp_path / "model")
    common = ["extract", str(tmp_path / "model")]
    how = ["--device", "cpu", "--workers", str(workers)]
    code = 3 if data == "photos" else 0
    assert main([*common, f"s3://things/{data}", "-o", str(tmp_path / "there"), *how]) == code
    assert main([*common, f"{bucket}/{data}", "-o", str(tmp_path / "here"), *how]) == code
    for file in ("features.npy", "rows.parquet", "skipped.csv"):
        there, here = tmp_path / "there" / file, tmp_path / "here" / file
        assert there.exists() == here.exists()
        assert not here.exists() or there.read_bytes() == here.read_bytes()
    assert main([*common, f"s3://things/{data}", "-o", str(tmp_path / "there"), *how]) == code
    assert "was complete already" in capsys.readouterr().out


def test_an_image_that_was_replaced_in_as_many_bytes_is_noticed(bucket, tmp_path, capsys):
    import boto3

    make_sampler().save(tmp_path / "model")
    client = boto3.client("s3")
    for name in ("a.png", "b.png"):
        client.put_object(Bucket="things", Key=f"replaced/{name}", Body=png(1))
    command = ["extract", str(tmp_path / "model"), "s3://things/replaced", "-o", str(tmp_path / "out")]
    command += ["--device", "cpu", "--workers", "0"]
    assert main(command) == 0
    before = FeatureStore.open(tmp_path / "out").as_numpy().copy()
    assert (before[0] == before[1]).all()
    source = open_source("s3://things/replaced")
    while [*open_source("s3://things/replaced").states()][1] == [*source.states()][1]:  # seconds, of some stores
        client.put_object(Bucket="things", Key="replaced/b.png", Body=png(1))
    capsys.readouterr()
    assert main(command) == 1
    assert "1 have changed since, such as b.png" in capsys.readouterr().err


def test_a_store_is_written_to_a_disk(bucket, tmp_path, monkeypatch, capsys):
    make_sampler().save(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    assert main(["extract", "model", "s3://things/photos", "-o", "s3://things/out", "--device", "cpu"]) == 1
    assert "results are written to a disk" in capsys.readouterr().err
    assert not Path("s3:").exists()


@pytest.mark.slow
def test_actors_of_ray_read_an_object_store(bucket, tmp_path):
    pytest.importorskip("ray", reason="ray is not installed: pip install 'randfeat[ray]'")
    make_sampler().save(tmp_path / "model")
    common = ["extract", str(tmp_path / "model")]
    engine = ["--engine", "ray", "--workers", "2", "--device", "cpu"]
    command = [sys.executable, "-m", "randfeat", *common, "s3://things/photos", "-o", str(tmp_path / "there"), *engine]
    made = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert made.returncode == 3, made.stderr[-4000:]
    assert main([*common, f"{bucket}/photos", "-o", str(tmp_path / "here"), "--device", "cpu", "--workers", "0"]) == 3
    ours, theirs = FeatureStore.open(tmp_path / "there"), FeatureStore.open(tmp_path / "here")
    assert ours.paths == theirs.paths
    assert ours.skipped == theirs.skipped
    np.testing.assert_allclose(ours.as_numpy(), theirs.as_numpy(), atol=1e-5)
