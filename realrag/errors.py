"""Errors a person can act on: each message names the value, the rule and the cure."""

import re

_ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")  # terminal colors


class RealRAGError(Exception):
    """Base of every error that RealRAG raises on purpose."""


class PhotoError(RealRAGError):
    """A photo that cannot be used. `reason` is a short stable code for reports and tests."""

    def __init__(self, reason: str, message: str):
        super().__init__(message)
        self.reason = reason


class BundleError(RealRAGError):
    """A bundle that is damaged, incomplete, hostile, or of an unknown version."""


class EncoderError(RealRAGError):
    """An encoder that is unknown, cannot be loaded, or does not belong to the bundle."""


class AdapterError(RealRAGError):
    """A reference adapter of an unknown format, or one that does not fit the model or the image encoder."""


class QueryError(RealRAGError):
    """A question the retriever cannot answer: nothing asked, or a number outside its range."""


class StoreError(RealRAGError):
    """An index beyond this program that cannot be reached, is not whole, or was made of something else."""


class HubError(RealRAGError):
    """A model hub that cannot be reached, refuses, or holds something other than it should."""


class BusyError(RealRAGError):
    """Another living process is writing the same folder."""


class TooManyError(RealRAGError):
    """More photos would be rejected or removed than the caller allows. `report`: what became of the photos; nothing
    was changed."""

    def __init__(self, message: str, report):
        super().__init__(message)
        self.report = report


def brief(error: BaseException, longest: int = 160) -> str:
    """Another library's error for a message of ours: its class and the first line of its text, cut to `longest`."""
    lines = [" ".join(line.split()) for line in _ESCAPES.sub("", str(error)).splitlines() if line.strip()]
    text = lines[0] if lines else ""
    text = text if len(text) <= longest else f"{text[:longest].rstrip()}…"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
