"""How many functions may run at a time, and how many of them a job takes."""

from typing import Any

from lambdamr_runtime.errors import InvocationRefused
from lambdamr_runtime.limits import FREE_SHARE
from lambdamr_runtime.signing import help_with


def usable_lanes(client: Any, function: str, wanted: int | None) -> int:
    """Return the most lanes of a stage: the share of the account's limit that others leave free.

    A function with reserved concurrency has that for itself, all of it.

    Args:    client: of boto3, for Lambda; Any: boto3 has no types. wanted: `concurrency=`.
    Raises:  InvocationRefused: the limits may not be read, and nobody says what is wanted; or
             nobody signs requests.
    """
    from botocore.exceptions import ClientError

    try:
        own, free = _limits(client, function)
    except ClientError as error:
        if wanted is not None:
            return wanted
        raise _unreadable(error) from error
    if own == 0:
        raise InvocationRefused(
            f"{function} has a reserved concurrency of 0: AWS never runs it. Run "
            f"`aws lambda delete-function-concurrency --function-name {function}`."
        )
    most = max(1, free if own is None else own)
    share = max(1, int(most * FREE_SHARE)) if own is None else most
    return min(wanted, most) if wanted is not None else share


def places_of(client: Any, function: str) -> int:
    """Return how many invocations of a function may run at a time: what is reserved for it, or
    what is for all that nothing is reserved for.

    Raises:  InvocationRefused: the limits may not be read.
    """
    from botocore.exceptions import ClientError

    try:
        own, free = _limits(client, function)
    except ClientError as error:
        raise _unreadable(error) from error
    return free if own is None else own


def _limits(client: Any, function: str) -> tuple[int | None, int]:
    """Return what is reserved for a function, None for nothing, and what the account has for all.

    Raises:  InvocationRefused: nobody signs requests, or there is no such function.
             ClientError: they may not be read.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        reserved = client.get_function_concurrency(FunctionName=function)
        limit = client.get_account_settings()["AccountLimit"]
    except BotoCoreError as error:
        raise InvocationRefused(
            help_with(error) or f"AWS Lambda could not be reached: {error}"
        ) from error
    except ClientError as error:
        found = help_with(error) or _missing(error, function)
        if found:
            raise InvocationRefused(found) from error
        raise
    return reserved.get("ReservedConcurrentExecutions"), int(
        limit["UnreservedConcurrentExecutions"]
    )


def _missing(error: Any, function: str) -> str:
    """Return what to do where there is no such function, "" where something else is wrong."""
    if error.response.get("Error", {}).get("Code") != "ResourceNotFoundException":
        return ""
    return (
        f"There is no function {function}: the runtime was removed. Run `lambdamr deploy-runtime`, "
        "or `lambdamr undeploy` to forget it."
    )


def _unreadable(error: Exception) -> InvocationRefused:
    return InvocationRefused(
        f"The concurrency limits cannot be read: {error}. Allow lambda:GetAccountSettings and "
        "lambda:GetFunctionConcurrency, or pass concurrency=."
    )
