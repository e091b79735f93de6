"""Bucket, record and profile: reading and changing them."""

import json
from collections.abc import Callable, Iterable

from lambdamr.deploy.aws import Cloud
from lambdamr.deploy.models import Bucket, Expiry, Pairs, Profile, Record, changes, own_tags
from lambdamr.deploy.naming import Names, Root
from lambdamr.deploy.permissions import canonical
from lambdamr.deployment import (
    RECORD_KEY,
    Deployment,
    forget_profile,
    load_profile,
    profile_path,
    save_profile,
)
from lambdamr_runtime.errors import CorruptObject, DeployError, MissingPermission
from lambdamr_runtime.limits import LIST_PAGE

NO_LOCATION = "us-east-1"
"""The one region that CreateBucket does not want to be told."""

_OLD_REGIONS = {"EU": "eu-west-1"}
"""What old buckets call their region."""

_BLOCKS = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
UPLOADS_RULE = "lambdamr unfinished uploads"


class BucketKeeper:
    """The bucket that lambdamr makes; one that the user names is only looked at."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._setters: dict[str, Callable[[Bucket], None]] = {
            "private": self._set_private,
            "kms_key": self._set_encryption,
            "policy": self._set_policy,
            "expiries": self._set_lifecycle,
            "abort_uploads_days": self._set_lifecycle,
            "tags": self._set_tags,
        }

    def region(self, name: str) -> str | None:
        """Return where a bucket is, None where there is none.

        Raises:  DeployError: it is somebody else's.
        """
        try:
            answer = self._cloud.find("s3", "get_bucket_location", Bucket=name)
        except MissingPermission as error:
            raise MissingPermission(
                f"The bucket {name} belongs to another account, or whoever signs the requests "
                "lacks the permission s3:GetBucketLocation on it. Name another with --root."
            ) from error
        if answer is None:
            return None
        region = answer.get("LocationConstraint") or NO_LOCATION
        return _OLD_REGIONS.get(region, region)

    def read(self, name: str) -> Bucket | None:
        region = self.region(name)
        if region is None:
            return None
        find = self._cloud.find
        blocks = find("s3", "get_public_access_block", Bucket=name) or {}
        block = blocks.get("PublicAccessBlockConfiguration", {})
        policy = find("s3", "get_bucket_policy", Bucket=name)
        expiries, abort_days = self._lifecycle(name)
        tags = find("s3", "get_bucket_tagging", Bucket=name) or {}
        return Bucket(
            name=name,
            region=region,
            private=all(block.get(name) for name in _BLOCKS),
            kms_key=self._kms_key(name),
            policy=canonical(json.loads(policy["Policy"])) if policy else "",
            expiries=expiries,
            abort_uploads_days=abort_days,
            tags=own_tags({tag["Key"]: tag["Value"] for tag in tags.get("TagSet", ())}),
        )

    def _kms_key(self, name: str) -> str:
        answer = self._cloud.find("s3", "get_bucket_encryption", Bucket=name) or {}
        rules = answer.get("ServerSideEncryptionConfiguration", {}).get("Rules", ())
        defaults = [rule.get("ApplyServerSideEncryptionByDefault", {}) for rule in rules]
        return next((str(it["KMSMasterKeyID"]) for it in defaults if "KMSMasterKeyID" in it), "")

    def _lifecycle(self, name: str) -> tuple[tuple[Expiry, ...], int]:
        answer = self._cloud.find("s3", "get_bucket_lifecycle_configuration", Bucket=name) or {}
        expiries, abort_days = [], 0
        for rule in answer.get("Rules", ()):
            if rule["Status"] != "Enabled":
                continue
            if "AbortIncompleteMultipartUpload" in rule:
                abort_days = int(rule["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"])
            if "Days" in rule.get("Expiration", {}):
                prefix = rule.get("Filter", {}).get("Prefix", rule.get("Prefix", ""))
                expiries.append(Expiry(prefix, int(rule["Expiration"]["Days"])))
        return tuple(sorted(expiries, key=lambda expiry: expiry.prefix)), abort_days

    def find(self, like: Bucket) -> Bucket | None:
        return self.read(like.name)

    def create(self, wanted: Bucket) -> None:
        place = {}
        if wanted.region != NO_LOCATION:
            place = {"CreateBucketConfiguration": {"LocationConstraint": wanted.region}}
        self._cloud.call("s3", "create_bucket", Bucket=wanted.name, **place)
        for setter in dict.fromkeys(self._setters.values()):
            setter(wanted)

    def update(self, present: Bucket, wanted: Bucket) -> None:
        if present.region != wanted.region:
            raise DeployError(
                f"The bucket {wanted.name} is in {present.region}, not in {wanted.region}. Deploy "
                "there, or name another bucket with --root."
            )
        names = [change.field for change in changes(present, wanted)]
        for setter in dict.fromkeys(self._setters[name] for name in names):
            setter(wanted)

    def delete(self, present: Bucket) -> None:
        """Remove the bucket with everything in it."""
        self.empty(present.name)
        self._cloud.call("s3", "delete_bucket", Bucket=present.name)

    def empty(self, name: str, prefix: str = "") -> int:
        """Remove all objects and unfinished uploads under a prefix; return how many objects."""
        count = 0
        for upload in self._uploads(name, prefix):
            key, upload_id = upload
            self._cloud.call(
                "s3", "abort_multipart_upload", Bucket=name, Key=key, UploadId=upload_id
            )
        for page in self._cloud.pages("s3", "list_objects_v2", Bucket=name, Prefix=prefix):
            keys = [item["Key"] for item in page.get("Contents", ())]
            self._remove(name, keys)
            count += len(keys)
        return count

    def has_others(self, name: str, prefix: str, key: str) -> bool:
        """Whether there is an object under a prefix beside *key*."""
        answer = self._cloud.call("s3", "list_objects_v2", Bucket=name, Prefix=prefix, MaxKeys=2)
        return any(item["Key"] != key for item in answer.get("Contents", ()))

    def _uploads(self, name: str, prefix: str) -> Iterable[tuple[str, str]]:
        for page in self._cloud.pages("s3", "list_multipart_uploads", Bucket=name, Prefix=prefix):
            for upload in page.get("Uploads", ()):
                yield upload["Key"], upload["UploadId"]

    def _remove(self, name: str, keys: list[str]) -> None:
        for start in range(0, len(keys), LIST_PAGE):
            some = [{"Key": key} for key in keys[start : start + LIST_PAGE]]
            answer = self._cloud.call(
                "s3", "delete_objects", Bucket=name, Delete={"Objects": some, "Quiet": True}
            )
            for error in answer.get("Errors", ()):
                raise DeployError(
                    f"s3://{name}/{error['Key']} cannot be removed ({error['Code']}): "
                    f"{error.get('Message', '')}"
                )

    # --- one call for each setting ----------------------------------------------------------
    def _set_private(self, wanted: Bucket) -> None:
        self._cloud.call(
            "s3",
            "put_public_access_block",
            Bucket=wanted.name,
            PublicAccessBlockConfiguration=dict.fromkeys(_BLOCKS, wanted.private),
        )

    def _set_encryption(self, wanted: Bucket) -> None:
        self._cloud.call(
            "s3",
            "put_bucket_encryption",
            Bucket=wanted.name,
            ServerSideEncryptionConfiguration={"Rules": [encryption_rule(wanted)]},
        )

    def _set_policy(self, wanted: Bucket) -> None:
        if wanted.policy:
            self._cloud.call("s3", "put_bucket_policy", Bucket=wanted.name, Policy=wanted.policy)
        else:
            self._cloud.find("s3", "delete_bucket_policy", Bucket=wanted.name)

    def _set_lifecycle(self, wanted: Bucket) -> None:
        self._cloud.call(
            "s3",
            "put_bucket_lifecycle_configuration",
            Bucket=wanted.name,
            LifecycleConfiguration={"Rules": lifecycle_rules(wanted)},
        )

    def _set_tags(self, wanted: Bucket) -> None:
        tags = tag_list(wanted.tags)
        self._cloud.call("s3", "put_bucket_tagging", Bucket=wanted.name, Tagging={"TagSet": tags})


def encryption_rule(wanted: Bucket) -> dict[str, object]:
    """Return S3's own form of how objects are encrypted; bucket keys make KMS cheap."""
    if not wanted.kms_key:
        return {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
    default = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": wanted.kms_key}
    return {"ApplyServerSideEncryptionByDefault": default, "BucketKeyEnabled": True}


def lifecycle_rules(wanted: Bucket) -> list[dict[str, object]]:
    """Return S3's own form of what is removed when."""
    rules: list[dict[str, object]] = [
        {
            "ID": f"lambdamr {expiry.prefix}",
            "Status": "Enabled",
            "Filter": {"Prefix": expiry.prefix},
            "Expiration": {"Days": expiry.days},
        }
        for expiry in wanted.expiries
    ]
    uploads = {"DaysAfterInitiation": wanted.abort_uploads_days}
    rules.append(
        {
            "ID": UPLOADS_RULE,
            "Status": "Enabled",
            "Filter": {"Prefix": ""},
            "AbortIncompleteMultipartUpload": uploads,
        }
    )
    return rules


def tag_list(tags: Pairs) -> list[dict[str, str]]:
    """Return tags in the form that S3, IAM and CloudFormation have in common."""
    return [{"Key": key, "Value": value} for key, value in tags]


# --- records ------------------------------------------------------------------------------------
def record_uri(root: Root) -> str:
    return f"{root.uri}/{RECORD_KEY}"


class RecordKeeper:
    """`deployment.json` under the root."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    def read(self, root: Root) -> Record | None:
        """Return the record; one that cannot be parsed counts as none, since it is written anew."""
        uri = record_uri(root)
        key = f"{root.prefix}{RECORD_KEY}"
        answer = self._cloud.find("s3", "get_object", Bucket=root.bucket, Key=key)
        if answer is None:
            return None
        try:
            return Record(uri, Deployment.decode(answer["Body"].read(), uri))
        except CorruptObject:
            return None

    def find(self, like: Record) -> Record | None:
        return self.read(Root.parse(like.deployment.root))

    def create(self, wanted: Record) -> None:
        self._cloud.call(
            "s3", "put_object", **_place(wanted.uri), Body=wanted.deployment.encode(),
            ContentType="application/json",
        )  # fmt: skip

    def update(self, present: Record, wanted: Record) -> None:  # noqa: ARG002 - as all keepers
        self.create(wanted)

    def delete(self, present: Record) -> None:
        self._cloud.call("s3", "delete_object", **_place(present.uri))


def _place(uri: str) -> dict[str, str]:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return {"Bucket": bucket, "Key": key}


class ProfileKeeper:
    """The record on this machine."""

    def read(self, name: str, names: Names) -> Profile | None:
        """Return the record, unless it is that of another account's or region's deployment."""
        deployment = load_profile(name)
        if deployment is None or (deployment.region, deployment.account) != (
            names.region,
            names.account,
        ):
            return None
        return Profile(profile_path(name), deployment)

    def find(self, like: Profile) -> Profile | None:
        return like if load_profile(like.deployment.name) == like.deployment else None

    def create(self, wanted: Profile) -> None:
        save_profile(wanted.deployment)

    def update(self, present: Profile, wanted: Profile) -> None:  # noqa: ARG002 - as all keepers
        self.create(wanted)

    def delete(self, present: Profile) -> None:
        forget_profile(present.deployment.name)
