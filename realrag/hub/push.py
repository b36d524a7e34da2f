"""`realrag push`: a bundle to a model hub, with a card that says what is in it and which commit to pull."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from ..bundle.bundle import MANIFEST, Bundle
from ..errors import HubError
from ..photos.licenses import normal
from .api import checked, hub, in_words
from .card import card

CARD = "README.md"
# The files of ours in a repository, which a new version takes the place of; whatever else its owner keeps there stays.
_OURS = re.compile(r"(embeddings|records|pictures|thumbnails|head)-[0-9a-f-]+\.(safetensors|jsonl|tar)|encoder/.+")


@dataclass(frozen=True)
class Pushed:
    commit: str  # the one to pull
    url: str
    private: bool


def push(bundle: Bundle, repo: str, *, public: bool = False, evaluation: dict | None = None) -> Pushed:
    """Put a bundle into the repository `repo` ("OWNER/NAME"), and a card beside it in place of the README that is
    there. A new repository is private unless `public`: photos have owners (our choice). evaluation: the trainer's
    evaluate.json.

    All files go up in one commit, so that no reader meets half of it; what the hub has already is not sent again. The
    card names that commit, so it follows in a second one. Raises HubError.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    api, manifest = hub(), bundle.manifest
    card(bundle, checked(repo), "", evaluation)  # what cannot be said is told before anything goes up
    licenses = {words: normal(words) for words in manifest.licences}
    unstated = sum(count for words, count in manifest.licences.items() if not licenses[words].stated)
    reserved = sum(count for words, count in manifest.licences.items() if licenses[words].free is False)
    if public and (unstated or reserved):
        what = f"{unstated} of {manifest.count} photos state no licence" if unstated else ""
        kept = f"{reserved} of {manifest.count} photos keep all rights reserved" if reserved else ""
        raise HubError(
            f"{' and '.join(filter(None, (what, kept)))}, and a public repository passes them on to everyone. "
            "Give licences when indexing (--licence, --captions), take those photos out, or push without --public."
        )
    with in_words(api, repo, "main", "Run the same command again; what has arrived is not sent twice."):
        api.create_repo(repo, private=not public, exist_ok=True)
        info = api.repo_info(repo)
        if not public and not info.private:
            raise HubError(
                f"{repo} is public already, so everyone would see the photos. Add --public if that is meant."
            )
        ours = {MANIFEST, *(file.path for file in manifest.files)}
        there = {file.rfilename for file in info.siblings}
        add = [CommitOperationAdd(name, str(bundle.folder / name)) for name in sorted(ours)]
        delete = [CommitOperationDelete(name) for name in sorted(there - ours) if _OURS.fullmatch(name)]
        commit = api.create_commit(repo, [*add, *delete], commit_message=f"Bundle {bundle.id[:12]}").oid
        text = card(bundle, repo, commit, evaluation)
        # Where nothing was new the hub names its latest commit, which may be that of this very card.
        if commit != info.sha or CARD not in there or _unpinned(_card_there(api, repo, commit)) != _unpinned(text):
            operations = [CommitOperationAdd(CARD, text.encode())]
            api.create_commit(repo, operations, commit_message=f"Card of bundle {bundle.id[:12]}")
    return Pushed(commit, f"{api.endpoint}/{repo}", bool(info.private))


def _card_there(api, repo: str, commit: str) -> str:
    with TemporaryDirectory() as folder:
        path = api.hf_hub_download(repo, CARD, revision=commit, local_dir=folder)
        return Path(path).read_text(encoding="utf-8", errors="replace")


def _unpinned(text: str) -> str:
    return re.sub(r"--revision [0-9a-f]{40}", "--revision", text)
