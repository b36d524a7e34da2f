import json
import subprocess
import sys

import pytest
import torch
from bundle_content import rewrite
from made_photos import photo_bytes
from PIL import Image

from realrag.bundle.bundle import CHECKSUM, read_manifest
from realrag.commands.main import main
from realrag.encoders.reflective_head import ReflectiveHead, save_head
from realrag.locks import FolderLock


@pytest.fixture
def bundle(photos, tmp_path, tiny_clip):
    """A bundle made by the command, with a tiny random open_clip model that travels inside it."""
    arguments = ["--out", str(tmp_path / "b"), "--encoder", str(tiny_clip), "--licence", "CC0-1.0", "--author", "Ann"]
    assert main(["index", str(photos), *arguments]) == 0
    return tmp_path / "b"


@pytest.mark.slow
def test_index_says_what_it_did(photos, tmp_path, bundle, capsys, tiny_clip):
    (photos / "broken.jpg").write_bytes(b"x")
    assert main(["index", str(photos), "--out", str(bundle), "--encoder", str(tiny_clip)]) == 0
    out = capsys.readouterr().out
    assert "left out (not_a_photo): broken.jpg" in out
    assert "16 photos found: 15 usable, 1 left out; nothing new." in out


@pytest.mark.slow
def test_index_as_json_is_json_and_nothing_else(photos, bundle, capsys, tiny_clip):
    assert main(["index", str(photos), "--out", str(bundle), "--encoder", str(tiny_clip), "--json"]) == 0
    metadata = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert metadata["found"] == metadata["indexed"] == metadata["total"] == 15 and metadata["encoded"] == 0


