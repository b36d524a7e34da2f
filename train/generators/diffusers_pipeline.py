"""Text-to-image pipelines of diffusers (SD3, SD3.5, Flux, SDXL ...) as generators: the extra `generate`."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from .errors import DrawingFailed, GeneratorError


class Diffusers:
    """model: a pipeline's folder, or its name on the hub, fetched only with `download` and always at `revision`.

    steps, guidance, size: None leaves the pipeline's default. Noise is drawn on the CPU, so that a seed gives the same
    noise on every machine.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        revision: str | None = None,
        download: bool = False,
        steps: int | None = None,
        guidance: float | None = None,
        size: int | None = None,
        device: str = "cpu",
    ):
        try:
            import torch
            from diffusers import DiffusionPipeline
        except ImportError:
            raise GeneratorError(
                "diffusers is not installed. Install it with `pip install realrag[generate]`."
            ) from None
        local = Path(model).is_dir()
        if not local and not download:
            raise GeneratorError(
                f"{model} is not a folder. Give a pipeline's folder, or set `download = true` to fetch it by name."
            )
        if not local and not revision:
            raise GeneratorError(
                f"Name the revision of {model} (a commit of its hub page), so that the run can be repeated."
            )
        kind = torch.float32 if device == "cpu" else torch.bfloat16
        try:
            self._pipeline = DiffusionPipeline.from_pretrained(
                str(model), revision=revision, local_files_only=local, torch_dtype=kind, use_safetensors=True
            ).to(device)
        except (OSError, ValueError, ImportError) as error:
            raise GeneratorError(f"{model} is not a pipeline that diffusers can load: {str(error)[:600]}") from None
        self._pipeline.set_progress_bar_config(disable=True)
        options: dict[str, Any] = {
            "num_inference_steps": steps,
            "guidance_scale": guidance,
            "width": size,
            "height": size,
        }
        self._options = {name: value for name, value in options.items() if value is not None}
        takes = inspect.signature(self._pipeline.__call__).parameters
        if strange := [name for name in self._options if name not in takes]:
            raise GeneratorError(
                f"{type(self._pipeline).__name__} does not accept {' or '.join(strange)}. Leave them out."
            )
        name = Path(model).name if local else str(model)
        self.metadata = {
            "name": f"diffusers {type(self._pipeline).__name__} {name}", "revision": revision, "dtype": str(kind), **self._options
        }  # fmt: skip

    def draw(self, prompt: str, seed: int):
        import torch

        noise = torch.Generator("cpu").manual_seed(seed)
        result = self._pipeline(prompt=prompt, generator=noise, output_type="pil", **self._options)
        if any(getattr(result, "nsfw_content_detected", None) or ()):
            raise DrawingFailed(f"the pipeline's safety filter blocked {prompt!r}, seed {seed}")
        return result.images[0]
