"""What AWS says no to, as errors of ours: what was refused, the missing permission, the way out.

What is about keys, profiles and regions stands in lambdamr_runtime.signing: jobs meet it too.
"""

import re
from typing import Any

from lambdamr_runtime.errors import DeployError, MissingPermission
from lambdamr_runtime.signing import help_with, help_with_code

ABSENT = frozenset(
    {
        "404",
        "NoSuchBucket",
        "NoSuchBucketPolicy",
        "NoSuchEntity",
        "NoSuchKey",
        "NoSuchLifecycleConfiguration",
        "NoSuchPublicAccessBlockConfiguration",
        "NoSuchTagSet",
        "NotFound",
        "ResourceNotFoundException",
        "ServerSideEncryptionConfigurationNotFoundError",
    }
)
"""Codes that mean "there is none"."""

_EXISTS = frozenset(
    {
        "BucketAlreadyOwnedByYou",
        "EntityAlreadyExists",
        "ResourceAlreadyExistsException",
        "ResourceConflictException",
    }
)

_DENIED = frozenset(
    {
        "403",
        "AccessDenied",
        "AccessDeniedException",
        "AuthorizationError",
        "Forbidden",
        "KMSAccessDeniedException",
        "UnauthorizedOperation",
    }
)
_TOO_MANY = frozenset(
    {"CodeStorageExceededException", "LimitExceeded", "LimitExceededException", "TooManyBuckets"}
)

_ACTIONS = {
    "s3:ListObjectsV2": "s3:ListBucket",
    "s3:HeadObject": "s3:GetObject",
    "s3:DeleteObjects": "s3:DeleteObject",
    "s3:GetBucketEncryption": "s3:GetEncryptionConfiguration",
    "s3:PutBucketEncryption": "s3:PutEncryptionConfiguration",
    "s3:GetPublicAccessBlock": "s3:GetBucketPublicAccessBlock",
    "s3:PutPublicAccessBlock": "s3:PutBucketPublicAccessBlock",
    "s3:GetBucketLifecycleConfiguration": "s3:GetLifecycleConfiguration",
    "s3:PutBucketLifecycleConfiguration": "s3:PutLifecycleConfiguration",
    "s3:ListMultipartUploads": "s3:ListBucketMultipartUploads",
    "lambda:Invoke": "lambda:InvokeFunction",
}
"""Permissions that are not called as the operation is."""

_NAMED_ACTION = re.compile(r"not authorized to perform: ([\w-]+:\w+)")
_NAMED_USER = re.compile(r"User: (\S+)")


def code_of(error: Any) -> str:
    """Return AWS's code of a refusal; Any: botocore's ClientError, which has no types."""
    return str(error.response.get("Error", {}).get("Code", ""))


def is_there_already(error: DeployError) -> bool:
    """Whether something could not be made because it is there: by somebody else, or by a request
    of ours whose answer was lost.
    """
    cause = error.__cause__
    return hasattr(cause, "response") and code_of(cause) in _EXISTS


def action_of(service: str, operation: str) -> str:
    """Return the permission that an operation needs, as policies call it."""
    name = f"{service}:{operation}"
    return _ACTIONS.get(name, name)


def translated(error: Exception, service: str, operation: str, target: str) -> DeployError:
    """Return what a user is told about an exception of botocore.

    Args:    operation: as the API calls it, "CreateFunction".   target: what it was about.
    """
    from botocore.exceptions import ClientError  # slow, and only a refusal needs it

    if isinstance(error, ClientError):
        return _refused(error, service, operation, target)
    return _unsent(error, service)


def _refused(error: Any, service: str, operation: str, target: str) -> DeployError:
    code = code_of(error)
    said = str(error.response.get("Error", {}).get("Message", "")) or str(error)
    if code in _DENIED:
        return _denied(said, action_of(service, operation), target)
    keys = help_with_code(code, said)
    if keys:
        return DeployError(f"{keys} Then run the command again: it goes on where it stopped.")
    if code in _TOO_MANY:
        return DeployError(
            f"{target}: the account has reached a quota ({code}: {said}). Remove what is not "
            f"needed or ask for more in the AWS console, Service Quotas, {service}."
        )
    if code in ("BucketAlreadyExists", "IllegalLocationConstraintException"):
        return DeployError(
            f"{target}: {said} The name belongs to somebody else or to another region. Choose a "
            "bucket of yours with --root, or another deployment name with --name."
        )
    return DeployError(f"{target}: AWS refused {service}:{operation} ({code}): {said}")


def _denied(said: str, action: str, target: str) -> MissingPermission:
    named = _NAMED_ACTION.search(said)
    user = _NAMED_USER.search(said)
    action = named.group(1) if named else action
    lacks = "is denied" if "explicit deny" in said else "lacks"
    return MissingPermission(
        f"{target}: {user.group(1) if user else 'whoever signs the requests'} {lacks} the "
        f"permission {action}. AWS says: {said} Ask for that permission (docs/aws.md has the "
        "complete policies), or hand --emit-template to somebody who may; then run the command "
        "again: it goes on where it stopped."
    )


def _unsent(error: Exception, service: str) -> DeployError:
    from botocore.exceptions import ParamValidationError

    if isinstance(error, ParamValidationError):
        return DeployError(f"A setting has a form that AWS does not take: {error}")
    found = help_with(error)
    return DeployError(found or f"AWS ({service}) cannot be reached: {error}")
