"""What pull and push share: names of repositories, huggingface_hub, and its errors in words. Never used inside ComfyUI."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import HubError, RealRAGError

_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?"
_REPO = re.compile(f"{_PART}/{_PART}")
LOG_IN = "Log in with `hf auth login`, or put a token of yours in HF_TOKEN."


def checked(repo: str) -> str:
    """OWNER/NAME as it is, or HubError."""
    if not _REPO.fullmatch(repo) or "--" in repo or ".." in repo:
        raise HubError(
            f"{repo[:120]!r} is no name of a repository. Write it as OWNER/NAME, as it stands in its address."
        )
    return repo


def hub():
    """huggingface_hub's HfApi, for the hub that HF_ENDPOINT names; it takes the user's token from HF_TOKEN or his
    login."""
    try:
        from huggingface_hub import HfApi
    except Exception as error:  # a broken wheel fails in many ways
        message = f"huggingface_hub does not import here ({type(error).__name__}: {error}). Install it with pip."
        raise HubError(message) from error
    return HfApi(endpoint=os.environ.get("HF_ENDPOINT", "").rstrip("/") or None, library_name="realrag")


@contextmanager
def in_words(api, repo: str, commit: str, offline: str) -> Iterator[None]:
    """Turn what huggingface_hub raises into a HubError. offline: what to do where the hub cannot be reached; {url} in
    it is the page of the repository at `commit`."""
    try:
        yield
    except RealRAGError:
        raise
    except Exception as error:  # its classes, and those of the HTTP library below, differ from version to version
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT):
            raise
        causes: list[BaseException] = [error]
        while causes[-1].__cause__ is not None:
            causes.append(causes[-1].__cause__)
        kinds = {kind.__name__ for each in causes for kind in type(each).__mro__}
        status = next(
            (response.status_code for each in causes if (response := getattr(each, "response", None)) is not None), None
        )
        url = f"{api.endpoint}/{repo}/tree/{commit}"
        if "GatedRepoError" in kinds:
            message = f"{repo} asks for its owner's consent. Ask for it at {api.endpoint}/{repo}, then: {LOG_IN}"
        elif "RevisionNotFoundError" in kinds:
            message = f"{repo} has no commit {commit}. Look it up at {api.endpoint}/{repo}/commits/main."
        elif "RepositoryNotFoundError" in kinds:
            message = f"{repo} is not there, or is private and not yours to read. See {api.endpoint}/{repo}. {LOG_IN}"
        elif status in (401, 403):
            message = f"The hub does not let this account do that ({status}) with {repo}. {LOG_IN}"
        elif status and status < 500 and status not in (408, 429):
            message = f"The hub refuses ({status}): {_first_line(causes[-1])}"
        else:
            why = f"{type(causes[-1]).__name__}: {_first_line(causes[-1])}"
            message = f"The hub cannot be reached ({why}). {offline.replace('{url}', url)}"
        raise HubError(message) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or ["no words"])[0][:300]
