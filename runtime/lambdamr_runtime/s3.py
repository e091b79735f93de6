"""Stores on Amazon S3: where a bucket is, who asks, and how patiently.

    s3://bucket/prefix ─▶ endpoint ─ AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, else that of the region
                       ├▶ region ─── the bucket's own, asked of S3 once per process and bucket
                       ├▶ keys ───── of the environment (in Lambda: its role's), else boto3's chain
                       └▶ S3Store

Buckets whose requester pays are read where AWS_REQUEST_PAYER=requester is set, here and, by
`lambdamr deploy-runtime --env`, in the workers.
"""

import functools
import os
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING

from obstore.store import S3Store

from lambdamr_runtime.errors import StoreError
from lambdamr_runtime.limits import POOL_IDLE_S
from lambdamr_runtime.signing import NO_KEYS, help_with, region_of, session

if TYPE_CHECKING:
    from http.client import HTTPConnection

    from obstore.auth.boto3 import Boto3CredentialProvider
    from obstore.store import ClientConfig, RetryConfig, S3Config, S3CredentialProvider

DEFAULT_REGION = "us-east-1"

TIMEOUT_S = 300
"""Longest request; a part of an upload on a slow line takes a minute."""

SILENCE_S = 20
"""A connection on which nothing arrives for so long is given up, and the request repeated."""

CONNECT_S = 5
RETRIES = 10
RETRY_S = 180
"""S3 answers 503 while it splits a prefix, for minutes at times."""

KEYS_TTL = timedelta(minutes=9)
"""How long keys of boto3's chain are taken for good: it renews them 10 minutes before their end."""


def s3_backend(root: str, environment: Mapping[str, str] = os.environ, region: str = "") -> S3Store:
    """Open an S3 store.

    Args:    root: s3://bucket or s3://bucket/prefix. region: of the bucket, where it is known.
    Raises:  StoreError: there are no credentials. BaseError of obstore: a root that is none.
    """
    bucket = root.partition("://")[2].partition("/")[0]
    endpoint = endpoint_of("s3", environment)
    config: S3Config = {"region": region or region_of_bucket(bucket, environment)}
    if endpoint:
        config["endpoint"] = endpoint
    client: ClientConfig = {
        "allow_http": endpoint.startswith("http://"),
        "connect_timeout": timedelta(seconds=CONNECT_S),
        "pool_idle_timeout": timedelta(seconds=POOL_IDLE_S),
        "read_timeout": timedelta(seconds=SILENCE_S),
        "timeout": timedelta(seconds=TIMEOUT_S),
    }
    retries: RetryConfig = {
        "max_retries": RETRIES,
        "retry_timeout": timedelta(seconds=RETRY_S),
        "backoff": {
            "init_backoff": timedelta(milliseconds=50),
            "max_backoff": timedelta(seconds=5),
        },
    }
    keys = _keys(environment)
    return S3Store.from_url(
        root, config=config, client_options=client, retry_config=retries, credential_provider=keys
    )


def endpoint_of(service: str, environment: Mapping[str, str] = os.environ) -> str:
    """Return the endpoint that is set for a service, or "": AWS's own."""
    special = environment.get(f"AWS_ENDPOINT_URL_{service.upper()}")
    return (special or environment.get("AWS_ENDPOINT_URL") or "").rstrip("/")


def tls_connection(host: str) -> "HTTPConnection":
    """Return a connection, not made yet, to a host of AWS."""
    from http.client import HTTPSConnection  # only where a foreign bucket is read

    return HTTPSConnection(host, timeout=CONNECT_S)


def region_of_bucket(
    bucket: str,
    environment: Mapping[str, str] = os.environ,
    connect: "Callable[[str], HTTPConnection]" = tls_connection,
) -> str:
    """Return the region of a bucket.

    A worker's own bucket is in its own region, and behind another endpoint there is but one.
    """
    here = region_of(environment)
    own = environment.get("LAMBDAMR_ROOT", "").startswith((f"s3://{bucket}/", f"s3://{bucket}"))
    is_worker = "AWS_LAMBDA_FUNCTION_NAME" in environment
    if endpoint_of("s3", environment) or (own and is_worker):
        return here or DEFAULT_REGION
    return _asked_region(bucket, here or DEFAULT_REGION, connect)


@functools.cache
def _asked_region(bucket: str, near: str, connect: "Callable[[str], HTTPConnection]") -> str:
    """Ask S3 where a bucket is: any endpoint says so, without credentials, and even if it refuses.

    Args:  near: the region to ask, and the answer where none comes.
    """
    from http.client import HTTPException

    connection = connect(f"s3.{near}.amazonaws.com")
    try:
        connection.request("HEAD", f"/{bucket}")
        return connection.getresponse().headers.get("x-amz-bucket-region") or near
    except (OSError, HTTPException):  # the request proper will say what is wrong, and retry
        return near
    finally:
        connection.close()


def _keys(environment: Mapping[str, str]) -> "S3CredentialProvider | None":
    """Return what gives credentials: None where they are in the environment, for obstore to read.

    Raises:  StoreError: there are none.
    """
    if environment.get("AWS_ACCESS_KEY_ID") or environment.get("AWS_SKIP_SIGNATURE"):
        return None
    return _chain()


@functools.cache
def _chain() -> "S3CredentialProvider":
    return chain_of_boto3()


def chain_of_boto3() -> "Boto3CredentialProvider":
    """Return boto3's chain: profiles, SSO, assumed roles, containers, instances; renewed by it.

    Raises:  StoreError: it ends without keys.
    """
    from botocore.exceptions import BotoCoreError
    from obstore.auth.boto3 import Boto3CredentialProvider  # boto3: 200 ms, and only in the client

    try:
        return Boto3CredentialProvider(session(), ttl=KEYS_TTL)
    except BotoCoreError as error:
        raise StoreError(help_with(error) or str(error)) from error
    except ValueError as error:
        raise StoreError(f"There are no AWS credentials. {NO_KEYS}") from error
