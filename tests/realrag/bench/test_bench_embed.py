"""What `realrag bench embed` times is the real path: photos to written shards, with the batch that fits."""

import json

import pytest
from fake_encoder import ColorEncoder, Cramped

import realrag.indexing.shards
from realrag.commands.main import main


@pytest.mark.parametrize("most, batch", [(1000, 32), (9, 8)])
def test_the_loops_run_over_the_same_photos_with_the_batch_that_fits(monkeypatch, capsys, most, batch):
    monkeypatch.setattr(realrag.indexing.shards, "SHARD", 8)
    encoder, shards = Cramped(most), []
    write = realrag.indexing.shards.write_shard
    monkeypatch.setattr("realrag.encoders.load.load_encoder", lambda name, device: encoder)
    monkeypatch.setattr(
        realrag.indexing.shards, "write_shard", lambda path, *rest: (shards.append(path), write(path, *rest))
    )
    assert main(["bench", "embed", "--number", "20", "--side", "48", "--rounds", "2", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["photos"], result["batch"], result["longest_side"]) == (20, batch, 48)
    assert set(result["photos_per_second"]) == {"synthetic", "end_to_end", "decode_one_thread"}
    assert encoder.seen == 32 + 2 * (20 + 20)  # to warm up, then two of the loops in each round
    assert len(shards) == 2 * 3 and not any(path.exists() for path in shards)


def test_the_report_names_device_batch_and_threads(photos, monkeypatch, capsys):
    monkeypatch.setattr("realrag.encoders.load.load_encoder", lambda name, device: ColorEncoder())
    assert main(["bench", "embed", "--photos", str(photos), "--rounds", "1", "--workers", "3"]) == 0
    said = capsys.readouterr().out
    assert "on cpu" in said and "batch 32, 3 decoding threads, 15 photos of up to 48 px" in said
