"""Which jobs a removal would cut off, as far as listings of the bucket tell."""

from collections.abc import Iterator

from lambdamr.deploy.aws import Cloud
from lambdamr.deploy.naming import Root
from lambdamr.polling import quiet_s
from lambdamr_runtime.keys import JOBS, JobKeys, is_job_id


def running_jobs(cloud: Cloud, root: Root, timeout_s: float) -> tuple[str, ...]:
    """Return the jobs that have not ended and have lately stored something, the newest first.

    Those that are quiet for longer than a function can be are not waited for by their functions.

    Args:    timeout_s: time limit of the worker.
    Raises:  MissingPermission, DeployError: AWS refused a look.
    """
    since_s = cloud.clock.time() - quiet_s(timeout_s)
    open_jobs = (job for job in _job_ids(cloud, root) if not _has_ended(cloud, root, job))
    return tuple(job for job in open_jobs if _last_s(cloud, root, job) > since_s)


def _job_ids(cloud: Cloud, root: Root) -> list[str]:
    place = {"Bucket": root.bucket, "Prefix": f"{root.prefix}{JOBS}", "Delimiter": "/"}
    pages = cloud.pages("s3", "list_objects_v2", **place)
    folders = (it["Prefix"] for page in pages for it in page.get("CommonPrefixes", ()))
    names = (folder.rstrip("/").rpartition("/")[2] for folder in folders)
    return sorted(filter(is_job_id, names), reverse=True)


def _has_ended(cloud: Cloud, root: Root, job: str) -> bool:
    keys = JobKeys(job)
    return any(True for key in (keys.report, keys.cancelled) for _ in _times(cloud, root, key))


def _last_s(cloud: Cloud, root: Root, job: str) -> float:
    return max(_times(cloud, root, f"{JOBS}{job}/"), default=0.0)


def _times(cloud: Cloud, root: Root, prefix: str) -> Iterator[float]:
    """Yield when each object under a prefix was written, seconds since the epoch."""
    place = {"Bucket": root.bucket, "Prefix": f"{root.prefix}{prefix}"}
    for page in cloud.pages("s3", "list_objects_v2", **place):
        for item in page.get("Contents", ()):
            yield item["LastModified"].timestamp()
