"""Options that reach far: a key of the user's, every Python and architecture that Lambda has."""

import io
import struct
import zipfile
from collections.abc import Callable, Iterator

import pytest

from lambdamr.deploy.aws import Aws
from lambdamr.deploy.doctor import examine
from lambdamr.deploy.packaging import (
    Archive,
    Target,
    build_layer,
    check_size,
    installed_code,
    pinned,
)
from lambdamr.deploy.permissions import deployer_policy, user_policy
from lambdamr.deploy.settings import Options
from lambdamr_runtime.limits import ARCHITECTURES, PYTHONS
from lambdamr_runtime.store import open_store
from tests.deploy.conftest import Site
from tests.emulator import Credentials

ELF_MACHINES = {"x86_64": 0x3E, "arm64": 0xB7}


def test_a_key_of_the_users(site: Site, as_user: Callable[[Credentials], Aws]) -> None:
    """--kms-key: of the functions' variables and of what is put into the bucket; then no more."""
    key = site.root_client("kms").create_key()["KeyMetadata"]["Arn"]
    names, emulator = site.names, site.emulator
    deployer = emulator.user(
        f"kms-{names.deployment}", deployer_policy(names, names.own_root, kms_key=key)
    )
    site.cloud = as_user(deployer)
    site.deploy(Options(kms_key=key))
    assert site.deploy(Options()) == (), "the key is remembered"
    state = site.state()
    assert state.bucket is not None
    assert state.worker is not None
    assert state.role is not None
    assert (state.bucket.kms_key, state.worker.kms_key) == (key, key)
    assert key in state.role.policy
    s3 = site.root_client("s3")
    (rule,) = s3.get_bucket_encryption(Bucket=names.bucket)["ServerSideEncryptionConfiguration"][
        "Rules"
    ]
    assert rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "aws:kms"
    assert rule["BucketKeyEnabled"]
    assert [it.what for it in examine(site.cloud, names) if not it.ok] == []

    runner = emulator.user(
        f"run-{names.deployment}", user_policy(names, names.own_root, (), (), key)
    )
    as_user(runner)
    store = open_store(names.own_root.uri)
    store.put("jobs/x", b"put")
    assert store.create("jobs/y", b"made", "0" * 16)
    assert store.put_stream("jobs/z", (bytes(1 << 20) for _ in range(9))) == 9 << 20
    assert store.get("jobs/x") == b"put"
    for name in "xyz":
        stored = s3.head_object(Bucket=names.bucket, Key=f"lambdamr/jobs/{name}")
        assert stored["ServerSideEncryption"] == "aws:kms"
        assert stored["SSEKMSKeyId"] == key
    site.cloud = as_user(deployer)
    site.deploy(Options(kms_key=""))
    state = site.state()
    assert state.bucket is not None
    assert state.bucket.kms_key == ""
    for user in ("kms", "run"):
        emulator.remove_user(f"{user}-{names.deployment}")


def libraries(layer: Archive) -> Iterator[tuple[str, bytes]]:
    """Yield the compiled libraries of a layer."""
    with zipfile.ZipFile(io.BytesIO(layer.data)) as archive:
        for name in archive.namelist():
            if name.endswith(".so") or ".so." in name:
                yield name, archive.read(name)


@pytest.mark.soak
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("python", PYTHONS)
def test_a_layer_for_each_platform(python: str, architecture: str) -> None:
    """Wheels for that Python and processor alone, all that is pinned, and within the limit; of
    which test_a_layer_is_built_for_another_platform does one.
    """
    layer = build_layer(Target(python, architecture))
    check_size(installed_code(), layer)
    tag = f"cpython-{python.replace('.', '')}-"
    found = dict(libraries(layer))
    assert found
    for name, data in found.items():
        (machine,) = struct.unpack_from("<H", data, 18)
        assert machine == ELF_MACHINES[architecture], name
        assert tag in name or "abi3" in name or "cpython" not in name, name
    assert pinned(layer.versions).items() <= layer.versions.items()
