"""The archives that are deployed: complete, the same every time, and not too large."""

import io
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambdamr.deploy.packaging import (
    Archive,
    Package,
    Target,
    archive_of,
    build_code,
    build_layer,
    built_layer,
    check_size,
    layer_requirements,
)
from lambdamr_runtime.errors import DeployError, PackageTooLarge
from lambdamr_runtime.limits import ARCHITECTURES, MIB, PYTHONS
from tests.deploy.conftest import small_layer

REPOSITORY = Path(__file__).resolve().parent.parent.parent


def names(archive: Archive) -> list[str]:
    with zipfile.ZipFile(io.BytesIO(archive.data)) as entries:
        return entries.namelist()


def wheel(folder: Path, name: str, files: dict[str, str]) -> Path:
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
    return path


def test_the_code_is_the_runtime_as_it_stands() -> None:
    """Every source file of the runtime, of the client what a task's executor needs, and their
    bytecode; no more.
    """
    sources = {f"lambdamr_runtime/{p.name}" for p in (REPOSITORY / "runtime").rglob("*.py")}
    client = {
        str(path.relative_to(REPOSITORY))
        for path in (REPOSITORY / "lambdamr").rglob("*.py")
        if path.parent.name not in ("aws", "cli", "deploy")
    }
    typed = {"lambdamr/py.typed", "lambdamr_runtime/py.typed"}
    found = set(names(build_code()))
    assert {name for name in found if not name.endswith(".pyc")} == sources | client | typed
    modules = {name.partition(".")[0].replace("__pycache__/", "") for name in found}
    assert len([name for name in found if name.endswith(".pyc")]) == len(sources | client)
    assert modules == {name.partition(".")[0] for name in sources | client | typed}


def test_two_builds_are_byte_equal(tmp_path: Path) -> None:
    """Nothing of the machine or moment is in the zip: entries are sorted, one date, one mode."""
    first, second = build_code(), build_code()
    assert first == second
    assert small_layer(tmp_path, "1") == small_layer(tmp_path, "1")
    with zipfile.ZipFile(io.BytesIO(first.data)) as archive:
        infos = archive.infolist()
    assert [info.filename for info in infos] == sorted(info.filename for info in infos)
    assert {info.date_time for info in infos} == {(1980, 1, 1, 0, 0, 0)}
    assert {info.external_attr for info in infos} == {0o100755 << 16}
    assert {info.compress_type for info in infos} == {zipfile.ZIP_STORED}


def test_the_code_runs_where_only_it_and_the_layer_are(tmp_path: Path) -> None:
    """Unpacked zips are enough: the handler is imported without lambdamr and site-packages."""
    target = Target(f"{sys.version_info.major}.{sys.version_info.minor}", "x86_64")
    layer = built_layer(target)
    for archive in (build_code(), layer):
        with zipfile.ZipFile(io.BytesIO(archive.data)) as entries:
            entries.extractall(tmp_path)
    folders = [str(tmp_path), str(tmp_path / "python")]
    program = "import lambdamr_runtime.handler as h, obstore as o; print(h.__file__, o.__file__)"
    run = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path[:0] = {folders}; {program}"],
        capture_output=True,
        text=True,
    )
    assert run.stderr == ""
    assert run.stdout.count(str(tmp_path)) == 2
    compiled = f"python/obstore/__pycache__/store.cpython-{target.python.replace('.', '')}.pyc"
    assert compiled in names(layer), "/opt is read-only"
    assert {f"{name}=={version}" for name, version in layer.versions.items()} == {
        line.partition(";")[0].replace("_", "-")
        for line in layer_requirements().splitlines()
        if line and not line.startswith("#")
    }, "every package that is deployed is pinned"


