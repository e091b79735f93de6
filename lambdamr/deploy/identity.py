"""Role and log groups: reading and changing them."""

import json

from lambdamr.deploy.aws import Cloud
from lambdamr.deploy.models import LogGroup, Pairs, Role, own_tags
from lambdamr.deploy.permissions import canonical
from lambdamr.deploy.storing import tag_list

POLICY_NAME = "lambdamr"
"""The inline policy of the role."""


class RoleKeeper:
    """The role of the functions."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    def read(self, name: str) -> Role | None:
        answer = self._cloud.find("iam", "get_role", RoleName=name)
        if answer is None:
            return None
        role = answer["Role"]
        policy = self._cloud.find("iam", "get_role_policy", RoleName=name, PolicyName=POLICY_NAME)
        return Role(
            name=name,
            trust=_document(role["AssumeRolePolicyDocument"]),
            policy=_document(policy["PolicyDocument"]) if policy else "",
            permissions_boundary=role.get("PermissionsBoundary", {}).get(
                "PermissionsBoundaryArn", ""
            ),
            tags=own_tags({tag["Key"]: tag["Value"] for tag in role.get("Tags", ())}),
        )

    def find(self, like: Role) -> Role | None:
        return self.read(like.name)

    def create(self, wanted: Role) -> None:
        boundary = {}
        if wanted.permissions_boundary:
            boundary = {"PermissionsBoundary": wanted.permissions_boundary}
        self._cloud.call(
            "iam",
            "create_role",
            RoleName=wanted.name,
            AssumeRolePolicyDocument=wanted.trust,
            Description="What the functions of lambdamr may do",
            Tags=tag_list(wanted.tags),
            **boundary,
        )
        self._put_policy(wanted)

    def update(self, present: Role, wanted: Role) -> None:
        call = self._cloud.call
        if present.trust != wanted.trust:
            call(
                "iam",
                "update_assume_role_policy",
                RoleName=wanted.name,
                PolicyDocument=wanted.trust,
            )
        if present.policy != wanted.policy:
            self._put_policy(wanted)
        if present.permissions_boundary != wanted.permissions_boundary:
            self._set_boundary(wanted)
        gone = [key for key, _ in present.tags if key not in dict(wanted.tags)]
        if gone:
            call("iam", "untag_role", RoleName=wanted.name, TagKeys=gone)
        if present.tags != wanted.tags:
            call("iam", "tag_role", RoleName=wanted.name, Tags=tag_list(wanted.tags))

    def _set_boundary(self, wanted: Role) -> None:
        if wanted.permissions_boundary:
            self._cloud.call(
                "iam",
                "put_role_permissions_boundary",
                RoleName=wanted.name,
                PermissionsBoundary=wanted.permissions_boundary,
            )
        else:
            self._cloud.call("iam", "delete_role_permissions_boundary", RoleName=wanted.name)

    def _put_policy(self, wanted: Role) -> None:
        self._cloud.call(
            "iam",
            "put_role_policy",
            RoleName=wanted.name,
            PolicyName=POLICY_NAME,
            PolicyDocument=wanted.policy,
        )

    def delete(self, present: Role) -> None:
        self._cloud.find("iam", "delete_role_policy", RoleName=present.name, PolicyName=POLICY_NAME)
        self._cloud.call("iam", "delete_role", RoleName=present.name)


def _document(policy: object) -> str:
    """Return a policy as canonical text; botocore gives a dict, and the text where it is odd."""
    return canonical(json.loads(policy) if isinstance(policy, str) else policy)  # type: ignore[arg-type]  # a dict


class LogKeeper:
    """The log groups of the functions."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    def read(self, name: str) -> LogGroup | None:
        for page in self._cloud.pages("logs", "describe_log_groups", logGroupNamePrefix=name):
            for group in page["logGroups"]:
                if group["logGroupName"] == name:
                    days = int(group.get("retentionInDays", 0))
                    return LogGroup(name, days, self._tags(self._arn(group)))
        return None

    @staticmethod
    def _arn(group: dict[str, str]) -> str:
        return group.get("logGroupArn") or group["arn"].removesuffix(":*")

    def _tags(self, arn: str) -> Pairs:
        answer = self._cloud.find("logs", "list_tags_for_resource", resourceArn=arn) or {}
        return own_tags(answer.get("tags", {}))

    def find(self, like: LogGroup) -> LogGroup | None:
        return self.read(like.name)

    def create(self, wanted: LogGroup) -> None:
        self._cloud.call(
            "logs", "create_log_group", logGroupName=wanted.name, tags=dict(wanted.tags)
        )
        self._set_retention(wanted)

    def update(self, present: LogGroup, wanted: LogGroup) -> None:
        if present.retention_days != wanted.retention_days:
            self._set_retention(wanted)
        if present.tags != wanted.tags:
            self._set_tags(present, wanted)

    def _set_retention(self, wanted: LogGroup) -> None:
        self._cloud.call(
            "logs",
            "put_retention_policy",
            logGroupName=wanted.name,
            retentionInDays=wanted.retention_days,
        )

    def _set_tags(self, present: LogGroup, wanted: LogGroup) -> None:
        pages = self._cloud.pages("logs", "describe_log_groups", logGroupNamePrefix=wanted.name)
        groups = [group for page in pages for group in page["logGroups"]]
        arn = next(self._arn(it) for it in groups if it["logGroupName"] == wanted.name)
        gone = [key for key, _ in present.tags if key not in dict(wanted.tags)]
        if gone:
            self._cloud.call("logs", "untag_resource", resourceArn=arn, tagKeys=gone)
        self._cloud.call("logs", "tag_resource", resourceArn=arn, tags=dict(wanted.tags))

    def delete(self, present: LogGroup) -> None:
        self._cloud.call("logs", "delete_log_group", logGroupName=present.name)
