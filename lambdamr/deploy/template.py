"""The same resources as CloudFormation, for people who may not make them themselves.

The template names everything as `deploy-runtime` does, so that a later `deploy-runtime` finds it,
has nothing to make, and writes the records. Code and layer are files beside it: whoever makes the
stack puts them into a bucket of the region and names that bucket.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lambdamr.deploy.functions import DESCRIPTION
from lambdamr.deploy.identity import POLICY_NAME
from lambdamr.deploy.models import Bucket, Function, Layer, LogGroup, Resource, Role
from lambdamr.deploy.packaging import Archive
from lambdamr.deploy.storing import UPLOADS_RULE, encryption_rule, tag_list

BUCKET_PARAMETER = "CodeBucket"

Json = dict[str, Any]
"""A part of a template; Any: CloudFormation's own form."""


def template(resources: Sequence[Resource], code: Archive, layer: Archive) -> Json:
    """Return the template that makes *resources*."""
    made: Json = {}
    for resource in resources:
        match resource:
            case Bucket():
                made |= _bucket(resource)
            case Role():
                made["Role"] = _role(resource)
            case LogGroup():
                made[_logs_id(resource.name)] = _logs(resource)
            case Layer():
                made["Layer"] = _layer(resource, layer)
            case Function():
                made |= _function(resource, code, with_role=any(
                    isinstance(it, Role) for it in resources
                ))  # fmt: skip
            case _:
                raise TypeError(f"A template cannot hold a {resource.kind}")
    return {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": "The runtime of lambdamr",
        "Parameters": {
            BUCKET_PARAMETER: {
                "Type": "String",
                "Description": f"Bucket in this region that has {file_name(code, 'runtime')} "
                f"and {file_name(layer, 'layer')}",
            }
        },
        "Resources": made,
    }


def file_name(archive: Archive, what: str) -> str:
    """Return how an archive is called beside a template, and in the bucket."""
    return f"lambdamr-{what}-{archive.sha[:12]}.zip"


