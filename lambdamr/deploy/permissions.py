"""Who may do what: every policy document of a deployment, made from its names and settings.

    role_policy       what the functions may do
    bucket_policy     what nobody may do with lambdamr's own bucket
    deployer_policy   what whoever runs `deploy-runtime` and `undeploy` needs
    user_policy       what whoever runs jobs needs

docs/aws.md shows the last two; tests deploy and run with exactly these.
"""

import json
from collections.abc import Sequence
from typing import Any

from lambdamr.deploy.naming import Names, Root

Document = dict[str, Any]
"""A policy in AWS's own form; Any: JSON of theirs."""

LAMBDA_SERVICE = "lambda.amazonaws.com"

_OBJECTS = (
    "s3:GetObject",
    "s3:PutObject",
    "s3:DeleteObject",
    "s3:AbortMultipartUpload",
    "s3:ListMultipartUploadParts",
)
_KEY_OF_OBJECTS = ("kms:Decrypt", "kms:GenerateDataKey")
_NETWORK = (
    "ec2:CreateNetworkInterface",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSubnets",
    "ec2:DeleteNetworkInterface",
    "ec2:AssignPrivateIpAddresses",
    "ec2:UnassignPrivateIpAddresses",
)


def canonical(document: Document) -> str:
    """Return a document so that equal ones are equal texts."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"))


def _document(*statements: Document) -> Document:
    return {"Version": "2012-10-17", "Statement": list(statements)}


def _allow(
    actions: Sequence[str], resources: Sequence[str], condition: Document | None = None
) -> Document:
    statement: Document = {
        "Effect": "Allow",
        "Action": list(actions),
        "Resource": list(resources),
    }
    if condition:
        statement["Condition"] = condition
    return statement


# --- the functions ------------------------------------------------------------------------------
def trust_policy() -> Document:
    """Lambda alone may act as the role."""
    return _document(
        {
            "Effect": "Allow",
            "Principal": {"Service": LAMBDA_SERVICE},
            "Action": "sts:AssumeRole",
        }
    )


def role_policy(
    names: Names,
    root: Root,
    read: Sequence[str],
    write: Sequence[str],
    kms_key: str = "",
    in_vpc: bool = False,
) -> Document:
    """Return what worker and supervisor may do, and no more.

    Args:    read, write: s3://bucket/prefix; everything that begins so.
    """
    functions = [names.function_arn(name) for name in (names.worker, names.supervisor)]
    logs = [f"{names.log_arn(name)}:*" for name in (names.worker, names.supervisor)]
    statements = [
        _listing(names, root.bucket, root.prefix, whole=root.bucket == names.bucket),
        _allow(_OBJECTS, [f"{names.bucket_arn(root.bucket)}/{root.prefix}*"]),
        _allow(["lambda:InvokeFunction"], functions),
        _allow(["logs:CreateLogStream", "logs:PutLogEvents"], logs),
        _allow(["logs:FilterLogEvents"], logs[:1]),  # the last words of a worker that died
    ]
    for uri in read:
        statements += _access(names, uri, ["s3:GetObject"])
    for uri in write:
        statements += _access(names, uri, _OBJECTS)
    if kms_key:
        statements.append(_allow(_KEY_OF_OBJECTS, [kms_key]))
    if in_vpc:
        statements.append(_allow(_NETWORK, ["*"]))  # these know no resources
    return _document(*statements)


def _access(names: Names, uri: str, actions: Sequence[str]) -> list[Document]:
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    return [
        _listing(names, bucket, prefix, whole=not prefix),
        _allow(actions, [f"{names.bucket_arn(bucket)}/{prefix}*"]),
    ]


def _listing(names: Names, bucket: str, prefix: str, whole: bool) -> Document:
    """Whoever may not list a bucket is told 403 for a missing key, not 404.

    The condition holds for listings alone: a GET has no prefix. So in a bucket that lambdamr shares
    with others a missing key is "forbidden", and means the same.
    """
    condition = None if whole else {"StringLike": {"s3:prefix": f"{prefix}*"}}
    return _allow(["s3:ListBucket"], [names.bucket_arn(bucket)], condition)


def bucket_policy(names: Names) -> Document:
    """Nobody talks to the bucket without TLS."""
    arn = names.bucket_arn(names.bucket)
    return _document(
        {
            "Effect": "Deny",
            "Principal": "*",
            "Action": "s3:*",
            "Resource": [arn, f"{arn}/*"],
            "Condition": {"Bool": {"aws:SecureTransport": "false"}},
        }
    )


# --- people -------------------------------------------------------------------------------------
def user_policy(
    names: Names, root: Root, read: Sequence[str], write: Sequence[str], kms_key: str = ""
) -> Document:
    """Return what running jobs needs: the client plans the input and launches the worker."""
    statements = [
        _listing(names, root.bucket, root.prefix, whole=root.bucket == names.bucket),
        _allow(_OBJECTS, [f"{names.bucket_arn(root.bucket)}/{root.prefix}*"]),
        _allow(
            [
                "lambda:InvokeFunction",
                "lambda:GetFunctionConfiguration",
                "lambda:GetFunctionConcurrency",
            ],
            [names.function_arn(names.worker)],
        ),
        _allow(["lambda:GetAccountSettings"], ["*"]),  # knows no resources, nor do metrics:
        _allow(["cloudwatch:GetMetricData"], ["*"]),  # `status JOB` says who was throttled
    ]
    for uri in read:
        statements += _access(names, uri, ["s3:GetObject"])
    for uri in write:
        statements += _access(names, uri, _OBJECTS)
    if kms_key:
        statements.append(_allow(_KEY_OF_OBJECTS, [kms_key]))
    return _document(*statements)


def deployer_policy(
    names: Names, root: Root, in_vpc: bool = False, with_role: bool = True, kms_key: str = ""
) -> Document:
    """Return what deploying, looking at and removing needs.

    Args:    with_role: whether the role is made here; False where --role names one.
             kms_key: of --kms-key: for the record in the bucket, and for Lambda, which encrypts
             the variables by a grant.
    """
    statements = [
        *_storing(names),
        *(_given_bucket(names, root) if root.bucket != names.bucket else ()),
        *_functions(names),
        *_logs(names),
        *(_roles(names) if with_role else ()),
    ]
    if in_vpc:
        networks = ("SecurityGroups", "Subnets", "Vpcs", "VpcEndpoints")
        statements.append(_allow([f"ec2:Describe{name}" for name in networks], ["*"]))
    if kms_key:
        grant = ["kms:CreateGrant", "kms:Encrypt"]
        statements.append(_allow([*_KEY_OF_OBJECTS, *grant], [kms_key]))
    return _document(*statements)


def _given_bucket(names: Names, root: Root) -> list[Document]:
    """What the record, and a removal with --delete-data, need in a bucket that is not ours."""
    looks = ["s3:GetBucketLocation", "s3:ListBucketMultipartUploads"]
    return [
        _allow(looks, [names.bucket_arn(root.bucket)]),
        *_access(names, f"{root.uri}/", _OBJECTS),
    ]


def _storing(names: Names) -> list[Document]:
    bucket = names.bucket_arn(names.bucket)
    settings = ("BucketPublicAccessBlock", "EncryptionConfiguration", "LifecycleConfiguration")
    return [
        _allow(
            [
                "s3:CreateBucket",
                "s3:DeleteBucket",
                "s3:GetBucketLocation",
                "s3:ListBucket",
                "s3:ListBucketMultipartUploads",
                "s3:GetBucketPolicy",
                "s3:PutBucketPolicy",
                "s3:DeleteBucketPolicy",
                "s3:GetBucketTagging",
                "s3:PutBucketTagging",
                *(f"s3:{verb}{name}" for name in settings for verb in ("Get", "Put")),
            ],
            [bucket],
        ),
        _allow(
            ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"],
            [f"{bucket}/*"],
        ),
    ]


def _functions(names: Names) -> list[Document]:
    layer = f"arn:{names.partition}:lambda:{names.region}:{names.account}:layer:{names.layer}"
    return [
        _allow(
            [
                "lambda:GetFunction",
                "lambda:GetFunctionConfiguration",
                "lambda:CreateFunction",
                "lambda:UpdateFunctionCode",
                "lambda:UpdateFunctionConfiguration",
                "lambda:DeleteFunction",
                "lambda:InvokeFunction",  # of a destination, whoever names it must have
                "lambda:GetFunctionEventInvokeConfig",
                "lambda:PutFunctionEventInvokeConfig",
                "lambda:GetFunctionRecursionConfig",
                "lambda:PutFunctionRecursionConfig",
                "lambda:GetFunctionConcurrency",
                "lambda:ListTags",
                "lambda:TagResource",
                "lambda:UntagResource",
            ],
            [names.function_arn(name) for name in (names.worker, names.supervisor)],
        ),
        _allow(
            ["lambda:PublishLayerVersion", "lambda:GetLayerVersion", "lambda:DeleteLayerVersion"],
            [layer, f"{layer}:*"],
        ),
        _allow(["lambda:ListLayerVersions", "lambda:GetAccountSettings"], ["*"]),
    ]


def _logs(names: Names) -> list[Document]:
    groups = [names.log_arn(name) for name in (names.worker, names.supervisor)]
    return [
        _allow(
            [
                "logs:CreateLogGroup",
                "logs:DeleteLogGroup",
                "logs:PutRetentionPolicy",
                "logs:DeleteRetentionPolicy",
                "logs:ListTagsForResource",
                "logs:TagResource",
                "logs:UntagResource",
            ],
            [*groups, *(f"{group}:*" for group in groups)],
        ),
        _allow(["logs:DescribeLogGroups"], ["*"]),
    ]


def _roles(names: Names) -> list[Document]:
    return [
        _allow(
            [
                "iam:GetRole",
                "iam:CreateRole",
                "iam:DeleteRole",
                "iam:UpdateAssumeRolePolicy",
                "iam:GetRolePolicy",
                "iam:PutRolePolicy",
                "iam:DeleteRolePolicy",
                "iam:PutRolePermissionsBoundary",
                "iam:DeleteRolePermissionsBoundary",
                "iam:TagRole",
                "iam:UntagRole",
            ],
            [names.role_arn],
        ),
        _allow(
            ["iam:PassRole"],
            [names.role_arn],
            {"StringEquals": {"iam:PassedToService": LAMBDA_SERVICE}},
        ),
    ]
