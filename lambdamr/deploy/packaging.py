"""The two archives that are deployed: the runtime's code, and the packages that it runs on.

    lambdamr_runtime, as installed ──────────────────────────▶ code     zip, entries stored
    layer/requirements.txt + the user's ─ pip download ─▶ wheels ─▶ layer    zip, python/…

Both are deterministic: sorted entries, one timestamp, one mode. An archive is known by the hash of
what is in it, bytecode left out, not of the zip: another zlib or 3.12.2 publishes nothing anew.

pip resolves and downloads; wheels are zips, and their files go into the layer as they are. So the
layer can be built for any platform on any other, without Docker.
"""

import functools
import hashlib
import importlib.util
import io
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from lambdamr.shipping import ZIP_TIME
from lambdamr_runtime.errors import DeployError, PackageTooLarge
from lambdamr_runtime.limits import (
    GLIBC,
    MIB,
    OLD_GLIBC,
    OLD_GLIBC_PYTHONS,
    UNPACKED_BYTES,
)
from lambdamr_runtime.wire import PYTHON_VERSION

RUNTIME = "lambdamr_runtime"
CLIENT = "lambdamr"
ONLY_HERE = tuple(f"{CLIENT}/{part}/" for part in ("aws", "cli", "deploy", "layer"))
"""What of the client a task does not need: its executors are those of the worker around it."""

LAYER_FOLDER = "python"
"""Lambda puts this folder of a layer on sys.path."""

LARGEST_SHOWN = 8
"""How many packages the message names when all are too large."""

_MACHINES = {"x86_64": "x86_64", "arm64": "aarch64"}
_OLDEST_GLIBC = {"x86_64": 5, "arm64": 17}
_LEGACY_TAGS = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
_FILE = 0o100755
"""One mode for all: some packages bring programs of their own."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a function runs on."""

    python: str
    """Minor version, "3.12"."""
    architecture: str
    """x86_64 or arm64, as Lambda names them."""

    @property
    def platforms(self) -> tuple[str, ...]:
        """Return the tags of wheels that run there, the newest glibc first."""
        machine = _MACHINES[self.architecture]
        newest = OLD_GLIBC if self.python in OLD_GLIBC_PYTHONS else GLIBC
        tags = []
        for minor in range(newest, _OLDEST_GLIBC[self.architecture] - 1, -1):
            tags.append(f"manylinux_2_{minor}_{machine}")
            if minor in _LEGACY_TAGS:
                tags.append(f"{_LEGACY_TAGS[minor]}_{machine}")
        return (*tags, f"linux_{machine}")


@dataclass(frozen=True, slots=True)
class Package:
    """A distribution in the layer."""

    name: str
    version: str
    unpacked_bytes: int


@dataclass(frozen=True, slots=True)
class Archive:
    """A zip to deploy."""

    data: bytes
    sha: str
    """SHA-256 of the names and contents, in hex; of code without its bytecode."""
    unpacked_bytes: int
    packages: tuple[Package, ...] = ()
    """What is in it, by name; the runtime's code names none."""

    @property
    def versions(self) -> dict[str, str]:
        """Return distribution -> version."""
        return {package.name: package.version for package in self.packages}


def build_code() -> Archive:
    """Return the runtime as it is installed here, and the client for tasks that use executors.

    Stored, not deflated: the same bytes anywhere. With bytecode, since a task root is read-only:
    compiling took 55 of 135 ms of CPU of a cold start. It is that of this Python, which is the
    functions' too, and of the same source always.
    """
    entries = {
        f"{package}/{name}": file.read_bytes()
        for package in (RUNTIME, CLIENT)
        for name, file in _walk(files(package))
        if not name.endswith((".pyc", ".pyo")) and not f"{package}/{name}".startswith(ONLY_HERE)
    }
    compiled = _archive({**entries, **_bytecode(entries)}, zipfile.ZIP_STORED)
    return replace(compiled, sha=_sha(entries))  # bytecode differs between 3.12.1 and 3.12.2


installed_code = functools.cache(build_code)
"""The same, built once in a process: compiling takes a second."""


