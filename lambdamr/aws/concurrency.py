"""How many functions may run at a time, and how many of them a job takes."""

from typing import Any

from lambdamr_runtime.errors import InvocationRefused
from lambdamr_runtime.limits import FREE_SHARE


def usable_lanes(client: Any, function: str, wanted: int | None) -> int:
    """Return the most lanes of a stage: the share of the account's limit that others leave free.

    A function with reserved concurrency has that for itself, all of it.

    Args:    client: of boto3, for Lambda; Any: boto3 has no types. wanted: `concurrency=`.
    Raises:  InvocationRefused: the limits may not be read, and nobody says what is wanted.
    """
    try:
        own, free = _limits(client, function)
    except InvocationRefused:
        if wanted is not None:
            return wanted
        raise
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
    own, free = _limits(client, function)
    return free if own is None else own


def _limits(client: Any, function: str) -> tuple[int | None, int]:
    """Return what is reserved for a function, None for nothing, and what the account has for all.

    Raises:  InvocationRefused: they may not be read.
    """
    from botocore.exceptions import ClientError

    try:
        own: int | None = client.get_function_concurrency(FunctionName=function).get(
            "ReservedConcurrentExecutions"
        )
        limit = client.get_account_settings()["AccountLimit"]
    except ClientError as error:
        raise InvocationRefused(
            f"The concurrency limits cannot be read: {error}. Allow lambda:GetAccountSettings and "
            "lambda:GetFunctionConcurrency, or pass concurrency=."
        ) from error
    return own, int(limit["UnreservedConcurrentExecutions"])
