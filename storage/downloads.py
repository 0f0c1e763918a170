"""Errors of the Hugging Face hub as builtin exceptions with one sentence.

The endpoint is `HF_ENDPOINT`, the token `HF_TOKEN` or that of `hf auth login`, the cache that of huggingface_hub.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

_LOGIN = "set HF_TOKEN or run `hf auth login`"


def endpoint() -> str:
    """Address of the hub."""
    from huggingface_hub import constants

    return os.environ.get("HF_ENDPOINT", constants.ENDPOINT)


@contextmanager
def plain_errors(what: str) -> Iterator[None]:
    """Context that turns errors of the hub into PermissionError, FileNotFoundError or ConnectionError."""
    try:
        yield
    except Exception as error:
        if (plain := explained(error, what)) is None:
            raise
        raise plain from error


def explained(error: BaseException, what: str) -> OSError | None:
    """The builtin error for a failure of the hub with `what`, a repository or spec; None if the hub is not the cause.

    transformers, open_clip and datasets wrap the hub's errors in their own, so all causes of `error` are searched. A
    file that a repository lacks is not an error of the hub, because loaders also ask for optional files.
    """
    from huggingface_hub import constants, errors

    causes = list(_causes(error))
    for each in causes:  # the nearest cause is the most specific
        if (refusal := _refusal(each, what)) is not None:
            return refusal
    names = [type(each).__name__ for each in causes if type(each).__module__.startswith("httpx")]
    if "RemoteProtocolError" in names or any("Consistency check failed" in str(each) for each in causes):
        return ConnectionError(f"The download of {what} broke off: run the same again, finished files are kept.")
    if not names and not any(isinstance(each, ConnectionError | errors.LocalEntryNotFoundError) for each in causes):
        return None
    if constants.is_offline_mode():
        return ConnectionError(f"{what} is not in the cache, and HF_HUB_OFFLINE forbids to fetch it: unset it once.")
    return ConnectionError(
        f"{endpoint()} cannot be reached and {what} is not in the cache: check the network and HF_ENDPOINT, or give a "
        "local folder."
    )


def _refusal(error: BaseException, what: str) -> OSError | None:
    """The builtin error for an answer of the hub; None where there was no answer, or only a missing file."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return PermissionError(f"{what} is gated: ask for access on its page, then {_LOGIN}.")
    if isinstance(error, errors.RepositoryNotFoundError):
        return FileNotFoundError(
            f"There is no repository {what} on {endpoint()}, or it is private and your token may not read it: {_LOGIN}."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return FileNotFoundError(f"{what} has no such revision.")
    if isinstance(error, errors.LocalTokenNotFoundError):
        return PermissionError(f"{what} needs a token: {_LOGIN}.")
    status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else 404
    if status in (401, 403):
        return PermissionError(f"Your token may not do this with {what} (status {status}): {_LOGIN}.")
    if status == 404:
        return None
    return ConnectionError(f"{endpoint()} answered {what} with status {status}: try again later.")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and, transitively, its `__context__` and `__cause__`."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        each = waiting.pop()
        if id(each) not in seen:
            seen.add(id(each))
            yield each
            waiting += [other for other in (each.__context__, each.__cause__) if other is not None]
