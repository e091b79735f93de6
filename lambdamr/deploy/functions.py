"""Layers and functions: reading and changing them."""

import base64
import hashlib
from collections.abc import Mapping
from typing import Any

from lambdamr.deploy.aws import Answer, Cloud, until
from lambdamr.deploy.models import Function, Layer, changes, own_tags, pairs
from lambdamr.deploy.naming import Root
from lambdamr.deploy.packaging import Archive
from lambdamr_runtime.errors import DeployError
from lambdamr_runtime.limits import DIRECT_UPLOAD_BYTES

DESCRIPTION = "lambdamr sha256:"
"""The description of a layer and of a function is this and the hash of what is in it."""

_NOT_YET = ("cannot be assumed by Lambda", "does not have permissions to call")
"""What Lambda says of a role that was made or changed seconds ago."""

ROLE_PATIENCE_S = 60.0
"""How long a fresh role may take to be known everywhere."""

_EVENTS = frozenset({"retries", "event_age_s", "on_failure"})
_CODE = frozenset({"code_sha", "architecture"})
_APART = _EVENTS | {"architecture", "tags", "recursion_allowed"}
"""Fields that are not part of a function's configuration."""


def lambda_sha(zipped: bytes) -> str:
    """Return the hash of a zip as Lambda tells it."""
    return base64.b64encode(hashlib.sha256(zipped).digest()).decode()


class LayerKeeper:
    """The versions of the layer, known by what is in them."""

    def __init__(self, cloud: Cloud, archives: Mapping[str, Archive], root: Root) -> None:
        """Take the archives that may be published, by sha, and where large ones are put first."""
        self._cloud = cloud
        self._archives = archives
        self._root = root

    def read(self, name: str) -> tuple[Layer, ...]:
        return tuple(dict.fromkeys(layer for layer, _ in self._versions(name)))

    def arn(self, name: str, sha: str) -> str:
        """Return the ARN of the newest version with these contents.

        Raises:  DeployError: there is none; somebody removed it while we deployed.
        """
        for layer, version in self._versions(name):
            if layer.sha == sha:
                return str(version["LayerVersionArn"])
        raise DeployError(f"The layer {name} has lost its version {sha[:12]}. Deploy again.")

    def sha(self, name: str, arn: str) -> str:
        """Return what is in a version, "" for one that is not ours."""
        for layer, version in self._versions(name):
            if version["LayerVersionArn"] == arn:
                return layer.sha
        return ""

    def _versions(self, name: str) -> list[tuple[Layer, Answer]]:
        """Return the versions, newest first; those that are not ours have no sha and are left."""
        found = []
        for page in self._cloud.pages("lambda", "list_layer_versions", LayerName=name):
            for version in page["LayerVersions"]:
                sha = described(version)
                if sha:
                    layer = Layer(
                        name,
                        sha,
                        _one(version.get("CompatibleRuntimes")).removeprefix("python"),
                        _one(version.get("CompatibleArchitectures")),
                    )
                    found.append((layer, version))
        return sorted(found, key=lambda pair: -int(pair[1]["Version"]))

    def find(self, like: Layer) -> Layer | None:
        return next((layer for layer in self.read(like.name) if layer.sha == like.sha), None)

    def create(self, wanted: Layer) -> None:
        data = self._archives[wanted.sha].data
        if len(data) <= DIRECT_UPLOAD_BYTES:
            answer = self._publish(wanted, {"ZipFile": data})
        else:
            place = {"Bucket": self._root.bucket, "Key": f"{self._root.prefix}{wanted.sha}.zip"}
            self._cloud.call("s3", "put_object", Body=data, **place)
            answer = self._publish(wanted, {f"S3{name}": value for name, value in place.items()})
            self._cloud.call("s3", "delete_object", **place)
        stored = answer["Content"].get("CodeSha256")
        if stored and stored != lambda_sha(data):
            raise DeployError(f"The layer {wanted.label} arrived damaged. Deploy again.")

    def _publish(self, wanted: Layer, content: Mapping[str, Any]) -> Answer:
        return self._cloud.call(
            "lambda",
            "publish_layer_version",
            LayerName=wanted.name,
            Description=f"{DESCRIPTION}{wanted.sha}",
            Content=content,
            CompatibleRuntimes=[f"python{wanted.python}"],
            CompatibleArchitectures=[wanted.architecture],
        )

    def update(self, present: Layer, wanted: Layer) -> None:  # noqa: ARG002 - as all keepers
        """Contents of one hash for another Python: publish them again, the newest counts."""
        self.create(wanted)

    def delete(self, present: Layer) -> None:
        for layer, version in self._versions(present.name):
            if layer.sha == present.sha:
                self._cloud.call(
                    "lambda",
                    "delete_layer_version",
                    LayerName=present.name,
                    VersionNumber=version["Version"],
                )


