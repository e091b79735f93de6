"""Where a bucket is, and who asks: answered by servers on loopback."""

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lambdamr.cli import Exit, main
from lambdamr_runtime.errors import StoreError
from lambdamr_runtime.s3 import chain_of_boto3, region_of_bucket
from lambdamr_runtime.signing import session
from lambdamr_runtime.store import open_store

MODIFIED = {"Last-Modified": "Thu, 26 Nov 2026 02:00:00 GMT", "ETag": '"x"'}
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


@dataclass(slots=True)
class Asked:
    """A request that has come."""

    method: str
    path: str
    headers: Mapping[str, str]
    """Their names in lower case."""
    body: str


@dataclass(slots=True)
class Server:
    """Answers every request alike, and keeps them."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    asked: list[Asked] = field(default_factory=list)
    port: int = 0

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connect(self, host: str) -> HTTPConnection:
        """Return a connection to here, whoever was to be asked."""
        self.headers["x-host"] = host
        return HTTPConnection("127.0.0.1", self.port, timeout=10)


@pytest.fixture
def server() -> Iterator[Server]:
    """A server on loopback."""
    found = Server()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            headers = {name.lower(): value for name, value in self.headers.items()}
            found.asked.append(Asked(self.command, self.path, headers, body))
            self.send_response(found.status)
            for name, value in found.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(found.body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(found.body)

        do_GET = do_HEAD = do_POST = do_PUT = answer  # noqa: N815 - http.server's

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        found.port = http.server_port
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        yield found
        http.shutdown()
        thread.join()


# --- where --------------------------------------------------------------------------------------
@pytest.mark.parametrize("status", [200, 301, 403])
def test_a_bucket_says_where_it_is(server: Server, status: int) -> None:
    """Whatever else S3 answers; it is asked once, without credentials, near the caller."""
    server.status, server.headers = status, {"x-amz-bucket-region": "ap-south-1"}
    here, bucket = {"AWS_REGION": "eu-west-1"}, f"foreign-{status}"
    for _ in range(2):
        assert region_of_bucket(bucket, here, server.connect) == "ap-south-1"
    (asked,) = server.asked
    assert (asked.method, asked.path) == ("HEAD", f"/{bucket}")
    assert "authorization" not in asked.headers
    assert server.headers["x-host"] == "s3.eu-west-1.amazonaws.com"


def test_where_nobody_says_it_is_here(server: Server) -> None:
    """An answer without a region, or none at all: the request proper will say what is wrong."""
    assert region_of_bucket("silent", {"AWS_REGION": "eu-west-1"}, server.connect) == "eu-west-1"
    assert region_of_bucket("silent", {}, server.connect) == "us-east-1"

    def nobody(host: str) -> HTTPConnection:
        return HTTPConnection("127.0.0.1", 1, timeout=10)

    assert region_of_bucket("silent", {"AWS_REGION": "eu-west-1"}, nobody) == "eu-west-1"


# --- who pays -----------------------------------------------------------------------------------
@pytest.mark.parametrize("pays", [True, False])
def test_the_requester_pays_where_it_says_so(
    server: Server, pays: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AWS_REQUEST_PAYER=requester puts the header into every request, and nothing else does."""
    server.headers, server.body = dict(MODIFIED), b"x"
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
    for name in KEYS[:2]:
        monkeypatch.setenv(name, "some")
    if pays:
        monkeypatch.setenv("AWS_REQUEST_PAYER", "requester")
    store = open_store("s3://theirs/data")
    store.head("a")
    store.get("a")
    store.put("b", b"x")
    assert [it.method for it in server.asked] == ["HEAD", "GET", "PUT"]
    said = {it.headers.get("x-amz-request-payer") for it in server.asked}
    assert said == {"requester" if pays else None}


# --- refusals -----------------------------------------------------------------------------------
def refusal(code: str) -> bytes:
    return f'<?xml version="1.0"?>\n<Error><Code>{code}</Code><Message>m</Message></Error>'.encode()