def test_a_layer_is_built_for_another_platform() -> None:
    """Python 3.13 on arm64, whatever runs here; the user's file adds packages."""
    layer = build_layer(Target("3.13", "arm64"), ["six==1.17.0"])
    libraries = [name for name in names(layer) if name.endswith(".so")]
    assert any("cpython-313-aarch64" in name for name in libraries)
    assert not any("x86_64" in name for name in libraries)
    assert not any(name.endswith(".pyc") for name in names(layer)), "3.13 reads none of this one"
    assert layer.versions["six"] == "1.17.0"
    assert "python/six.py" in names(layer)


def test_what_cannot_be_downloaded_is_explained() -> None:
    """The words of pip, the platform, and what can be done."""
    with pytest.raises(DeployError, match=r"(?s)Python 3\.12 on arm64.*six==99\.0.*wheels"):
        build_layer(Target("3.12", "arm64"), ["six==99.0"])


@given(st.sampled_from(PYTHONS), st.sampled_from(ARCHITECTURES))
def test_wheels_never_need_a_newer_glibc(python: str, architecture: str) -> None:
    """Python 3.11 runs with glibc 2.26, the later ones with 2.34; both have manylinux2014."""
    tags = Target(python, architecture).platforms
    minors = [int(tag.split("_")[2]) for tag in tags if tag.startswith("manylinux_2_")]
    assert minors[0] == max(minors) == (26 if python == "3.11" else 34)
    machine = "aarch64" if architecture == "arm64" else architecture
    assert all(tag.endswith(machine) for tag in tags)
    assert f"manylinux2014_{machine}" in tags


def test_the_layer_has_what_a_wheel_would_install(tmp_path: Path) -> None:
    """What is purelib or platlib is merged; scripts, bytecode and headers are left out."""
    path = wheel(
        tmp_path,
        "some_thing",
        {
            "some/__init__.py": "1",
            "some/__pycache__/x.pyc": "2",
            "some_thing-1.0.data/purelib/some/more.py": "3",
            "some_thing-1.0.data/scripts/tool": "4",
            "some_thing-1.0.dist-info/METADATA": "5",
        },
    )
    layer = archive_of([path])
    assert names(layer) == [
        "python/some/__init__.py",
        "python/some/more.py",
        "python/some_thing-1.0.dist-info/METADATA",
    ]
    assert layer.packages == (Package("some-thing", "1.0", 3),)


@pytest.mark.parametrize(
    "files", [{"../out.py": ""}, {"/out.py": ""}, {"x-1.0.data/purelib/../../o.py": ""}]
)
def test_a_wheel_cannot_leave_its_folder(tmp_path: Path, files: dict[str, str]) -> None:
    """Paths that would be written elsewhere are refused."""
    with pytest.raises(DeployError, match="no proper wheel"):
        archive_of([wheel(tmp_path, "x", files)])


def test_two_packages_cannot_have_one_file(tmp_path: Path) -> None:
    """Which one would win is nobody's guess."""
    one, two = (wheel(tmp_path, name, {"same.py": name}) for name in ("one", "two"))
    with pytest.raises(DeployError, match=r"same\.py"):
        archive_of([one, two])


def test_a_damaged_wheel_is_named(tmp_path: Path) -> None:
    """A cut download is an error with its name."""
    path = tmp_path / "cut-1.0-py3-none-any.whl"
    path.write_bytes(b"PK\x03\x04")
    with pytest.raises(DeployError, match=r"cut-1\.0"):
        archive_of([path])


def test_over_the_limit_the_largest_are_named() -> None:
    """What is too large is told before an upload, with the choices; the limit itself passes."""
    packages = (Package("big", "2", 200 * MIB), Package("small", "1", 1 * MIB))
    layer = Archive(b"", "", 201 * MIB, packages)
    check_size(Archive(b"", "", 49 * MIB), layer)
    with pytest.raises(PackageTooLarge, match=r"(?s)251\.0 MB.*250 MB.*200\.0 MB  big 2.*--name"):
        check_size(Archive(b"", "", 50 * MIB), layer)


def test_the_requirements_are_part_of_the_client() -> None:
    """The list that is deployed is that of the checkout."""
    assert layer_requirements() == (REPOSITORY / "layer" / "requirements.txt").read_text()
