"""What AWS says no to, in words that help."""

import botocore.exceptions as aws
import pytest

from lambdamr.deploy.aws import Aws, open_session, until
from lambdamr.deploy.refusals import translated
from lambdamr_runtime.errors import DeployError, MissingPermission
from tests.emulator import REGION, Ministack


def client_error(code: str, message: str = "said") -> aws.ClientError:
    return aws.ClientError({"Error": {"Code": code, "Message": message}}, "Operation")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (client_error("ExpiredToken"), "aws sso login"),
        (client_error("InvalidClientTokenId"), "AWS_ACCESS_KEY_ID"),
        (client_error("CodeStorageExceededException"), "quota"),
        (client_error("BucketAlreadyExists"), "--root"),
        (client_error("Odd", "why not"), "AWS refused lambda:CreateFunction (Odd): why not"),
        (aws.NoCredentialsError(), "AWS_PROFILE"),
        (aws.PartialCredentialsError(provider="env", cred_var="x"), "AWS_PROFILE"),
        (aws.CredentialRetrievalError(provider="x", error_msg="y"), "AWS_PROFILE"),
        (aws.UnauthorizedSSOTokenError(), "aws sso login"),
        (aws.SSOTokenLoadError(error_msg="x"), "aws sso login"),
        (aws.TokenRetrievalError(provider="sso", error_msg="x"), "aws sso login"),
        (aws.ProfileNotFound(profile="x"), "list-profiles"),
        (aws.NoRegionError(), "--region"),
        (aws.ParamValidationError(report="bad ARN"), "bad ARN"),
        (aws.EndpointConnectionError(endpoint_url="https://x"), "the network and the region"),
        (aws.ReadTimeoutError(endpoint_url="https://x"), "cannot be reached"),
    ],
)
def test_every_refusal_says_what_to_do(error: Exception, said: str) -> None:
    """An error of ours with the way out; the reason stays in it."""
    found = translated(error, "lambda", "CreateFunction", "lambdamr-default-worker")
    assert isinstance(found, DeployError)
    assert said in str(found)


@pytest.mark.parametrize(
    ("service", "operation", "message", "action"),
    [
        ("s3", "PutBucketEncryption", "Access Denied", "s3:PutEncryptionConfiguration"),
        ("s3", "ListObjectsV2", "Access Denied", "s3:ListBucket"),
        ("s3", "PutPublicAccessBlock", "Access Denied", "s3:PutBucketPublicAccessBlock"),
        ("iam", "CreateRole", "Access Denied", "iam:CreateRole"),
        (
            "lambda",
            "CreateFunction",
            "User: arn:aws:iam::1:user/eve is not authorized to perform: iam:PassRole on",
            "iam:PassRole",
        ),
    ],
)
def test_the_missing_permission_is_named(
    service: str, operation: str, message: str, action: str
) -> None:
    """As policies call it, which is not always the operation; AWS's own word comes first."""
    error = translated(client_error("AccessDenied", message), service, operation, "it")
    assert isinstance(error, MissingPermission)
    assert f"lacks the permission {action}." in str(error)
    assert ("user/eve lacks" in str(error)) == ("eve" in message)


def test_a_denial_is_no_lack() -> None:
    """Where a policy forbids it, adding a permission does not help: it says so."""
    said = (
        "not authorized to perform: s3:PutObject with an explicit deny in a service control policy"
    )
    error = translated(client_error("AccessDenied", said), "s3", "PutObject", "it")
    assert "is denied the permission s3:PutObject" in str(error)


def test_unknown_credentials_are_told(
    ministack: Ministack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that AWS does not know, and a profile that nobody has."""
    for name, value in ministack.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAUNKNOWNUNKNOWN00")
    with pytest.raises(DeployError, match=r"(?i)credentials"):
        Aws(open_session(), REGION).call("sts", "get_caller_identity")
    with pytest.raises(DeployError, match="list-profiles"):
        open_session("nobody")


class Turned:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_waiting_ends() -> None:
    """What is ready after a while is waited for; what never is, is told after the patience."""
    clock = Turned()
    until(clock, lambda: clock.now > 5, "It", patience_s=60)
    assert 5 < clock.now < 15
    with pytest.raises(DeployError, match="It is not ready after 60 s"):
        until(clock, lambda: False, "It", patience_s=60)