def write_template(
    path: Path, resources: Sequence[Resource], code: Archive, layer: Archive
) -> tuple[Path, ...]:
    """Write a template and, beside it, code and layer; returns the three paths."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(template(resources, code, layer), indent=1) + "\n")
    paths = [path]
    for archive, what in ((code, "runtime"), (layer, "layer")):
        paths.append(path.parent / file_name(archive, what))
        paths[-1].write_bytes(archive.data)
    return tuple(paths)


# --- each kind ----------------------------------------------------------------------------------
def _of(kind: str, properties: Json, after: Sequence[str] = (), **more: str) -> Json:
    resource: Json = {"Type": f"AWS::{kind}", "Properties": properties, **more}
    if after:
        resource["DependsOn"] = list(after)
    return resource


def _bucket(bucket: Bucket) -> Json:
    rules: list[Json] = [
        {
            "Id": f"lambdamr {expiry.prefix}",
            "Status": "Enabled",
            "Prefix": expiry.prefix,
            "ExpirationInDays": expiry.days,
        }
        for expiry in bucket.expiries
    ]
    uploads = {"DaysAfterInitiation": bucket.abort_uploads_days}
    rules.append(
        {
            "Id": UPLOADS_RULE,
            "Status": "Enabled",
            "AbortIncompleteMultipartUpload": uploads,
        }
    )
    properties = {
        "BucketName": bucket.name,
        "PublicAccessBlockConfiguration": {
            "BlockPublicAcls": bucket.private,
            "BlockPublicPolicy": bucket.private,
            "IgnorePublicAcls": bucket.private,
            "RestrictPublicBuckets": bucket.private,
        },
        "BucketEncryption": {"ServerSideEncryptionConfiguration": [_encryption(bucket)]},
        "LifecycleConfiguration": {"Rules": rules},
        "Tags": tag_list(bucket.tags),
    }
    # Data outlive the stack, as they outlive `undeploy`.
    made = {"Bucket": _of("S3::Bucket", properties, DeletionPolicy="Retain")}
    if bucket.policy:
        policy = {"Bucket": bucket.name, "PolicyDocument": json.loads(bucket.policy)}
        made["BucketPolicy"] = _of("S3::BucketPolicy", policy, ["Bucket"])
    return made


def _encryption(bucket: Bucket) -> Json:
    """CloudFormation says ServerSideEncryptionByDefault where S3 says Apply…."""
    rule = dict(encryption_rule(bucket))
    rule["ServerSideEncryptionByDefault"] = rule.pop("ApplyServerSideEncryptionByDefault")
    return rule


def _role(role: Role) -> Json:
    properties: Json = {
        "RoleName": role.name,
        "AssumeRolePolicyDocument": json.loads(role.trust),
        "Policies": [{"PolicyName": POLICY_NAME, "PolicyDocument": json.loads(role.policy)}],
        "Tags": tag_list(role.tags),
    }
    if role.permissions_boundary:
        properties["PermissionsBoundary"] = role.permissions_boundary
    return _of("IAM::Role", properties)


def _logs(logs: LogGroup) -> Json:
    properties = {
        "LogGroupName": logs.name,
        "RetentionInDays": logs.retention_days,
        "Tags": tag_list(logs.tags),
    }
    return _of("Logs::LogGroup", properties)


def _layer(layer: Layer, archive: Archive) -> Json:
    properties = {
        "LayerName": layer.name,
        "Description": f"{DESCRIPTION}{layer.sha}",
        "Content": _stored(archive, "layer"),
        "CompatibleRuntimes": [f"python{layer.python}"],
        "CompatibleArchitectures": [layer.architecture],
    }
    return _of("Lambda::LayerVersion", properties)


def _function(function: Function, code: Archive, with_role: bool) -> Json:
    name = _function_id(function.name)
    after = [_logs_id(function.name), *(["Role"] if with_role else [])]
    properties: Json = {
        "FunctionName": function.name,
        "Description": f"{DESCRIPTION}{function.code_sha}",
        "Code": _stored(code, "runtime"),
        "Role": function.role,
        "Handler": function.handler,
        "Runtime": f"python{function.python}",
        "Architectures": [function.architecture],
        "MemorySize": function.memory_mb,
        "Timeout": function.timeout_s,
        "EphemeralStorage": {"Size": function.tmp_mb},
        "Environment": {"Variables": dict(function.environment)},
        "Layers": [{"Ref": "Layer"}],
        "RecursiveLoop": "Allow" if function.recursion_allowed else "Terminate",
        "Tags": tag_list(function.tags),
    }
    if function.kms_key:
        properties["KmsKeyArn"] = function.kms_key
    if function.subnets:
        properties["VpcConfig"] = {
            "SubnetIds": list(function.subnets),
            "SecurityGroupIds": list(function.security_groups),
        }
    return {name: _of("Lambda::Function", properties, after), f"{name}Events": _events(function)}


def _events(function: Function) -> Json:
    properties: Json = {
        "FunctionName": function.name,
        "Qualifier": "$LATEST",
        "MaximumRetryAttempts": function.retries,
        "MaximumEventAgeInSeconds": function.event_age_s,
    }
    after = [_function_id(function.name)]
    if function.on_failure:
        properties["DestinationConfig"] = {"OnFailure": {"Destination": function.on_failure}}
        after.append(_function_id(function.on_failure))
    return _of("Lambda::EventInvokeConfig", properties, after)


def _stored(archive: Archive, what: str) -> Json:
    return {"S3Bucket": {"Ref": BUCKET_PARAMETER}, "S3Key": file_name(archive, what)}


def _function_id(name: str) -> str:
    """Return the logical id of a function, by its name or ARN: Worker or Supervisor."""
    return name.rpartition("-")[2].capitalize()


def _logs_id(name: str) -> str:
    return f"{_function_id(name)}Logs"
