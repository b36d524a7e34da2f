"""Pull and push against a hub on 127.0.0.1, through the real huggingface_hub. What the real hub does behind its API,
such as its own storage protocol (Xet, switched off here), is not shown by this."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from bundle_content import rewritten
from command_in_a_process import run_command
from fake_encoder import ColorEncoder
from fake_hub import FakeHub, Repository
from made_photos import photo_bytes, write_photos

from realrag.bundle.bundle import MANIFEST, Bundle
from realrag.bundle.edit_heads import change_heads
from realrag.commands.main import main
from realrag.encoders.reflective_head import ReflectiveHead, save_head
from realrag.errors import BundleError, BusyError, HubError
from realrag.files import sha256_file
from realrag.hub.pull import pull
from realrag.hub.push import push
from realrag.indexing.build import build
from realrag.locks import FolderLock

REPO, TOKEN = "ann/cars", "hf_abcdefghijklmnop"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub, and a huggingface_hub that knows no other."""
    from huggingface_hub import constants, file_download
    from huggingface_hub.utils import disable_progress_bars

    hub = FakeHub()
    disable_progress_bars()
    monkeypatch.setenv("HF_ENDPOINT", hub.url)  # as a user sets it; what follows was read from it at import
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(file_download, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)  # older versions
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub cache"))
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    hub.token = TOKEN
    yield hub
    hub.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A bundle with two heads."""
    root, files = tmp_path_factory.mktemp("made"), {}
    write_photos(root / "photos")
    for at, name in enumerate(("flux", "sd35")):
        torch.manual_seed(at)
        save_head(ReflectiveHead(13, 8, {"generator": name, "config": {"lr": 0.1}}), root / f"{name}.safetensors")
        files[name] = root / f"{name}.safetensors"
    build(root / "photos", root / "b", ColorEncoder(), head=files)
    return root / "b"


@pytest.fixture
def bundle(made, tmp_path):
    return Bundle(shutil.copytree(made, tmp_path / "mine"))


@pytest.fixture
def commit(hub, bundle):
    """The bundle in a repository of the hub, beside things that do not belong to it."""
    hub.repositories[REPO] = repository = Repository(private=True)
    strange = {"README.md": b"# a card", "evil.pkl": b"\x80\x04.", "setup.py": b"raise SystemExit"}
    return repository.commit({path.name: path.read_bytes() for path in bundle.folder.iterdir()} | strange)


def content(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in folder.rglob("*") if path.is_file()}


def respoil(hub, change) -> str:
    """A commit whose manifest a hostile author rewrote."""
    files = dict(hub.repositories[REPO].commits[-1][1])
    files[MANIFEST] = rewritten(files[MANIFEST], change)
    return hub.repositories[REPO].commit(files)


def test_what_was_pushed_is_pulled_byte_for_byte_and_nothing_else(hub, bundle, tmp_path):
    made = push(bundle, REPO)
    assert (made.url, made.private) == (f"{hub.url}/{REPO}", True)
    hub.asked.clear()
    steps, listed = [], []

    def progress(done, total):
        steps.append(done)
        listed.extend((tmp_path / "models").glob("*/manifest.json"))

    manifest = pull(REPO, made.commit, tmp_path / "models" / "cars", progress=progress)
    assert content(tmp_path / "models" / "cars") == content(bundle.folder) and manifest.id == bundle.id
    assert sorted(hub.fetched()) == sorted([MANIFEST, *(file.path for file in manifest.files)])
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["cars"]
    assert steps == sorted(steps) and steps[-1] == sum(file.bytes for file in manifest.files)
    assert not listed, "ComfyUI sees no bundle before it is whole"
    assert {head["authorization"] for _, path, head in hub.asked if REPO in path} == {f"Bearer {TOKEN}"}


def test_files_beside_the_bundle_are_never_fetched(hub, commit, tmp_path):
    pull(REPO, commit, tmp_path / "out")
    assert not {"README.md", "evil.pkl", "setup.py"} & (set(hub.fetched()) | set(content(tmp_path / "out")))


@pytest.mark.parametrize("revision", ["", "main"])
def test_a_branch_is_refused_with_the_commit_it_is_now(hub, commit, tmp_path, revision):
    with pytest.raises(HubError, match=f"again with --revision {commit}"):
        pull(REPO, revision, tmp_path / "out")
    assert not hub.fetched() and not (tmp_path / "out").exists()


def test_a_commit_that_is_not_whole_or_not_there_is_refused(hub, commit, tmp_path):
    for revision in (commit[:7], commit.upper(), "0" * 40, "../" + commit[3:], "v1.0"):
        with pytest.raises(HubError, match="has no commit"):
            pull(REPO, revision, tmp_path / "out")
    assert not hub.fetched() and list(tmp_path.glob(".out*")) == []


@pytest.mark.parametrize(
    "repo", ["cars", "", "a/b/c", "../etc", "ann/..", "ann/x--y", "https://x.org/a", "ann/ca rs", "ann/cars\n", "-a/b"]
)
def test_what_is_no_name_of_a_repository_is_refused_before_anyone_is_asked(hub, tmp_path, bundle, repo):
    for revision in ("0" * 40, "main"):
        with pytest.raises(HubError, match="OWNER/NAME"):
            pull(repo, revision, tmp_path / "out")
    with pytest.raises(HubError, match="OWNER/NAME"):
        push(bundle, repo)
    assert not [path for _, path, _ in hub.asked if "agent" not in path]


@pytest.mark.parametrize("role", ["embeddings", "records", "pictures", "head"])
def test_a_file_that_comes_changed_is_refused_and_only_it_is_fetched_again(hub, commit, bundle, tmp_path, role):
    name = bundle.manifest.of(role)[0].path
    hub.faults[name] = lambda data: data[:-1] + bytes([data[-1] ^ 1])
    with pytest.raises(BundleError, match=f"{name} came with the sha256"):
        pull(REPO, commit, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    had = {path.name for path in (tmp_path / ".out.pull" / commit).iterdir() if path.is_file()}
    hub.faults.clear(), hub.asked.clear()
    pull(REPO, commit, tmp_path / "out")
    assert content(tmp_path / "out") == content(bundle.folder)
    assert name in hub.fetched() and set(hub.fetched()) & had == {MANIFEST}


def test_a_pull_that_was_stopped_goes_on_and_ends_the_same(hub, commit, bundle, tmp_path):
    for stop_after in (1, 3, 5):
        seen = 0

        def progress(done, total, limit=stop_after):
            nonlocal seen
            seen += 1
            if seen > limit:
                raise KeyboardInterrupt

        out = tmp_path / f"out{stop_after}"
        with pytest.raises(KeyboardInterrupt):
            pull(REPO, commit, out, progress=progress)
        assert not out.exists()
        hub.asked.clear()
        pull(REPO, commit, out)
        assert len(hub.fetched()) == len(bundle.manifest.files) - stop_after + 1
        assert content(out) == content(bundle.folder)


def test_a_broken_connection_is_taken_up_where_it_broke_and_a_lost_one_with_the_next_pull(
    hub, commit, bundle, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        "huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000
    )  # a piece that broke is lost, here at most this
    name = bundle.manifest.of("pictures")[0].path
    hub.faults[name] = [5000, *[0] * 6]  # as often as huggingface_hub tries by itself
    with pytest.raises(
        HubError, match=f"cannot be reached.*Run the same command again.*{hub.url}/{REPO}/tree/{commit}"
    ):
        pull(REPO, commit, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    hub.faults.clear()
    pull(REPO, commit, tmp_path / "out")
    assert content(tmp_path / "out") == content(bundle.folder)
    assert "bytes=5000-" in [
        head.get("range") for verb, path, head in hub.asked if verb == "GET" and path.endswith(name)
    ]


def test_without_a_connection_the_message_says_what_to_fetch_and_where_to_put_it(hub, commit, tmp_path, monkeypatch):
    told = f"cannot be reached.*http.*/{REPO}/tree/{commit}.*manifest.json.*{tmp_path / 'out'}.*realrag verify"
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(HubError, match=told):
        pull(REPO, commit, tmp_path / "out")
    assert not (tmp_path / "out").exists() and list(tmp_path.glob(".out*")) == []


def test_who_may_not_read_is_told_how_to_log_in(hub, commit, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_someoneelse")
    with pytest.raises(HubError, match=f"{REPO} is not there, or is private.*HF_TOKEN"):
        pull(REPO, commit, tmp_path / "out")


REFUSED = {
    "a path up": (lambda m: m["files"][0].update(path="../../up.safetensors"), "Unsafe file name"),
    "an absolute path": (lambda m: m["files"][0].update(path="/tmp/up.safetensors"), "Unsafe file name"),
    "a file that is not there": (
        lambda m: m["files"][0].update(path="other.safetensors"),
        "other.safetensors is missing",
    ),
    "another size": (lambda m: m["files"][0].update(bytes=m["files"][0]["bytes"] - 1), "the manifest says"),
    "a pickle": (lambda m: m["files"][0].update(path="evil.pkl"), "ends in .safetensors"),
    "no manifest at all": (lambda m: {"format": "zip"}, "this RealRAG reads"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_hostile_manifest_is_refused_before_anything_else_is_fetched(hub, commit, tmp_path, kind):
    change, told = REFUSED[kind]
    spoiled = respoil(hub, change)
    (tmp_path / "models").mkdir()
    before = {path for path in tmp_path.rglob("*") if "cache" not in path.as_posix()}
    with pytest.raises(BundleError, match=told):
        pull(REPO, spoiled, tmp_path / "models" / "out")
    assert hub.fetched() == [MANIFEST]
    assert {path for path in tmp_path.rglob("*") if "cache" not in path.as_posix()} == before


def test_a_hub_that_lies_about_sizes_or_has_no_manifest_is_refused(hub, commit, bundle, tmp_path):
    hub.sizes[MANIFEST] = 2 << 20
    with pytest.raises(HubError, match="holds no bundle"):
        pull(REPO, commit, tmp_path / "out")
    hub.sizes = {bundle.manifest.of("pictures")[0].path: 10**15}
    with pytest.raises(BundleError, match="has 1000000000000000 bytes, the manifest says"):
        pull(REPO, commit, tmp_path / "out")
    empty = hub.repositories[REPO].commit({"README.md": b""})
    with pytest.raises(HubError, match="holds no bundle"):
        pull(REPO, empty, tmp_path / "out")
    assert hub.fetched() == [MANIFEST] and list(tmp_path.glob(".out*")) == []


def test_a_bundle_too_large_for_the_bound_or_the_disk_is_refused_with_the_numbers(
    hub, commit, bundle, tmp_path, monkeypatch
):
    total = sum(file.bytes for file in bundle.manifest.files)
    with pytest.raises(HubError, match="--max-gb"):
        pull(REPO, commit, tmp_path / "out", largest=total - 1)
    monkeypatch.setattr("realrag.hub.pull.shutil.disk_usage", lambda path: type("Usage", (), {"free": total - 1}))
    with pytest.raises(HubError, match="Make room"):
        pull(REPO, commit, tmp_path / "out")
    assert set(hub.fetched()) == {MANIFEST}
    monkeypatch.undo()


def test_what_stands_in_the_target_folder_is_kept(hub, commit, bundle, tmp_path, photos, encoder):
    mine = tmp_path / "other"
    mine.mkdir()
    (mine / "novel.txt").write_text("chapter one")
    with pytest.raises(HubError, match="holds other things"):
        pull(REPO, commit, mine)
    (tmp_path / "empty").mkdir()
    pull(REPO, commit, tmp_path / "empty")
    hub.asked.clear()
    pull(REPO, commit, tmp_path / "empty")
    assert hub.fetched() == [MANIFEST], "what is there and right is not fetched again"
    change_heads(tmp_path / "empty", {}, remove=["sd35"])
    before = content(tmp_path / "empty")
    with pytest.raises(HubError, match="another version of this one"):
        pull(REPO, commit, tmp_path / "empty")
    assert content(tmp_path / "empty") == before and os.listdir(mine) == ["novel.txt"]


def test_two_pulls_into_one_folder_never_meet(hub, commit, tmp_path):
    (tmp_path / ".out.pull").mkdir()
    with FolderLock(tmp_path / ".out.pull" / "lock"), pytest.raises(BusyError):
        pull(REPO, commit, tmp_path / "out")
    assert pull(REPO, commit, tmp_path / "out").count == 15


@pytest.mark.slow
def test_pushing_again_sends_nothing_and_a_new_version_leaves_the_old_one_to_be_pulled(hub, bundle, tmp_path):
    first = push(bundle, REPO)
    repository = hub.repositories[REPO]
    files = dict(repository.commits[-1][1])
    assert f"--revision {first.commit}" in files["README.md"].decode()
    repository.commit({**files, "notes.txt": b"mine"})
    hub.asked.clear()
    again = push(bundle, REPO)
    assert len(repository.commits) == 4 and not [
        path for verb, path, _ in hub.asked if verb == "PUT" or "/commit/" in path
    ]
    pull(REPO, again.commit, tmp_path / "again")

    change_heads(bundle.folder, {}, remove=["sd35"])
    fewer = Bundle(bundle.folder)
    second = push(fewer, REPO)
    there = set(repository.at(second.commit)[1])
    assert there == {
        MANIFEST,
        "README.md",
        ".gitattributes",
        "notes.txt",
        *(file.path for file in fewer.manifest.files),
    }
    assert f"--revision {second.commit}" in repository.commits[-1][1]["README.md"].decode()
    assert pull(REPO, first.commit, tmp_path / "old").id == bundle.id
    assert pull(REPO, second.commit, tmp_path / "new").id == fewer.id


def test_photos_are_not_made_public_by_mistake(hub, bundle, tmp_path, photos, encoder):
    with pytest.raises(HubError, match="15 of 15 photos state no licence"):
        push(bundle, REPO, public=True)
    assert not hub.repositories
    hub.repositories[REPO] = Repository(private=False)
    hub.repositories[REPO].commit({})
    with pytest.raises(HubError, match="is public already"):
        push(bundle, REPO)
    assert len(hub.repositories[REPO].commits) == 1
    names = [path.relative_to(photos).as_posix() for path in photos.rglob("*.jpg")]
    rows = "".join(json.dumps({"file": name, "licence": "CC0-1.0"}) + "\n" for name in names)
    (photos / "captions.jsonl").write_text(rows)
    build(photos, bundle.folder, encoder)
    assert push(Bundle(bundle.folder), REPO, public=True).private is False


def test_who_may_not_write_is_told_so(hub, bundle, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_someoneelse")
    with pytest.raises(HubError, match="HF_TOKEN"):
        push(bundle, REPO)


@pytest.mark.slow
def test_the_commands_push_and_pull(hub, bundle, tmp_path, capsys):
    assert main(["push", str(bundle.folder), REPO]) == 0
    said = capsys.readouterr().out
    commit = hub.repositories[REPO].commits[1][0]
    assert f"realrag pull {REPO} --revision {commit} --out ComfyUI/models/realrag/cars" in said and "private" in said
    # in a process of its own, which finds the hub as its user told it to
    environment = {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(tmp_path / "home")}
    command = ["pull", REPO, "--revision", commit, "--out", tmp_path / "models" / "cars"]
    offline = run_command(*command, **environment, HF_HUB_OFFLINE="1")
    assert offline.returncode == 1
    assert b"HF_HUB_OFFLINE" in offline.stderr
    assert b"realrag verify" in offline.stderr
    done = run_command(*command, **environment)
    assert done.returncode == 0, done.stderr
    assert b"15 photos" in done.stdout
    assert b"every file right" in done.stdout
    assert content(tmp_path / "models" / "cars") == content(bundle.folder)
    assert main(["pull", REPO, "--out", str(tmp_path / "x")]) == 1
    assert capsys.readouterr().err.startswith("realrag: No revision is given")
    (tmp_path / "broken.json").write_text("{")
    assert main(["push", str(bundle.folder), REPO, "--evaluation", str(tmp_path / "broken.json")]) == 1
    assert "not valid JSON" in capsys.readouterr().err


def test_a_photo_that_is_taken_out_of_the_next_version_leaves_its_pack(hub, bundle, photos, encoder):
    push(bundle, REPO)
    (photos / "red" / "0.jpg").write_bytes(photo_bytes((250, 1, 1), 99))
    build(photos, bundle.folder, encoder)
    second = push(Bundle(bundle.folder), REPO)
    assert len([name for name in hub.repositories[REPO].at(second.commit)[1] if name.startswith("pictures-")]) == 1
