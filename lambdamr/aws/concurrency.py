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
    from botocore.exceptions import ClientError

    try:
        reserved = client.get_function_concurrency(FunctionName=function)
        own: int | None = reserved.get("ReservedConcurrentExecutions")
        limit = client.get_account_settings()["AccountLimit"]
        free = int(limit["UnreservedConcurrentExecutions"])
    except ClientError as error:
        if wanted is not None:
            return wanted
        raise InvocationRefused(
            f"The concurrency limits cannot be read: {error}. Allow lambda:GetAccountSettings and "
            "lambda:GetFunctionConcurrency, or pass concurrency=."
        ) from error
    if own == 0:
        raise InvocationRefused(
            f"{function} has a reserved concurrency of 0: AWS never runs it. Run "
            f"`aws lambda delete-function-concurrency --function-name {function}`."
        )
    most = max(1, free if own is None else own)
    share = max(1, int(most * FREE_SHARE)) if own is None else most
    return min(wanted, most) if wanted is not None else share
