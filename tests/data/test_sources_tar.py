"""Tar files: WebDataset shards and ImageNet as people have it."""

import io
import pickle
import random
import tarfile

import damaged
import numpy as np
import pytest
from PIL import Image

from randfeat.data.decode import UnreadableImage
from randfeat.data.sources import open_source
from randfeat.data.sources.tar import index


def png(level):
    buffer = io.BytesIO()
    Image.new("L", (4, 4), level).save(buffer, "PNG")
    return buffer.getvalue()


def write_tar(path, members, format=tarfile.PAX_FORMAT):
    """members: content by name; a number stands for an image of that level."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=format) as archive:
        for name, content in members.items():
            content = png(content) if isinstance(content, int) else content
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def levels(source):
    return [source.read(i).getpixel((0, 0)) for i in range(len(source))]


# WebDataset ----------------------------------------------------------------------------------------------------------


def shards(root, count=3):
    for shard in range(count):
        write_tar(root / f"shards-{shard:03}.tar", {f"{shard}.png": 10 * shard, f"{shard}.cls": f"{shard}\n".encode()})
    return root


@pytest.mark.parametrize("pattern", ["shards-{000..002}.tar", "shards-*.tar", "shards-00{0,1,2}.tar", ""])
def test_shards_are_read_in_order(pattern, tmp_path):
    source = open_source(f"{shards(tmp_path)}/{pattern}")
    assert source.paths == ["shards-000.tar/0.png", "shards-001.tar/1.png", "shards-002.tar/2.png"]
    assert (source.labels, source.classes) == ([0, 1, 2], None)
    assert levels(source) == [0, 10, 20]


def test_a_pattern_may_name_some_and_must_name_what_is_there(tmp_path):
    shards(tmp_path)
    assert len(open_source(f"{tmp_path}/shards-{{001..002}}.tar")) == 2
    assert open_source(tmp_path / "shards-001.tar").labels == [1]
    with pytest.raises(FileNotFoundError, match=r"there is no file .*shards-003.tar, which .*names: check the pattern"):
        open_source(f"{tmp_path}/shards-{{000..009}}.tar")


def test_shards_of_several_folders_keep_their_names_apart(tmp_path):
    for folder in ("a", "b"):
        write_tar(tmp_path / folder / "0.tar", {"x.png": 1})
    assert open_source(f"{tmp_path}/{{a,b}}/0.tar").paths == ["a/0.tar/x.png", "b/0.tar/x.png"]
    assert open_source(tmp_path).paths == ["a/0.tar/x.png", "b/0.tar/x.png"]


def test_names_of_shards_say_the_split(tmp_path):
    write_tar(tmp_path / "set-train-0.tar", {"x.png": 1})
    write_tar(tmp_path / "set-val-0.tar", {"y.png": 2})
    assert open_source(tmp_path, "validation").paths == ["set-val-0.tar/y.png"]
    with pytest.raises(ValueError, match="has the splits train, val: say which one"):
        open_source(tmp_path)


@pytest.mark.parametrize(
    ("members", "labels", "classes"),
    [
        ({"a.jpg.png": 1, "a.cls": b"2", "b.png": 3, "b.cls": b" 0\n"}, [2, 0], None),
        ({"a.png": 1, "a.cls": b"dog", "b.png": 3, "b.cls": b"cat"}, [1, 0], ["cat", "dog"]),
        ({"a.json": b'{"label": 5, "text": "x"}', "a.png": 1, "b.png": 3, "b.json": b'{"label": 4}'}, [5, 4], None),
        ({"a.png": 1, "a.json": b'{"class": "dog"}', "b.png": 3, "b.json": b'{"cls": "cat"}'}, [1, 0], ["cat", "dog"]),
        ({"a.png": 1, "a.json": b'{"label": 5}', "a.cls": b"1", "b.png": 3, "b.cls": b"2"}, [1, 2], None),
        ({"./dog/a.png": 1, "./cat/b.png": 3}, [1, 0], ["cat", "dog"]),
        ({"train/10/a.png": 1, "train/9/b.png": 3}, [0, 1], ["10", "9"]),
        ({"a.png": 1, "a.txt": b"a caption", "b.png": 3, "._b.png": b"a ghost", "b.json": b"[]"}, None, None),
    ],
)
@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_labels_come_from_beside_an_image_or_its_folder(members, labels, classes, format, tmp_path):
    source = open_source(write_tar(tmp_path / "x.tar", members, format))
    assert (source.labels, source.classes) == (labels, classes)
    assert levels(source) == [1, 3]


def test_long_names_are_whole(tmp_path):
    name = "folder/" + "long" * 40 + "é.png"
    assert open_source(write_tar(tmp_path / "x.tar", {name: 1, "y/z.png": 2})).paths[0] == f"x.tar/{name}"


def test_a_damaged_member_is_one_row(tmp_path):
    members = {f"{i:02}.jpg": b"" for i in range(len(damaged.DAMAGES))}
    for number, how in enumerate(damaged.DAMAGES):
        members[f"{number:02}.jpg"] = damaged.write_damaged(tmp_path / "scratch", how).read_bytes()
    source = open_source(write_tar(tmp_path / "set/x.tar", members | {"good.png": 7}))
    for number, how in enumerate(damaged.DAMAGES):
        with pytest.raises(UnreadableImage, match=damaged.REASONS[how]):
            source.read(number)
    assert source.read(len(source) - 1).getpixel((0, 0)) == 7


def test_a_tar_that_changes_afterwards_gives_reasons(tmp_path):
    path = write_tar(tmp_path / "x.tar", {"a.png": 1, "b.png": 2})
    source = open_source(path)
    content = path.read_bytes()
    path.write_bytes(content[:1600])  # within b.png
    assert source.read(0).getpixel((0, 0)) == 1
    with pytest.raises(UnreadableImage, match="truncated"):
        source.read(1)
    path.unlink()
    with pytest.raises(UnreadableImage, match=r"no such file: .*x\.tar"):
        source.read(0)


def test_only_headers_are_read_to_list(tmp_path):
    path = write_tar(tmp_path / "x.tar", {f"{i}.png": bytes(100_000) for i in range(5)})
    assert [(member.name, member.size) for member in index(path)] == [(f"{i}.png", 100_000) for i in range(5)]
    source = open_source(path)
    assert len(pickle.dumps(source)) < 5000
    assert list(source.sizes()) == [100_000] * 5


def cut(at):
    return lambda content: content[:at]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut(0), "is no tar file, or damaged"),
        (cut(300), "is no tar file, or damaged"),
        (cut(1400), "is no tar file, or damaged"),  # within the second header
        (cut(1600), "is no tar file, or damaged"),  # within the second image
        (
            lambda content: content[:1024] + b"?" * 512 + content[1536:],
            "damaged .no header at byte 1024.: get it again",
        ),
        (lambda content: b"\x1f\x8b" + content, "x.tar is compressed, so single images cannot be read: decompress it"),
        (lambda content: b"text", "is no tar file, or damaged"),
    ],
)
def test_damaged_tar_files_are_refused(damage, message, tmp_path):
    path = write_tar(tmp_path / "x.tar", {"a.png": 1, "b.png": 2})
    assert path.read_bytes()[1024:1029] == b"b.png"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=message) as error:
        open_source(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a.png": 1, "a.cls": b"1", "b.png": 2}, "has no label for x.tar/b.png, but for others"),
        ({"a.png": 1, "a.cls": b"\xff"}, "x.tar/a.cls holds no label: expected text"),
        ({"a.png": 1, "a.json": b"{"}, "x.tar/a.json holds no label: expected JSON"),
        ({"a.txt": b"1"}, "hold neither images nor .npy files of tokens"),
        ({}, "hold neither images nor .npy files of tokens"),
    ],
)
def test_wrong_shards_are_refused(members, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        open_source(write_tar(tmp_path / "x.tar", members))


def test_a_name_that_is_there_twice_is_refused(tmp_path):
    path = write_tar(tmp_path / "x.tar", {"a.png": 1})
    with tarfile.open(path, "a") as archive:
        archive.addfile(tarfile.TarInfo("a.png"), io.BytesIO())
    with pytest.raises(ValueError, match=r"has x.tar/a.png more than once"):
        open_source(path)


def test_a_folder_of_two_forms_is_refused(tmp_path):
    shards(tmp_path)
    (tmp_path / "x.png").write_bytes(png(1))
    with pytest.raises(ValueError, match="holds 1 images and 3 tar files: name the folder or the files of one kind"):
        open_source(tmp_path)


# ImageNet ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wnids():
    """The 1,000 WordNet ids in timm's order."""
    from timm.data import ImageNetInfo

    return list(ImageNetInfo("imagenet-1k").label_names())