def test_search_finds_itself_by_picture_and_prints_the_agreed_fields(photos, bundle, capsys):
    capsys.readouterr()
    assert main(["search", str(bundle), "", "--image", str(photos / "red" / "0.jpg"), "-k", "2", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [set(row) for row in rows] == 2 * [
        {"id", "score", "caption", "class", "licence", "author", "source", "file", "found", "object", "doubtful"}
    ]
    assert rows[0]["file"] == "red/0.jpg" and rows[0]["score"] > 0.99 and rows[0]["licence"] == "CC0-1.0"


@pytest.mark.slow
def test_search_by_text_filters_and_words(bundle, capsys):
    capsys.readouterr()
    assert main(["search", str(bundle), "a blue thing", "--class", "blue", "-k", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and all("blue" in line and "by Ann" in line for line in lines)
    assert main(["search", str(bundle), "x", "--class", "nothing", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


@pytest.mark.slow
def test_search_pins_bans_and_pages(bundle, capsys):
    def found(*options: str) -> list[str]:
        assert main(["search", str(bundle), "a blue thing", "-k", "2", "--min-score", "-1", "--json", *options]) == 0
        return [item["id"] for item in json.loads(capsys.readouterr().out)]

    first, second = found(), found("--page", "2")
    assert not set(first) & set(second)
    assert found("--pin", second[1]) == [second[1], first[0]]
    assert first[0] not in found("--ban", first[0]) == found("--without", first[0])
    assert found("--pin", second[1], "--ban", second[1]) == first
    assert main(["search", str(bundle), "a blue thing", "--pin", "0" * 16]) == 0
    assert "not in this library" in capsys.readouterr().out
    assert main(["search", str(bundle), "a blue thing", "--page", "0"]) == 1
    assert "page is 0" in capsys.readouterr().err


@pytest.mark.slow
def test_add_and_remove(photos, bundle, tmp_path, capsys, tiny_clip):
    more = tmp_path / "more"
    more.mkdir()
    (more / "white.jpg").write_bytes(photo_bytes((250, 250, 250)))
    common = ["--out", str(bundle), "--encoder", str(tiny_clip), "--json"]
    assert main(["index", str(more), "--add", *common]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["total"] == 16
    assert main(["index", str(more), "--remove", *common]) == 0
    assert json.loads(capsys.readouterr().out)["total"] == 15


@pytest.mark.slow
def test_show_and_verify(bundle, capsys):
    capsys.readouterr()
    assert main(["show", str(bundle), "--json"]) == 0
    metadata = json.loads(capsys.readouterr().out)
    assert (metadata["photos"], metadata["carries_encoder"], metadata["licences"]) == (15, True, {"CC0-1.0": 15})
    assert main(["show", str(bundle)]) == 0 and main(["verify", str(bundle)]) == 0
    said = capsys.readouterr().out
    assert (
        "right. 15 photos" in said and said.count("with a checksum of its own") == 2 and metadata["manifest_checksum"]
    )


def test_a_manifest_of_an_older_version_is_said_to_have_no_checksum(bundle, capsys):
    rewrite(bundle, lambda m: {key: m[key] for key in m if key not in (CHECKSUM, "levels", "names", "picture_bound")})
    capsys.readouterr()
    assert main(["show", str(bundle)]) == 0 and main(["verify", str(bundle)]) == 0
    said = capsys.readouterr().out
    assert said.count("without a checksum, as older versions wrote it") == 2
    assert "right. 15 photos" in said and "A flipped bit in it would not be noticed" in said
    assert main(["show", str(bundle), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["manifest_checksum"] is False


@pytest.fixture
def heads(bundle, tmp_path):
    """Files of two heads for that bundle."""
    dim, files = read_manifest(bundle).dim, {}
    for seed, name in enumerate(("flux", "sd35")):
        torch.manual_seed(seed)
        head = ReflectiveHead(dim, 8, {"generator": name})
        torch.nn.init.normal_(head.fc2.weight)
        files[name] = tmp_path / f"{name}.safetensors"
        save_head(head, files[name])
    return files


@pytest.mark.slow
def test_heads_are_listed_added_removed_and_asked(bundle, heads, capsys):
    capsys.readouterr()
    add = ["--add", str(heads["flux"]), "--add", f"mine={heads['sd35']}"]
    assert main(["heads", str(bundle)]) == 0 and "no heads over 15 photos" in capsys.readouterr().out
    assert main(["heads", str(bundle), *add]) == 0
    out = capsys.readouterr().out
    assert "flux: trained for flux, the default\nmine: trained for sd35\n" in out and "2 heads over 15 photos" in out
    assert main(["show", str(bundle), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["heads"] == {
        "flux": {"generator": "flux"},
        "mine": {"generator": "sd35"},
    }
    said = {}
    for name in ("auto", "flux", "mine", "none"):
        assert main(["search", str(bundle), "red", "--head", name]) == 0
        said[name] = capsys.readouterr().out
    assert said["auto"] == said["flux"] and "Ranked through the head 'mine'." in said["mine"]
    assert len(set(said.values())) == 3 and "Ranked by the plain encoder" in said["none"]
    assert main(["search", str(bundle), "red", "--head", "sd3"]) == 1
    assert "no head 'sd3': its heads are flux, mine" in capsys.readouterr().err
    assert main(["heads", str(bundle), "--remove", "flux", "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)["heads"]) == ["mine"]
    assert main(["verify", str(bundle)]) == 0


@pytest.mark.slow
def test_index_takes_one_head_or_several_by_name(photos, bundle, heads, capsys, tiny_clip):
    index = ["index", str(photos), "--out", str(bundle), "--encoder", str(tiny_clip)]
    assert main([*index, "--head", str(heads["flux"])]) == 0
    assert [head.name for head in read_manifest(bundle).heads] == ["flux"]
    assert main([*index, "--head", f"other={heads['sd35']}"]) == 0
    assert [head.name for head in read_manifest(bundle).heads] == ["flux", "other"]
    capsys.readouterr()
    assert main([*index, "--head", str(heads["flux"])]) == 1
    assert "has the heads flux, other" in capsys.readouterr().err
    assert main(index) == 0
    assert [head.name for head in read_manifest(bundle).heads] == ["flux", "other"]


def test_a_damaged_bundle_fails_with_a_sentence(bundle, capsys):
    path = next(bundle.glob("records-*"))
    path.write_bytes(path.read_bytes()[:-3])
    for command in (["verify", str(bundle)], ["search", str(bundle), "red"], ["show", str(bundle)]):
        assert main(command) == 1
        error = capsys.readouterr().err
        assert error.startswith("realrag: ") and "Traceback" not in error and path.name in error


def test_an_unlisted_file_beside_the_encoder_is_refused(bundle, capsys):
    """open_clip reads that folder as a whole, so a pickle slipped into it must not lie there."""
    (bundle / "encoder" / "open_clip_pytorch_model.bin").write_bytes(b"x")
    assert main(["search", str(bundle), "red"]) == 1
    assert "open_clip_pytorch_model.bin" in capsys.readouterr().err


@pytest.mark.slow
def test_exit_codes(photos, tmp_path, capsys, tiny_clip):
    common = ["--out", str(tmp_path / "b"), "--encoder", str(tiny_clip)]
    assert main(["index", str(tmp_path / "nowhere"), *common]) == 1
    assert "nowhere" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        main(["index"])
    assert stop.value.code == 2
    for number in range(3):
        (photos / f"{number}.jpg").write_bytes(b"x")
    assert main(["index", str(photos), *common]) == 3
    assert main(["index", str(photos), *common, "--max-rejected", "50"]) == 0
    assert main(["search", str(tmp_path / "b"), "x", "--image", str(tmp_path / "no.jpg")]) == 1
    with FolderLock(tmp_path / "b" / ".building" / "lock"):
        assert main(["index", str(photos), *common]) == 4


def test_a_full_disk_is_a_sentence_too(photos, tmp_path, monkeypatch, capsys, tiny_clip):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("realrag.indexing.build.encode_all", full)
    assert main(["index", str(photos), "--out", str(tmp_path / "b"), "--encoder", str(tiny_clip)]) == 1
    assert "realrag: No space left on device. Check" in capsys.readouterr().err


def test_ctrl_c_is_not_a_traceback(photos, tmp_path, monkeypatch, capsys, tiny_clip):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("realrag.indexing.build.encode_all", stop)
    assert main(["index", str(photos), "--out", str(tmp_path / "b"), "--encoder", str(tiny_clip)]) == 130
    assert "go on where it was" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["", "index", "search", "show", "verify", "demo", "bench search", "bench embed"])
def test_every_command_explains_itself_with_an_example(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*command.split(), "--help"])
    assert stop.value.code == 0
    assert command == "" or "example:" in capsys.readouterr().out


def test_help_and_errors_come_without_loading_torch():
    """`realrag --help` answers at once: nothing heavy is imported for it."""
    code = "import sys, realrag.commands.main\ntry: realrag.commands.main.main(['--help'])\nexcept SystemExit: pass\nprint('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "False"


@pytest.mark.slow
def test_a_large_picture_may_ask(bundle, tmp_path, capsys):
    Image.new("RGB", (3000, 2000), (250, 10, 10)).save(tmp_path / "big.png")
    assert main(["search", str(bundle), "--image", str(tmp_path / "big.png"), "-k", "1"]) == 0


@pytest.mark.slow
def test_a_new_library_takes_the_general_encoder_and_an_existing_one_keeps_its_own(photos, tmp_path, capsys):
    old, new = tmp_path / "old", tmp_path / "new"
    assert main(["index", str(photos), "--out", str(old), "--encoder", "realrag-small"]) == 0
    for folder, name in ((old, "realrag-small"), (new, "realrag-general")):
        assert main(["index", str(photos), "--out", str(folder)]) == 0
        assert read_manifest(folder).encoder["name"] == name and not read_manifest(folder).of("encoder")
        assert f"By look, {name} finds" in capsys.readouterr().out
    assert main(["search", str(new), "a red apple", "--find-by", "look", "--json"]) == 0