@pytest.mark.parametrize(
    ("status", "code", "act", "said"),
    [
        (403, "AccessDenied", "get", "403 Forbidden: AccessDenied: m. .* needs s3:GetObject there"),
        (403, "AccessDenied", "put", "s3:PutObject .*aws sts get-caller-identity"),
        (403, "AccessDenied", "head", "403 Forbidden. .* needs s3:GetObject there"),
        (403, "AccessDenied", "list", "needs s3:ListBucket there"),
        (403, "InvalidAccessKeyId", "get", "does not know the credentials .*or the profile"),
        (403, "SignatureDoesNotMatch", "list", "does not know the credentials"),
        (400, "ExpiredToken", "get", "have expired .*aws sso login"),
        (400, "ExpiredToken", "head", "400 Bad Request.*aws sso login"),
        (404, "NoSuchBucket", "list", "404 Not Found: NoSuchBucket: m"),
        (301, "PermanentRedirect", "get", "in another region .* check AWS_REGION"),
    ],
)
def test_a_refusal_is_one_line_that_says_what_to_do(
    server: Server, status: int, code: str, act: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3's code and word, and the permission or the command that helps."""
    server.status, server.body = status, refusal(code)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
    for name in KEYS[:2]:
        monkeypatch.setenv(name, "some")
    store = open_store("s3://theirs")
    acts: dict[str, Callable[[], object]] = {
        "get": lambda: store.get("a"),
        "put": lambda: store.put("a", b""),
        "head": lambda: store.head("a"),
        "list": lambda: list(store.list("a")),
    }
    with pytest.raises(StoreError, match=said) as caught:
        acts[act]()
    assert "\n" not in str(caught.value)


def test_wrong_keys_are_no_missing_object(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under a prefix a 403 may hide that there is nothing; with keys that S3 does not know it does
    not.
    """
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
    for name in KEYS[:2]:
        monkeypatch.setenv(name, "some")
    store = open_store("s3://theirs/prefix")
    server.status, server.body = 403, refusal("AccessDenied")
    with pytest.raises(FileNotFoundError):
        store.get("a")
    server.body = refusal("InvalidAccessKeyId")
    with pytest.raises(StoreError, match="does not know"):
        store.get("a")


# --- who asks -----------------------------------------------------------------------------------
@pytest.fixture
def configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that makes a text AWS's configuration, with the profile `work` chosen."""

    def configured(text: str) -> None:
        (tmp_path / "config").write_text(text)
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
        monkeypatch.setenv("AWS_PROFILE", "work")
        for name in KEYS:
            monkeypatch.delenv(name, raising=False)

    return configured


STATIC = "[profile {}]\naws_access_key_id = {}\naws_secret_access_key = secret\n"


def test_the_keys_of_a_profile(configured: Callable[[str], None]) -> None:
    """AWS_PROFILE chooses among several."""
    configured(STATIC.format("home", "HOME") + STATIC.format("work", "WORK"))
    assert chain_of_boto3()()["access_key_id"] == "WORK"


def test_nobody_has_keys(configured: Callable[[str], None]) -> None:
    """The error says what gives them."""
    configured("[profile work]\nregion = eu-west-1\n")
    with pytest.raises(StoreError, match="aws sso login"):
        chain_of_boto3()


SSO = """[profile work]
sso_session = s
sso_account_id = 123456789012
sso_role_name = r
[sso-session s]
sso_region = eu-west-1
sso_start_url = https://example.awsapps.com/start
"""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[profile work]\nregion = eu-west-1\n", "no AWS credentials.*aws sso login"),
        ("[profile home]\n", "profile (work) could not be found.*list-profiles"),
        (
            "[profile work]\naws_access_key_id = X\n",
            "missing: aws_secret_access_key.*aws configure",
        ),
        ("[profile work]\ncredential_process = false\n", "custom-process.*aws configure"),
        (SSO, "SSOTokenLoadError.*aws sso login"),
    ],
)
def test_keys_that_cannot_be_used_are_one_line(
    configured: Callable[[str], None],
    text: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of a job as of a command: what is wrong, and the command that mends it; nothing is asked."""
    configured(text)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    pattern = said.replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(StoreError, match=pattern):
        open_store("s3://bucket/root").get("a")
    assert main(["jobs", "--root", "s3://bucket/root"]) == Exit.FAILED
    captured = capsys.readouterr()
    assert re.search(pattern, captured.err)
    assert (captured.err.count("\n"), captured.out) == (1, "")


@pytest.mark.parametrize(
    ("variables", "region"),
    [
        ({"AWS_REGION": "eu-west-2"}, "eu-west-2"),
        ({"AWS_DEFAULT_REGION": "eu-west-3"}, "eu-west-3"),
        ({"AWS_REGION": "eu-west-2", "AWS_DEFAULT_REGION": "eu-west-3"}, "eu-west-2"),
        ({}, "eu-north-1"),
    ],
)
def test_the_region_of_requests(
    configured: Callable[[str], None],
    variables: dict[str, str],
    region: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """AWS_REGION, which boto3 does not know, then AWS_DEFAULT_REGION, then that of the profile."""
    configured("[profile work]\nregion = eu-north-1\n")
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert session().region_name == region


@pytest.mark.parametrize(("minutes", "asked"), [(5, 2), (60, 1)])
def test_keys_that_end_soon_are_asked_for_again(
    configured: Callable[[str], None], tmp_path: Path, minutes: int, asked: int
) -> None:
    """A credential_process gives new keys before the old ones end; until then it is left alone."""
    until = (datetime.now(UTC) + timedelta(minutes=minutes)).isoformat()
    calls, script = tmp_path / "calls", tmp_path / "keys.sh"
    script.write_text(
        f"echo call >> {calls}\nn=$(wc -l < {calls})\n"
        'printf \'{"Version": 1, "AccessKeyId": "K%d", "SecretAccessKey": "s", '
        f'"SessionToken": "t", "Expiration": "{until}"}}\' $n\n'
    )
    configured(f"[profile work]\ncredential_process = sh {script}\n")
    chain = chain_of_boto3()
    calls.write_text("")
    given = [chain()["access_key_id"] for _ in range(2)]
    assert len(calls.read_text().split()) == (asked if minutes < 10 else 0)
    assert len(set(given)) == asked


ASSUMED = """<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult>
<Credentials><AccessKeyId>ASSUMED</AccessKeyId><SecretAccessKey>secret</SecretAccessKey>
<SessionToken>token</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials>
<AssumedRoleUser><AssumedRoleId>A:b</AssumedRoleId><Arn>arn:aws:sts::123456789012:assumed-role/a/b</Arn>
</AssumedRoleUser></AssumeRoleResult></AssumeRoleResponse>"""


def test_a_role_that_a_profile_assumes(
    configured: Callable[[str], None], server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """STS is asked with the keys of the source, and its keys and token are used."""
    role = "arn:aws:iam::123456789012:role/reader"
    configured(
        STATIC.format("home", "HOME") + f"[profile work]\nrole_arn = {role}\n"
        "source_profile = home\n"
    )
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", server.endpoint)
    server.headers, server.body = {"Content-Type": "text/xml"}, ASSUMED.encode()
    keys = chain_of_boto3()()
    assert (keys["access_key_id"], keys["token"]) == ("ASSUMED", "token")
    (asked,) = server.asked
    assert "Credential=HOME/" in asked.headers["authorization"]
    assert "Action=AssumeRole" in asked.body
