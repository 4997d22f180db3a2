"""Package as users get it: one top-level name, every module inside, and an import that costs next to nothing."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path, PurePosixPath

import pytest

from randfeat.weights import zoo

ROOT = Path(__file__).parents[1]
FOLDERS = {
    "randfeat": "randfeat",
    "probes": "randfeat/probes",
    "pretrain": "randfeat/pretrain",
    "configs": "randfeat/configs",
}


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Names of the files that belong into the wheel, and the wheel."""
    out = tmp_path_factory.mktemp("wheel")
    source = out / "source"  # a copy, so that nothing is built into the checkout
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    for name in tracked:
        if (ROOT / name).is_file():
            target = source / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(source)]
    subprocess.run(command, capture_output=True, check=True)
    (made,) = out.glob("*.whl")
    shipped = {
        f"{FOLDERS[folder]}/{inner}"
        for name in tracked
        for folder, _, inner in [name.partition("/")]
        if folder in FOLDERS and (ROOT / name).is_file()
    }
    return shipped, made


def test_the_wheel_owns_one_name_and_holds_every_file(wheel):
    shipped, made = wheel
    names = set(zipfile.ZipFile(made).namelist())
    outside = {PurePosixPath(name).parts[0] for name in names if ".dist-info/" not in name}
    assert outside == {"randfeat"}
    assert {name for name in names if ".dist-info/" not in name} == shipped
    assert "randfeat/py.typed" in names


def test_the_wheel_holds_the_zoo_and_its_images_and_is_small(wheel):
    _, made = wheel
    sizes = {one.filename: one.file_size for one in zipfile.ZipFile(made).infolist()}
    zoo_folder, part = "randfeat/weights/zoo", "randfeat/data/builtin/fashion_part"
    files = ("config.json", "model.safetensors")
    wanted = {f"{zoo_folder}/{name}/{file}" for name in zoo.NAMES for file in ("README.md", *files)}
    wanted |= {f"{zoo_folder}/tokenizer/{file}" for file in files}
    wanted |= {
        f"{part}/{begin}-{kind}-ubyte.xz" for begin in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")
    }
    assert wanted | {f"{part}/README.md", f"{part}/classes.txt"} <= sizes.keys()
    assert sum(size for name, size in sizes.items() if name.startswith((f"{zoo_folder}/", f"{part}/"))) <= 8_000_000
    assert made.stat().st_size <= 10_000_000


@pytest.mark.slow
def test_an_unpacked_wheel_opens_its_models_from_anywhere(wheel, tmp_path):
    zipfile.ZipFile(wheel[1]).extractall(tmp_path / "installed")
    code = (
        "import randfeat; from randfeat.data.builtin import load_fashion_part; from randfeat.weights import zoo; "
        "models = [randfeat.load(name) for name in zoo.NAMES]; "
        "print(randfeat.__file__, [m.features(load_fashion_part().images[:2]).shape[0] for m in models])"
    )
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, cwd=tmp_path / "installed", capture_output=True, text=True, check=True).stdout
    assert found.split()[0] == str(tmp_path / "installed" / "randfeat" / "__init__.py")
    assert found.split(maxsplit=1)[1].strip() == str([2] * len(zoo.NAMES))


def test_import_is_light():
    heavy = ("torch", "faiss", "sklearn", "datasets", "matplotlib", "timm")
    assert python(f"import sys, randfeat; print([m for m in {heavy!r} if m in sys.modules])") == "[]"


def test_an_index_is_searched_without_torch():
    heavy = ("torch", "sklearn", "datasets", "matplotlib", "timm")
    code = "import sys, numpy, randfeat; randfeat.Index(numpy.eye(3), 'abc').search(numpy.eye(3)); "
    assert python(f"{code}print([m for m in {heavy!r} if m in sys.modules])") == "[]"


def test_import_takes_no_longer_than_torch():
    took = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"
    assert float(python(took.format("randfeat"))) < float(python(took.format("torch")))


def test_every_public_name_is_there():
    assert python("import randfeat; print(all(hasattr(randfeat, n) for n in randfeat.__all__))") == "True"


def test_an_unknown_name_is_an_attribute_error():
    import randfeat

    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        randfeat.nonsense  # noqa: B018