def _bytecode(sources: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the compiled modules among *sources*, by the names under which Python finds them.

    A process of its own compiles them: what else this one has loaded leaves traces in the bytes.
    """
    with tempfile.TemporaryDirectory(prefix="lambdamr-code-") as name:
        folder = Path(name)
        for entry, data in sources.items():
            (folder / entry).parent.mkdir(parents=True, exist_ok=True)
            (folder / entry).write_bytes(data)
        subprocess.run(
            [sys.executable, "-I", "-S", "-m", "compileall", "-q", "-s", name,
             "-j", "0", "--invalidation-mode", "unchecked-hash", name],
            stdout=subprocess.DEVNULL,  # some packages have templates that are no Python
        )  # fmt: skip
        compiled = sorted(folder.rglob("*.pyc"))
        return {str(path.relative_to(folder)): path.read_bytes() for path in compiled}


def layer_requirements() -> str:
    """Return the text of layer/requirements.txt, from a checkout or an installed client."""
    return files("lambdamr.layer").joinpath("requirements.txt").read_text()


def pinned(present: Container[str]) -> dict[str, str]:
    """Return distribution -> version of what layer/requirements.txt pins.

    Args:    present: what a layer has; what is pinned for some Pythons only is not missed in it.
    """
    found = {}
    for line in _pins():
        name, _, rest = line.partition("==")
        version, _, marker = rest.partition(";")
        name = name.replace("_", "-").lower()
        if not marker or name in present:
            found[name] = version.strip()
    return found


def build_layer(target: Target, requirements: Sequence[str] = ()) -> Archive:
    """Return the layer: what the runtime imports and what the user adds, for a platform.

    Args:    requirements: the user's, in pip's format.
    Raises:  DeployError: pip is missing, or finds no wheels for that platform.
    """
    with tempfile.TemporaryDirectory(prefix="lambdamr-layer-") as name:
        folder = Path(name)
        listed = folder / "requirements.txt"
        listed.write_text("\n".join((layer_requirements(), *requirements)))
        wheels = folder / "wheels"
        _download(target, listed, wheels)
        return archive_of(sorted(wheels.glob("*.whl")), target.python)


built_layer = functools.cache(build_layer)
"""The same, downloaded once in a process."""


def archive_of(wheels: Sequence[Path], python: str = "") -> Archive:
    """Return the layer that holds the files of wheels.

    Args:    python: of the functions. Where this one makes the bytecode that it reads, that is in
             the layer, unless it would be too large then. /opt is read-only: compiling the
             runtime's own packages took 16 of 87 ms of CPU of each cold start.
    Raises:  DeployError: a wheel is damaged, or two have the same file with other content.
    """
    entries: dict[str, bytes] = {}
    packages = []
    for wheel in wheels:
        contents = dict(_unpack(wheel))
        for name, data in contents.items():
            if entries.setdefault(f"{LAYER_FOLDER}/{name}", data) != data:
                raise DeployError(f"{wheel.name} and another package both have the file {name}.")
        distribution, version = wheel.name.split("-")[:2]
        size = sum(map(len, contents.values()))
        packages.append(Package(distribution.replace("_", "-").lower(), version, size))
    compiled = _bytecode(entries) if python == PYTHON_VERSION else {}
    total = sum(map(len, (*entries.values(), *compiled.values())))
    if total + installed_code().unpacked_bytes > UNPACKED_BYTES:
        compiled = {}
    layer = _archive({**entries, **compiled}, zipfile.ZIP_DEFLATED, packages)
    return replace(layer, sha=_sha(entries))


def check_size(code: Archive, layer: Archive, limit: int = UNPACKED_BYTES) -> None:
    """Refuse what Lambda would refuse, before anything is uploaded.

    Raises:  PackageTooLarge: naming the largest packages and the choices.
    """
    total = code.unpacked_bytes + layer.unpacked_bytes
    if total <= limit:
        return
    largest = sorted(layer.packages, key=lambda package: -package.unpacked_bytes)
    lines = [
        f"  {package.unpacked_bytes / MIB:7.1f} MB  {package.name} {package.version}"
        for package in largest[:LARGEST_SHOWN]
    ]
    raise PackageTooLarge(
        f"Code and packages are {total / MIB:,.1f} MB unpacked; a function of AWS Lambda may have "
        f"{limit / MIB:,.0f} MB. The largest packages:\n" + "\n".join(lines) + "\n"
        "Leave out what the functions do not import; take a smaller build of a package where "
        "there is one; deploy a second runtime (--name) with other packages; or put large data "
        "and models into the store with executor.put()."
    )


# --- wheels -------------------------------------------------------------------------------------
def _download(target: Target, requirements: Path, folder: Path) -> None:
    """Have pip put the wheels of *requirements* and all that they need into *folder*.

    Raises:  DeployError: pip's own words, and what can be done.
    """
    if importlib.util.find_spec("pip") is None:
        raise DeployError(
            f"{sys.executable} has no pip, which downloads the packages of the runtime. Run "
            "`python -m ensurepip`, or `uv pip install pip`."
        )
    run = subprocess.run(
        [sys.executable, "-m", "pip", *_pip_arguments(target, requirements, folder)],
        capture_output=True,
        text=True,
    )
    if run.returncode:
        words = [line for line in run.stderr.splitlines() if line.startswith("ERROR")]
        raise DeployError(
            f"The packages for Python {target.python} on {target.architecture} cannot be "
            "downloaded:\n" + "\n".join(words or [run.stderr.strip()]) + "\n"
            "Only wheels for that platform can be used, since nothing is compiled here: ask for "
            "a version that has one, or build it yourself and name its file in the requirements. "
            f"The runtime itself pins {' '.join(_pins())}."
        )


def _pip_arguments(target: Target, requirements: Path, folder: Path) -> list[str]:
    compact = target.python.replace(".", "")
    return [
        "download", "--quiet", "--disable-pip-version-check", "--no-input",
        "--dest", str(folder), "--only-binary", ":all:",
        "--python-version", target.python, "--implementation", "cp",
        "--abi", f"cp{compact}", "--abi", "abi3", "--abi", "none",
        *(word for tag in target.platforms for word in ("--platform", tag)),
        "--requirement", str(requirements),
    ]  # fmt: skip


def _pins() -> list[str]:
    lines = layer_requirements().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def _unpack(wheel: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the files that installing a wheel puts on sys.path.

    Scripts, headers and data files of `{name}.data` are left out: nobody runs or compiles there.

    Raises:  DeployError: the wheel is damaged or has paths that leave its folder.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            for info in archive.infolist():
                name = _installed_name(info.filename)
                if name is None or info.is_dir():
                    continue
                if name.startswith("/") or ".." in name.split("/"):
                    raise DeployError(f"{wheel.name} has the path {name!r}; it is no proper wheel.")
                yield name, archive.read(info)
    except zipfile.BadZipFile as error:
        raise DeployError(f"{wheel.name} is damaged: {error}. Empty pip's cache.") from error


def _installed_name(name: str) -> str | None:
    top, _, rest = name.partition("/")
    if not top.endswith(".data"):
        return None if name.endswith(".pyc") else name
    scheme, _, path = rest.partition("/")
    return path if scheme in ("purelib", "platlib") and path else None


# --- zips ---------------------------------------------------------------------------------------
def _walk(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, Traversable]]:
    for entry in folder.iterdir():
        if entry.is_file():
            yield f"{prefix}{entry.name}", entry
        elif entry.name != "__pycache__":
            yield from _walk(entry, f"{prefix}{entry.name}/")


def _archive(
    entries: Mapping[str, bytes], compression: int, packages: Iterable[Package] = ()
) -> Archive:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in sorted(entries.items()):
            info = zipfile.ZipInfo(name, ZIP_TIME)
            info.external_attr = _FILE << 16
            info.create_system = 3  # Unix, also where this runs on Windows
            archive.writestr(info, data, compression)
    return Archive(
        buffer.getvalue(),
        _sha(entries),
        sum(map(len, entries.values())),
        tuple(sorted(packages, key=lambda package: package.name)),
    )


def _sha(entries: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name, data in sorted(entries.items()):
        digest.update(f"{name}\0{len(data)}\0".encode())
        digest.update(data)
    return digest.hexdigest()
