"""`realrag pull`: a bundle from a model hub. Never called inside ComfyUI.

What comes is pinned to a commit, and believed only after its hash: huggingface_hub does not hash what it has
downloaded.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from ..bundle.bundle import MANIFEST, MAX_MANIFEST, Bundle, Manifest, read_manifest
from ..errors import BundleError, HubError
from ..files import Verdicts, fsync_folder, safe_join, write_atomic
from ..locks import FolderLock
from ..photos.scan import Progress
from ..validation import is_hex
from .api import checked, hub, in_words

LARGEST = 50 * 10**9  # bytes of a bundle that are fetched unless more is asked for


def pull(
    repo: str, revision: str, out: Path, *, largest: int = LARGEST, progress: Progress = lambda done, total: None
) -> Manifest:
    """Fetch the bundle of `repo` ("OWNER/NAME") at `revision`, a commit of 40 hex digits, into the folder `out`.

    Only what its manifest lists is fetched, and `out` appears when all of it is there and right. A pull that was
    stopped goes on where it was. progress: in bytes. Raises HubError, BundleError, BusyError.
    """
    out, api = Path(os.path.abspath(out)), hub()
    if not is_hex(revision, 40):
        raise HubError(_unpinned(api, checked(repo), revision, out))
    if out.exists() and any(out.iterdir()) and not (out / MANIFEST).is_file():
        raise HubError(f"{out} holds other things and is not a bundle. Give --out a new or empty folder.")
    manifest, data = _manifest(api, checked(repo), revision, out, largest)
    work = out.with_name(f".{out.name}.pull")
    with FolderLock(work / "lock"):
        if (out / MANIFEST).is_file():
            _the_same(out, manifest)
        else:
            folder = work / revision  # two folders deep, so that ComfyUI does not list what is on its way
            folder.mkdir(parents=True, exist_ok=True)
            write_atomic(folder / MANIFEST, data)
            _fetch_files(api, repo, revision, manifest, folder, out, progress)
            _appear(folder, out)
        for path in work.iterdir():
            if not path.name.startswith("lock"):  # it goes, and the folder with it, as it is let go
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
    return manifest


def _offline(out: Path) -> str:
    return (
        f"Run the same command again to go on where it was. Or open {{url}} on a machine that reaches it, save what its "
        f"{MANIFEST} lists, and that file, in {out}, and check it with `realrag verify {out}`."
    )


def _unpinned(api, repo: str, revision: str, out: Path) -> str:
    """A branch or tag is no revision to rely on, as it may be another tomorrow; which commit it is now, the hub knows."""
    with in_words(api, repo, revision or "main", _offline(out)):
        commit = api.repo_info(repo, revision=revision or None).sha
    asked = (
        f"{revision[:80]!r} can change" if revision else "No revision is given, and what a repository holds can change"
    )
    now = f"{revision[:80] or 'main'} is {commit} now"
    return f"{asked}, so a bundle is pulled by its commit. {now}: run again with --revision {commit}"


def _manifest(api, repo: str, commit: str, out: Path, largest: int) -> tuple[Manifest, bytes]:
    """The checked manifest of the repository at this commit, and its bytes. Refused before anything large is fetched:
    what is no bundle, lacks a file, has one of another size than the manifest says, or is too large."""
    with in_words(api, repo, commit, _offline(out)):
        info = api.repo_info(repo, revision=commit, files_metadata=True)
    if info.sha != commit:
        raise HubError(f"The hub answers for {info.sha} where {commit} was asked for. Give the whole commit.")
    sizes = {file.rfilename: file.size for file in info.siblings}
    if MANIFEST not in sizes or (sizes[MANIFEST] or 0) > MAX_MANIFEST:
        raise HubError(
            f"{repo} at {commit} holds no bundle: {MANIFEST} is missing, or larger than {MAX_MANIFEST} bytes."
        )
    with TemporaryDirectory() as folder:
        path = _fetched(api, repo, commit, MANIFEST, Path(folder), out)
        manifest, data = read_manifest(path.parent), path.read_bytes()
        for file in manifest.files:
            safe_join(Path(folder), file.path)
            if sizes.get(file.path) != file.bytes:
                found = f"has {sizes[file.path]} bytes" if file.path in sizes else "is missing"
                raise BundleError(
                    f"{repo} at {commit}: {file.path} {found}, the manifest says {file.bytes}. Tell the bundle's author."
                )
    if (total := sum(file.bytes for file in manifest.files)) > largest:
        raise HubError(
            f"The bundle has {total / 1e9:.1f} GB, more than {largest / 1e9:.1f}. Ask for more with --max-gb."
        )
    return manifest, data


def _the_same(out: Path, manifest: Manifest) -> None:
    if Bundle(out).id != manifest.id:
        raise HubError(
            f"{out} holds another bundle, or another version of this one. A bundle is not changed under the workflows that "
            "use it: give --out a new folder, and remove the old one when nothing needs it."
        )


def _fetch_files(api, repo: str, commit: str, manifest: Manifest, folder: Path, out: Path, progress: Progress) -> None:
    """Fetch what is not there and right yet, file by file, each hashed when it has come."""
    verdicts, total = Verdicts(folder.parent), sum(file.bytes for file in manifest.files)
    places = {file: safe_join(folder, file.path) for file in manifest.files}
    missing = [file for file, path in places.items() if not path.is_file() or verdicts.sha256(path) != file.sha256]
    needed, free = sum(file.bytes for file in missing), shutil.disk_usage(folder).free
    if needed > free:
        raise HubError(
            f"{needed / 1e9:.1f} GB are to be fetched and {free / 1e9:.1f} GB are free at {out.parent}. Make room."
        )
    done = total - needed
    for file in missing:
        progress(done, total)
        places[file].unlink(missing_ok=True)
        path = _fetched(api, repo, commit, file.path, folder, out)
        if path.is_symlink():
            raise HubError(
                "This huggingface_hub leaves links in place of files. Update it: pip install -U huggingface_hub"
            )
        if (digest := verdicts.sha256(path)) != file.sha256:
            path.unlink()
            raise BundleError(
                f"{file.path} came with the sha256 {digest[:12]}..., the manifest says {file.sha256[:12]}.... Pull again; "
                "where that does not help, tell the bundle's author."
            )
        done += file.bytes
    progress(total, total)


def _fetched(api, repo: str, commit: str, name: str, folder: Path, out: Path) -> Path:
    with in_words(api, repo, commit, _offline(out)):
        return Path(api.hf_hub_download(repo, name, revision=commit, local_dir=folder))


def _appear(folder: Path, out: Path) -> None:
    """Open the bundle as its user will, have it on the disk, and give it its name."""
    shutil.rmtree(folder / ".cache", ignore_errors=True)  # what huggingface_hub remembers of its downloads
    bundle = Bundle(folder, folder.parent)
    for head in bundle.manifest.heads:
        bundle.head(head.name)
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir():
            fsync_folder(path)
        else:
            with open(path, "rb+") as file:
                os.fsync(file.fileno())
    del bundle  # Windows moves no folder that holds a mapped file
    if out.exists():
        out.rmdir()
    os.replace(folder, out)
    fsync_folder(out.parent)