def shuffled(names):
    return random.Random(0).sample(names, len(names))


def test_class_tars_have_the_official_order(wnids, tmp_path):
    for wnid in shuffled(wnids):
        write_tar(tmp_path / f"{wnid}.tar", {f"{wnid}_1.JPEG": b"", f"{wnid}_2.JPEG": b""})
    source = open_source(tmp_path)
    assert source.classes == wnids
    assert source.labels == [label for label in range(1000) for _ in range(2)]
    assert source.paths[-1] == "n15075141.tar/n15075141_2.JPEG"


def test_the_tar_of_class_tars_has_the_official_order(wnids, tmp_path):
    image = {wnid: png(place % 256) for place, wnid in enumerate(wnids)}
    inner = {
        f"{wnid}.tar": write_tar(tmp_path / "x", {f"{wnid}_7.JPEG": image[wnid]}).read_bytes()
        for wnid in shuffled(wnids)
    }
    source = open_source(write_tar(tmp_path / "set/ILSVRC2012_img_train.tar", inner))
    assert source.classes == wnids
    assert sorted(source.labels) == list(range(1000))
    for row in (0, 500, 999):
        wnid = wnids[source.labels[row]]
        assert source.paths[row] == f"ILSVRC2012_img_train.tar/{wnid}.tar/{wnid}_7.JPEG"
        assert source.read(row).getpixel((0, 0)) == source.labels[row] % 256
    assert np.array_equal(pickle.loads(pickle.dumps(source)).read(3), source.read(3))


