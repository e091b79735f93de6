"""Who signs requests to AWS, from where, and what is wrong where nobody can.

    AWS_REGION, AWS_DEFAULT_REGION ─▶ region_of ─▶ session ─▶ everything that boto3 does for us

boto3 itself knows AWS_DEFAULT_REGION alone. The one place that knows AWS's codes, and botocore's
exceptions, for keys and regions: whoever meets one makes an error of its own of these words.
"""

import os
from collections.abc import Mapping
from typing import Any

NO_KEYS = (
    "Run `aws configure` or `aws sso login`, or set AWS_PROFILE, or AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY."
)
NO_REGION = "No AWS region is set. Set AWS_REGION, or give --region."

_STALE = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "RequestExpired",
        "RequestTimeTooSkewed",
        "TokenRefreshRequired",
    }
)
_UNKNOWN_SIGNER = frozenset(
    {
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidToken",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)


def region_of(environment: Mapping[str, str] = os.environ) -> str:
    """Return the region that is set, or ""."""
    return environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or ""


def session(profile: str | None = None) -> Any:
    """Return a session of boto3, which has no types, in the region that is set.

    Raises:  BotoCoreError of botocore: there is no such profile, by argument or AWS_PROFILE.
    """
    import boto3  # 200 ms, and not in every process

    return boto3.Session(profile_name=profile, region_name=region_of() or None)


def help_with_code(code: str, said: str) -> str:
    """Return what to do about a code of AWS that is about keys, "" where it is about others."""
    if code in _STALE:
        return (
            f"The AWS credentials have expired ({code}). Renew them: `aws sso login`, or a new "
            "session token."
        )
    if code in _UNKNOWN_SIGNER:
        return (
            f"AWS does not know the credentials ({code}: {said}). Check AWS_ACCESS_KEY_ID, "
            "AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, or the profile."
        )
    return ""


def help_with(error: Exception) -> str:
    """Return what is wrong and what to do where an exception of botocore is about keys, a profile
    or the region; "" where it is about something else.
    """
    from botocore import exceptions as aws  # who has met one of them has loaded it

    if isinstance(error, aws.ClientError):
        found = error.response.get("Error", {})
        return help_with_code(str(found.get("Code", "")), str(found.get("Message", "")))
    keys = (aws.NoCredentialsError, aws.PartialCredentialsError, aws.CredentialRetrievalError)
    if isinstance(error, aws.SSOError | aws.TokenRetrievalError):
        return f"The AWS login has expired: {_sentence(error)} Run `aws sso login`."
    if isinstance(error, keys):
        return f"There are no usable AWS credentials: {_sentence(error)} {NO_KEYS}"
    if isinstance(error, aws.ProfileNotFound):
        return f"{_sentence(error)} `aws configure list-profiles` shows those there are."
    if isinstance(error, aws.NoRegionError):
        return NO_REGION
    if isinstance(error, aws.EndpointConnectionError | aws.InvalidRegionError):
        return f"{_sentence(error)} Check the network and the region."
    return ""


def _sentence(error: Exception) -> str:
    return f"{' '.join(str(error).split()).rstrip(':. ')}."
