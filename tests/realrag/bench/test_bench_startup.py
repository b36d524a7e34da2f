import pytest

from realrag.bench.startup import format_report
from realrag.commands.main import main


def test_without_comfyui_it_says_what_is_missing(monkeypatch, capsys):
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    assert main(["bench", "startup"]) == 1
    assert "COMFYUI_PATH is ''; it must name a ComfyUI folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags, words", [(["--rounds", "0"], "rounds is 0"), (["--other-pack", "."], "is no node pack")]
)
def test_wrong_settings_are_refused_before_anything_starts(tmp_path, monkeypatch, capsys, flags, words):
    (tmp_path / "comfy").mkdir()
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert main(["bench", "startup", *flags]) == 1
    assert words in capsys.readouterr().err


def test_the_report_names_each_pack_its_time_and_what_it_imports():
    pack = {"added_s": 0.25, "added_cpu_s": 0.2, "new_modules": [f"package{number:02}" for number in range(20)]}
    text = format_report(
        {"rounds": 3, "comfyui_cpu_s": 5.0, "packs": {"mine": pack, "other": {**pack, "new_modules": []}}}
    )
    first, mine, other = text.splitlines()
    assert first == "ComfyUI without packs: 5.00 s of CPU time (median)."
    assert mine.startswith("mine adds 0.250 s by the clock, 0.200 s of CPU time (medians of 3).")
    assert mine.endswith("package11 and 8 more.")
    assert other.endswith("beyond ComfyUI's: none.")
