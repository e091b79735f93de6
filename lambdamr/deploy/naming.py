"""The names of everything that a deployment has in AWS: one home, derived and never stored.

Whoever knows the deployment's name, the account and the region finds all of it, so that a deploy
that was cut off can go on, and `undeploy` works from any machine.
"""

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

PREFIX = "lambdamr"
ROOT_FOLDER = "lambdamr"
"""Prefix of the root in its bucket where none is given."""

TAG = "lambdamr"
"""Everything that can be tagged has this tag, with the deployment's name."""

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,18}[a-z0-9])?")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


@dataclass(frozen=True, slots=True)
class Root:
    """Where jobs are stored."""

    bucket: str
    prefix: str
    """Ends with "/" unless it is empty."""

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    @classmethod
    def parse(cls, text: str) -> "Root":
        """Read s3://bucket/prefix, or the bucket alone.

        Raises:  ValueError: it is neither.
        """
        parts = urlsplit(text if "://" in text else f"s3://{text}")
        prefix = parts.path.strip("/")
        if parts.scheme != "s3" or not _BUCKET.fullmatch(parts.netloc) or "//" in prefix:
            raise ValueError(f"{text!r} is no place for jobs; give s3://bucket/prefix.")
        return cls(parts.netloc, f"{prefix or ROOT_FOLDER}/")


@dataclass(frozen=True, slots=True)
class Names:
    """What belongs to one deployment."""

    deployment: str
    region: str
    account: str
    partition: str
    """Of ARNs: aws, aws-cn or aws-us-gov."""

    @property
    def base(self) -> str:
        return f"{PREFIX}-{self.deployment}"

    @property
    def worker(self) -> str:
        return f"{self.base}-worker"

    @property
    def supervisor(self) -> str:
        return f"{self.base}-supervisor"

    @property
    def layer(self) -> str:
        return self.base

    @property
    def role(self) -> str:
        """Roles have no region in their ARNs: two regions have two roles."""
        return f"{self.base}-{self.region}"

    @property
    def bucket(self) -> str:
        """Bucket names are those of the whole world, hence account and region in it."""
        return f"{self.base}-{self.account}-{self.region}"

    @property
    def own_root(self) -> Root:
        return Root(self.bucket, f"{ROOT_FOLDER}/")

    @property
    def role_arn(self) -> str:
        return f"arn:{self.partition}:iam::{self.account}:role/{self.role}"

    def function_arn(self, name: str) -> str:
        return f"arn:{self.partition}:lambda:{self.region}:{self.account}:function:{name}"

    def log_group(self, function: str) -> str:
        return f"/aws/lambda/{function}"

    def log_arn(self, function: str) -> str:
        return f"arn:{self.partition}:logs:{self.region}:{self.account}:log-group:{self.log_group(function)}"  # noqa: E501

    def bucket_arn(self, bucket: str) -> str:
        return f"arn:{self.partition}:s3:::{bucket}"


def check_name(name: str) -> str:
    """Return a deployment's name that can be part of all the names above.

    Raises:  ValueError: it cannot; a bucket's name has 63 characters at most.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} cannot name a deployment: 1 to 20 lower-case letters, digits and hyphens, "
            "neither first nor last a hyphen."
        )
    return name