class FunctionKeeper:
    """Worker and supervisor."""

    def __init__(self, cloud: Cloud, layers: LayerKeeper, layer: str, code: bytes) -> None:
        """Take the name of the layer, and the zip that functions are made of."""
        self._cloud = cloud
        self._layers = layers
        self._layer = layer
        self._code = code

    def read(self, name: str) -> Function | None:
        answer = self._cloud.find("lambda", "get_function", FunctionName=name)
        if answer is None:
            return None
        it = answer["Configuration"]
        recursion = self._cloud.find("lambda", "get_function_recursion_config", FunctionName=name)
        events = self._cloud.find("lambda", "get_function_event_invoke_config", FunctionName=name)
        events = events or {}
        failures = events.get("DestinationConfig", {}).get("OnFailure", {})
        network = it.get("VpcConfig") or {}
        arns = [layer["Arn"] for layer in it.get("Layers", ())]
        return Function(
            name=name,
            code_sha=described(it),
            layer_sha=self._layers.sha(self._layer, arns[0]) if len(arns) == 1 else "",
            role=it["Role"],
            handler=it["Handler"],
            python=it["Runtime"].removeprefix("python"),
            architecture=_one(it.get("Architectures")) or "x86_64",
            memory_mb=int(it["MemorySize"]),
            timeout_s=int(it["Timeout"]),
            tmp_mb=int(it.get("EphemeralStorage", {}).get("Size", 512)),
            environment=pairs(it.get("Environment", {}).get("Variables", {})),
            kms_key=it.get("KMSKeyArn") or "",
            subnets=tuple(sorted(network.get("SubnetIds", ()))),
            security_groups=tuple(sorted(network.get("SecurityGroupIds", ()))),
            recursion_allowed=(recursion or {}).get("RecursiveLoop") == "Allow",
            retries=int(events.get("MaximumRetryAttempts", 2)),  # AWS's own where nothing is set
            event_age_s=int(events.get("MaximumEventAgeInSeconds", 6 * 3600)),
            on_failure=failures.get("Destination", ""),
            tags=own_tags(answer.get("Tags", {})),
        )

    def find(self, like: Function) -> Function | None:
        return self.read(like.name)

    def create(self, wanted: Function) -> None:
        self._patiently(
            "create_function",
            FunctionName=wanted.name,
            Code={"ZipFile": self._code},
            Architectures=[wanted.architecture],
            Tags=dict(wanted.tags),
            **self._configuration(wanted),
        )
        self._await(wanted.name)
        self._set_recursion(wanted)
        self._set_events(wanted)

    def update(self, present: Function, wanted: Function) -> None:
        fields = {change.field for change in changes(present, wanted)}
        self._await(wanted.name)  # an update may still be going on
        if fields & _CODE:
            self._cloud.call(
                "lambda",
                "update_function_code",
                FunctionName=wanted.name,
                ZipFile=self._code,
                Architectures=[wanted.architecture],
            )
            self._await(wanted.name)
        if fields - _APART:
            self._patiently(
                "update_function_configuration",
                FunctionName=wanted.name,
                **self._configuration(wanted),
            )
            self._await(wanted.name)
        if "tags" in fields:
            self._set_tags(present, wanted)
        if "recursion_allowed" in fields:
            self._set_recursion(wanted)
        if fields & _EVENTS:
            self._set_events(wanted)

    def delete(self, present: Function) -> None:
        self._cloud.find("lambda", "delete_function", FunctionName=present.name)

    def _configuration(self, wanted: Function) -> dict[str, Any]:
        """Any: Lambda's own form."""
        network = {
            "SubnetIds": list(wanted.subnets),
            "SecurityGroupIds": list(wanted.security_groups),
        }
        return {
            "Description": f"{DESCRIPTION}{wanted.code_sha}",
            "Runtime": f"python{wanted.python}",
            "Role": wanted.role,
            "Handler": wanted.handler,
            "MemorySize": wanted.memory_mb,
            "Timeout": wanted.timeout_s,
            "EphemeralStorage": {"Size": wanted.tmp_mb},
            "Environment": {"Variables": dict(wanted.environment)},
            "KMSKeyArn": wanted.kms_key,
            "VpcConfig": network,
            "Layers": [self._layers.arn(self._layer, wanted.layer_sha)],
        }

    def _patiently(self, operation: str, **arguments: Any) -> None:
        """Do an operation that a fresh role is refused for some seconds."""
        clock = self._cloud.clock
        deadline, pause_s = clock.monotonic() + ROLE_PATIENCE_S, 0.5
        while True:
            try:
                self._cloud.call("lambda", operation, **arguments)
                return
            except DeployError as error:
                if not any(said in str(error) for said in _NOT_YET):
                    raise
                if clock.monotonic() + pause_s > deadline:
                    raise
            clock.sleep(pause_s)
            pause_s = min(2 * pause_s, 5.0)

    def _await(self, name: str) -> None:
        """Wait until a function can be invoked and changed.

        Raises:  DeployError: it never will.
        """
        until(self._cloud.clock, lambda: self._is_ready(name), f"The function {name}")

    def _is_ready(self, name: str) -> bool:
        it = self._cloud.call("lambda", "get_function_configuration", FunctionName=name)
        state, last = it.get("State", "Active"), it.get("LastUpdateStatus", "Successful")
        if "Failed" in (state, last):
            why = it.get("LastUpdateStatusReason") or it.get("StateReason") or "no reason given"
            raise DeployError(f"AWS could not make the function {name}: {why}")
        return state in ("Active", "Inactive") and last == "Successful"

    def _set_tags(self, present: Function, wanted: Function) -> None:
        it = self._cloud.call("lambda", "get_function_configuration", FunctionName=wanted.name)
        arn = it["FunctionArn"]
        gone = [key for key, _ in present.tags if key not in dict(wanted.tags)]
        if gone:
            self._cloud.call("lambda", "untag_resource", Resource=arn, TagKeys=gone)
        self._cloud.call("lambda", "tag_resource", Resource=arn, Tags=dict(wanted.tags))

    def _set_recursion(self, wanted: Function) -> None:
        """Set whether chains of invocations may be long.

        Raises:  DeployError: AWS set something else; clients would launch chains that it ends.
        """
        setting = "Allow" if wanted.recursion_allowed else "Terminate"
        answer = self._cloud.call(
            "lambda",
            "put_function_recursion_config",
            FunctionName=wanted.name,
            RecursiveLoop=setting,
        )
        if answer["RecursiveLoop"] != setting:
            raise DeployError(
                f"AWS set the recursion of {wanted.name} to {answer['RecursiveLoop']!r} where "
                f"{setting!r} was asked for. Ask whoever governs the account to allow it."
            )

    def _set_events(self, wanted: Function) -> None:
        failures = {"OnFailure": {"Destination": wanted.on_failure}} if wanted.on_failure else {}
        self._patiently(
            "put_function_event_invoke_config",
            FunctionName=wanted.name,
            MaximumRetryAttempts=wanted.retries,
            MaximumEventAgeInSeconds=wanted.event_age_s,
            DestinationConfig=failures,
        )


def described(answer: Answer) -> str:
    """Return the hash in the description of a layer or a function, "" if there is none."""
    description = str(answer.get("Description") or "")
    return description.removeprefix(DESCRIPTION) if description.startswith(DESCRIPTION) else ""


def _one(values: Any) -> str:
    """Return the only one of a list that AWS may leave out; Any: their answer."""
    return str(values[0]) if values else ""
