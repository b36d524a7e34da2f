"""What onnxruntime computes is what the shipped encoder computes, so that their speeds can be compared."""

import json

import pytest
import torch
from tiny_encoders import write_tiny_general, write_tiny_small

from realrag.bench.onnx_twin import image_tower
from realrag.commands.main import main
from realrag.encoders.load import load_encoder

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.mark.parametrize("write", [write_tiny_small, write_tiny_general])
def test_the_twin_gives_the_encoders_vectors(tmp_path, write):
    encoder = load_encoder(str(write(tmp_path / "tiny")))
    size = encoder.preprocess.size
    pixels = torch.randint(0, 256, (5, 3, size, size), dtype=torch.uint8)
    found = torch.from_numpy(image_tower(encoder, 1)(pixels))
    torch.testing.assert_close(found, encoder.encode_images(pixels), atol=1e-4, rtol=1e-4)


def test_both_speeds_are_printed_beside_each_other(tmp_path, capsys):
    folder = str(write_tiny_small(tmp_path / "tiny"))
    assert main(["bench", "embed", "--encoder", folder, "--number", "8", "--side", "48", "--rounds", "1"]) == 0
    assert "encode alone, onnxruntime" in capsys.readouterr().out
    assert (
        main(["bench", "embed", "--encoder", folder, "--number", "8", "--side", "48", "--rounds", "1", "--json"]) == 0
    )
    assert json.loads(capsys.readouterr().out)["photos_per_second"]["onnxruntime"] > 0
