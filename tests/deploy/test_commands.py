"""The commands, as a user types them."""

import json
from pathlib import Path

import pytest

from lambdamr.cli import Exit, main
from lambdamr.deploy.running import running_jobs
from lambdamr.deployment import Deployment, forget_profile, load_profile, save_profile
from lambdamr_runtime.keys import JobKeys
from tests.deploy.conftest import Site


def test_from_nothing_to_nothing(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """Plan, deploy, status, doctor, undeploy; what they print, and how they end."""
    name = ["--name", site.names.deployment]

    assert main(["status", *name]) == Exit.FAILED
    assert "Run `lambdamr deploy-runtime`" in capsys.readouterr().err

    assert main(["deploy-runtime", *name, "--plan"]) == Exit.OK
    planned = capsys.readouterr().out
    assert f"+ create  bucket     {site.names.bucket}" in planned
    assert site.leftovers() == [], "--plan changes nothing"

    assert main(["deploy-runtime", *name, "--yes", "--env", "TOKEN=secret-1"]) == Exit.OK
    captured = capsys.readouterr()
    assert "Deployed." in captured.out
    assert captured.err.count("done") == 9
    assert main(["deploy-runtime", *name, "--memory", "3000"]) == Exit.USAGE
    assert "give --yes" in capsys.readouterr().err
    assert (
        main(["deploy-runtime", *name, "--memory", "3000", "--yes", "--env", "TOKEN=secret-2"]) == 0
    )
    printed = capsys.readouterr().out
    assert "memory_mb: 1769 → 3000" in printed
    assert "secret" not in printed, "values of variables are never shown"
    assert main(["deploy-runtime", *name, "--json"]) == Exit.OK
    record = json.loads(capsys.readouterr().out)
    assert record["applied"] is False
    assert {step["action"] for step in record["steps"]} == {"keep"}

    assert main(["status", *name]) == Exit.OK
    assert "3,000 MB" in capsys.readouterr().out
    assert main(["status", *name, "--json"]) == Exit.OK
    assert json.loads(capsys.readouterr().out)["worker"] == site.names.worker
    assert main(["doctor", *name]) == Exit.OK
    assert "BAD" not in capsys.readouterr().out

    assert main(["undeploy", *name, "--plan", "--json"]) == Exit.OK
    assert len(json.loads(capsys.readouterr().out)["steps"]) == 9
    assert main(["undeploy", *name, "--yes"]) == Exit.OK
    assert "Removed." in capsys.readouterr().out
    assert site.leftovers() == []
    assert load_profile(site.names.deployment) is None


def test_a_template_is_written(
    site: Site, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """--emit-template writes three files, says how to use them, and changes nothing."""
    path = tmp_path / "stack" / "template.json"
    arguments = ["--name", site.names.deployment, "--emit-template", str(path)]
    assert main(["deploy-runtime", *arguments]) == Exit.OK
    printed = capsys.readouterr().out
    assert "aws cloudformation deploy" in printed
    assert "CodeBucket" in json.loads(path.read_text())["Parameters"]
    assert len(list(path.parent.iterdir())) == 3
    assert site.leftovers() == []


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["deploy-runtime", "--name", "A_B"], Exit.USAGE, "cannot name a deployment"),
        (["deploy-runtime", "--env", "X"], Exit.USAGE, "is not NAME=VALUE"),
        (["deploy-runtime", "--memory", "1"], Exit.USAGE, "--memory is 128"),
        (["deploy-runtime", "--requirements", "nowhere.txt"], Exit.FAILED, "nowhere.txt"),
        (["deploy-runtime", "--aws-profile", "nobody"], Exit.FAILED, "list-profiles"),
        (["undeploy", "--root", "/tmp"], Exit.USAGE, "s3://bucket/prefix"),
    ],
)
def test_what_cannot_be_done_is_a_line_and_a_status(
    site: Site,
    arguments: list[str],
    status: Exit,
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A user's error is told without a traceback, before anything is made."""
    command, *options = arguments
    assert main([command, "--name", site.names.deployment, *options]) == status
    captured = capsys.readouterr()
    assert said in captured.err
    assert "Traceback" not in captured.err


def test_nobody_can_be_asked(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal and --yes nothing is downloaded, planned or made: the option is named."""
    for options in ([], ["--json"]):
        assert main(["deploy-runtime", "--name", site.names.deployment, *options]) == Exit.USAGE
        captured = capsys.readouterr()
        assert "give --yes" in captured.err
        assert captured.out == "", "the plan would need the layer"
    assert site.leftovers() == []


def test_jobs_that_run_are_not_cut_off(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """It names them and removes nothing; jobs that have ended, or are cancelled, are no
    reason; --force is stronger.
    """
    site.deploy()
    root, s3 = site.names.own_root, site.root_client("s3")
    running, done, cancelled = (f"20261126-09335{n}-0123456789ab" for n in range(3))
    keys = [JobKeys(done).report, JobKeys(cancelled).cancelled]
    for key in [*keys, *(JobKeys(job).manifest for job in (running, done, cancelled))]:
        s3.put_object(Bucket=root.bucket, Key=f"{root.prefix}{key}", Body=b"{}")
    undeploy = ["undeploy", "--name", site.names.deployment, "--delete-data"]
    assert main([*undeploy, "--yes"]) == Exit.FAILED
    captured = capsys.readouterr()
    assert f"job {running} is running" in captured.out
    assert f"Jobs are running: 1, the newest is {running}" in captured.err
    assert "--force" in captured.err
    assert not {done, cancelled} & set(captured.out.split())
    assert site.state().worker is not None
    assert main([*undeploy, "--plan", "--json"]) == Exit.OK
    assert json.loads(capsys.readouterr().out)["running"] == [running]
    assert main([*undeploy, "--yes", "--force"]) == Exit.OK
    assert site.leftovers() == []


def test_a_job_that_is_quiet_for_long_is_no_reason(site: Site) -> None:
    """What nothing was stored of for longer than a function may run does not run."""
    site.deploy()
    root = site.names.own_root
    job = "20261126-093355-0123456789ab"
    site.root_client("s3").put_object(
        Bucket=root.bucket, Key=f"{root.prefix}{JobKeys(job).manifest}", Body=b"{}"
    )
    assert running_jobs(site.cloud, root, 900) == (job,)
    assert running_jobs(site.cloud, root, -100) == ()


def test_a_region_must_be_known(
    site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without --region, AWS's configuration or a deployment there is no guess."""
    monkeypatch.delenv("AWS_REGION")
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    assert main(["status"]) == Exit.FAILED
    assert "--region" in capsys.readouterr().err
    monkeypatch.setenv("AWS_REGION", site.names.region)
    assert main(["status", "--name", site.names.deployment]) == Exit.FAILED
    assert f"no deployment '{site.names.deployment}' in {site.names.region}" in (
        capsys.readouterr().err
    )


def test_a_wrong_region_is_told(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """Who looks in a region where nothing is, while this machine knows better, is told where."""
    name = site.names.deployment
    record = Deployment(
        name, "eu-north-1", "s3://b/root", "w", "s", "3.12", "x86_64", 1, 1769, 900, 512, {}
    )
    save_profile(record)
    assert main(["status", "--name", name, "--region", site.names.region]) == Exit.FAILED
    told = capsys.readouterr().err
    assert f"no deployment {name!r} in {site.names.region}" in told
    assert "give --region eu-north-1" in told
    assert told.count("\n") == 1
    assert forget_profile(name)