def test_class_folders_have_the_official_order(wnids, tmp_path):
    for wnid in shuffled(wnids):
        (tmp_path / "train" / wnid).mkdir(parents=True)
        (tmp_path / "train" / wnid / f"{wnid}_1.JPEG").touch()
    (tmp_path / "val" / wnids[7]).mkdir(parents=True)
    (tmp_path / "val" / wnids[7] / "ILSVRC2012_val_00000001.JPEG").touch()
    train, val = open_source(tmp_path, "train"), open_source(tmp_path, "val")
    assert train.classes == val.classes == wnids
    assert (train.labels, val.labels) == (list(range(1000)), [7])


IDS = {3: "n00000001", 1: "n00000002", 2: "n00000003"}  # of a kit with three classes, and two nodes above them
TRUTH = [2, 3, 1, 1]  # ids of four images
EXPECTED = [2, 0, 1, 1]


def write_kit(folder):
    from scipy.io import savemat

    kinds = [("ILSVRC2012_ID", "f8"), ("WNID", "O"), ("words", "O"), ("num_children", "f8")]
    nodes = [(id, wnid, "a, b", 0) for id, wnid in sorted(IDS.items())]
    synsets = np.array([*nodes, (4, "n00000000", "above", 2), (5, "n00000009", "above", 1)], dtype=kinds)
    folder.mkdir(parents=True)
    savemat(folder / "meta.mat", {"synsets": synsets.reshape(-1, 1)})
    (folder / "ILSVRC2012_validation_ground_truth.txt").write_text("".join(f"{id}\n" for id in TRUTH))
    return folder


def write_kit_tar(path, scratch):
    data = write_kit(scratch)
    with tarfile.open(path, "w:gz") as archive:
        archive.add(data, "ILSVRC2012_devkit_t12/data")
    return path


