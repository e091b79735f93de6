"""What obstore's errors say: in one line, with what to do where that is known.

obstore has few classes of errors; what S3 and the others answered stands in their text, as its
libraries print it.
"""

import re

from lambdamr_runtime.signing import NO_KEYS, help_with_code

_PAST_THE_END = ("StartTooLarge", "InvalidRange", "416 Range Not Satisfiable")

_HEAD_REFUSED = "S3 says no more to a HEAD; expired credentials are refused so: `aws sso login`."

_PROVIDER = "External AWS credential provider: "

_ANSWER = re.compile(
    r"status code: (?P<status>[^:]*):.*<Code>(?P<code>\w+)</Code>"
    r"(?:.*<Message>(?P<said>[^<]*)</Message>)?",
    re.DOTALL,
)
"""What S3 answers to a request that it refuses, as obstore quotes it."""

_NO_ANSWER = re.compile(
    r"The operation lacked the necessary privileges .*? status code: ", re.DOTALL
)
"""What obstore puts before the status of a refusal without a word, which HEADs get."""

_NO_CONNECTION = re.compile(
    r"kind: Connect,.*?(?:message|error): \"(?P<said>[^\"\n]*)\"", re.DOTALL
)
"""Where obstore's Debug source has what the system said of a connection that failed."""

_RETRIES = re.compile(r"\b\d+ retries\b")


def reason_of(error: BaseException) -> str:
    """Return what an error of obstore says in one line, and what to do where keys are wrong."""
    text = str(error).partition("\n\nDebug source")[0]
    if type(error).__name__ == "UnauthenticatedError":
        return (
            f"there are no usable AWS credentials: {_in_line(text.split(_PROVIDER)[-1])}. {NO_KEYS}"
        )
    answer = _ANSWER.search(text)
    cause = _NO_CONNECTION.search(str(error))
    if answer is None and cause is not None:
        tries = _RETRIES.search(text)
        after = f", after {tries[0]}" if tries else ""
        said = cause["said"].removeprefix("failed to lookup address information: ")
        return f"no connection ({said}){after}. Check the address and the network."
    if answer is None:
        bare = _in_line(_NO_ANSWER.split(text)[-1])
        is_unsaid = "Error performing HEAD" in text and bare.endswith("400 Bad Request")
        found = _HEAD_REFUSED if is_unsaid else _help_without_answer(text)
        return f"{bare}. {found}" if found else bare
    code, said = answer["code"], (answer["said"] or "").partition("\n")[0]
    help_ = help_with_code(code, said)
    return help_ or f"{answer['status']}: {code}: {said}"


def _help_without_answer(text: str) -> str:
    """Return what to do where a region is wrong, or keys of other stores are missing, else ""."""
    if "incorrectly configured region" in text:
        return (
            "The bucket is in another region than the one that was asked: check AWS_REGION, and "
            "that of the deployment (`lambdamr doctor`)."
        )
    if "Error performing token request" in text:
        return (
            "There are no usable Google credentials: set GOOGLE_APPLICATION_CREDENTIALS, or, for "
            "a public bucket, GOOGLE_SKIP_SIGNATURE=true."
        )
    if "Unable to recognise URL" in text:
        return "Known are directories, s3://, gs://, az:// and https://."
    if "Account must be specified" in text:
        return "Set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY."
    return ""


def _in_line(text: str) -> str:
    return " ".join(text.split()).rstrip(".: ")


def is_denied(error: BaseException) -> bool:
    """Whether S3 refuses somebody whose keys it knows."""
    answer = _ANSWER.search(str(error))
    about_keys = answer is not None and help_with_code(answer["code"], "")
    return type(error).__name__ == "PermissionDeniedError" and not about_keys


def is_past_the_end(error: BaseException) -> bool:
    """A range that begins at or behind the end: obstore's local store and S3's 416.

    The text names the key too, so a bare "416" would find it in the date of a job id.
    """
    text = str(error)
    return not isinstance(error, FileNotFoundError) and any(mark in text for mark in _PAST_THE_END)