def write_validation(folder, numbers=(1, 2, 3, 4)):
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        (folder / f"ILSVRC2012_val_{number:08}.JPEG").write_bytes(png(number))
    return folder


def test_flat_validation_images_find_the_kit_beside_them(tmp_path):
    flat = write_validation(tmp_path / "val")
    assert open_source(flat).labels is None
    write_kit_tar(tmp_path / "ILSVRC2012_devkit_t12.tar.gz", tmp_path / "scratch")
    source = open_source(flat)
    assert (source.labels, source.classes) == (EXPECTED, sorted(IDS.values()))
    assert open_source(tmp_path, "val").labels == EXPECTED
    (flat / "ILSVRC2012_val_00000002.JPEG").unlink()  # the others keep theirs
    assert open_source(flat).labels == [EXPECTED[0], *EXPECTED[2:]]


def test_the_kit_may_be_unpacked(tmp_path):
    flat = write_validation(tmp_path / "val")
    write_kit(tmp_path / "ILSVRC2012_devkit_t12/data")
    assert open_source(flat).labels == EXPECTED


def test_the_kit_may_be_named(tmp_path):
    flat, kit = write_validation(tmp_path / "here/val"), write_kit(tmp_path / "there/devkit/data")
    for labels in (kit, kit.parent, kit / "ILSVRC2012_validation_ground_truth.txt"):
        source = open_source(flat, labels=labels)
        assert (source.labels, source.classes) == (EXPECTED, sorted(IDS.values()))
    packed = write_kit_tar(tmp_path / "ILSVRC2012_devkit_t12.tar.gz", tmp_path / "scratch")
    assert open_source(flat, labels=packed).labels == EXPECTED


def test_the_validation_tar_finds_the_kit(tmp_path):
    members = {f"ILSVRC2012_val_{number:08}.JPEG": number for number in (1, 2, 3, 4)}
    path = write_tar(tmp_path / "ILSVRC2012_img_val.tar", members)
    write_tar(tmp_path / "ILSVRC2012_img_train.tar", {"n00000001/x.JPEG": 1})
    write_kit_tar(tmp_path / "ILSVRC2012_devkit_t12.tar.gz", tmp_path / "scratch")
    assert open_source(path).labels == EXPECTED
    assert open_source(tmp_path, "val").labels == EXPECTED
    assert open_source(tmp_path, "train").classes == ["n00000001"]


def test_wrong_kits_are_refused(tmp_path):
    flat = write_validation(tmp_path / "val", (1, 5))
    kit = write_kit(tmp_path / "kit/data")
    with pytest.raises(ValueError, match=r"ILSVRC2012_val_00000005.JPEG is none of the 4 images that"):
        open_source(flat, labels=kit)
    flat = write_validation(tmp_path / "other", (1,))
    (kit / "meta.mat").write_bytes(b"no matrix")
    with pytest.raises(ValueError, match=r"meta.mat of .* is not that of ImageNet's development kit"):
        open_source(flat, labels=kit)
    (kit / "meta.mat").unlink()
    with pytest.raises(ValueError, match=r"data has no meta.mat: the labels of ImageNet's development kit need both"):
        open_source(flat, labels=kit / "ILSVRC2012_validation_ground_truth.txt")
    packed = tmp_path / "ILSVRC2012_devkit_t12.tar.gz"
    for content in (b"text", write_kit_tar(packed, tmp_path / "scratch").read_bytes()[:300]):
        packed.write_bytes(content)
        with pytest.raises(ValueError, match=r"t12.tar.gz (is damaged|has no)"):
            open_source(flat, labels=packed)
    with tarfile.open(packed, "w:gz") as archive:
        archive.add(kit, "ILSVRC2012_devkit_t12/data")
    with pytest.raises(ValueError, match=r"t12.tar.gz has no meta.mat: get it again"):
        open_source(flat, labels=packed)


def test_validation_images_do_not_open_a_kit_of_other_images(tmp_path):
    write_kit(tmp_path / "ILSVRC2012_devkit_t12/data")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/x.JPEG").write_bytes(png(1))
    assert open_source(tmp_path / "mine").labels is None
