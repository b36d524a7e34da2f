"""Inject References: a clone of the MODEL that sees real photos while it paints."""

from __future__ import annotations

import comfy.model_management as management
from comfy_api.latest import io
from torch import Tensor

from ..realrag.errors import AdapterError
from ..realrag.shared_attention import content_seed
from . import see
from .base_model import Base, base_of
from .branches import InstantXInjection, XLabsInjection
from .instantx_flux import InstantXFluxInjection
from .load_adapter import AdapterSocket, ManagedAdapter
from .patch import Injection, attach
from .retrieve import ReferencesSocket
from .share import SharedInjection


def inject(
    model, images: list[Tensor], adapter: ManagedAdapter | None, clip_vision, vae, **dials
) -> tuple[object, str]:
    """The patched clone and a report in words; the very same MODEL where there is nothing to do."""
    if reason := idle(len(images), **dials):
        return model, f"The model passes through unchanged: {reason}"
    base = base_of(model)
    if adapter is not None:
        injection, report = with_adapter(base, images, adapter, clip_vision, dials)
    elif vae is not None:
        injection, report = without_adapter(model, base, images, vae, dials)
    else:
        raise AdapterError(
            "Inject References has neither an adapter nor a VAE. Connect an adapter (Load Reference Adapter) with its "
            "CLIP Vision model, or connect the VAE of this model to let the references in without an adapter file."
        )
    window = f"{dials['start_percent']:.0%} to {dials['end_percent']:.0%}"
    return attach(model, injection), f"{report}\nBase: {base.name}. Strength {dials['strength']:g}, steps {window}."


def idle(count: int, strength: float, start_percent: float, end_percent: float, controls=None) -> str:
    """Why nothing is to be injected, or "" where something is."""
    if not count:
        return "there are no references."
    if strength == 0:
        return "the strength is 0."
    if start_percent >= end_percent:
        return f"the window from {start_percent:.0%} to {end_percent:.0%} of the steps is empty."
    return ""


def with_adapter(base: Base, images, managed: ManagedAdapter, clip_vision, dials) -> tuple[Injection, str]:
    spec = managed.adapter.spec
    spec.check_base(base.family, base.name, base.width, base.double + base.single * spec.single_blocks)
    features = see.features(spec, clip_vision, images, managed.head)
    if spec.family == "flux-xlabs":
        management.load_models_gpu([managed.patcher])
        baked = XLabsInjection.bake(base, managed.adapter, see.on_device(features))
        injection = XLabsInjection(base, baked, len(images), **dials)
    elif spec.family == "flux-instantx":
        management.load_models_gpu([managed.patcher])
        baked = InstantXFluxInjection.bake(base, managed.adapter, see.on_device(features), managed.legacy)
        injection = InstantXFluxInjection(base, baked, len(images), **dials)
    else:
        injection = InstantXInjection(base, managed, features, **dials)
    return injection, f"Adapter: {spec.label}. {counted(images)}, {len(images) * spec.tokens} tokens."


def counted(images: list[Tensor]) -> str:
    return f"{len(images)} reference{'s' * (len(images) > 1)}"


def without_adapter(model, base: Base, images, vae, dials) -> tuple[Injection, str]:
    if base.inputs != base.channels:
        raise AdapterError(
            "This model expects more than a plain latent (inpainting, depth or edges), which references without an "
            "adapter cannot give it. Use the plain model, or an adapter."
        )
    latents = see.latents(model, base, vae, images)
    injection = SharedInjection(base, latents, [content_seed(image) for image in images], **dials)
    return injection, (
        "No adapter is connected: shared attention to the noised references (experimental). "
        f"{counted(images)}, {see.token_count(base, latents)} tokens; each step runs the model once more for each."
    )


class InjectReferences(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        percent = dict(min=0.0, max=1.0, step=0.01)
        return io.Schema(
            node_id="RealRAG_InjectReferences",
            display_name="Inject References",
            category="RealRAG",
            description="Lets Flux, SD3 and SD3.5 see real photos while they paint. With a reference adapter and its "
            "CLIP Vision model, or with the model's VAE alone (experimental, slower). The model you connect stays "
            "untouched.",
            inputs=[
                io.Model.Input(
                    "model", tooltip="The Flux, SD3 or SD3.5 model to steer. LoRAs may come before or after."
                ),
                ReferencesSocket.Input(
                    "references", optional=True, tooltip="Photos from Retrieve Real References. None found: no effect."
                ),
                io.Image.Input(
                    "image", optional=True, tooltip="More reference pictures of your own; a batch counts as several."
                ),
                AdapterSocket.Input(
                    "adapter", optional=True, tooltip="From Load Reference Adapter. It must be made for this model."
                ),
                io.ClipVision.Input(
                    "clip_vision",
                    optional=True,
                    tooltip="Needed with an adapter: CLIP ViT-L/14 for Flux XLabs, SigLIP so400m-384 for both "
                    "InstantX.",
                ),
                io.Vae.Input("vae", optional=True, tooltip="Needed without an adapter: the VAE of this model."),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=2.0,
                    step=0.05,
                    tooltip="0 leaves the model exactly as it is. Try 0.6 to 0.9 with Flux XLabs, 0.5 with SD3.5 "
                    "InstantX, 1.0 without an adapter. Less, if the picture copies the photos or looks burnt.",
                ),
                io.Float.Input(
                    "start_percent", default=0.0, **percent, tooltip="When in the sampling the references come in."
                ),
                io.Float.Input(
                    "end_percent",
                    default=1.0,
                    **percent,
                    tooltip="When they leave again: 0.8 gives the prompt the last word.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The steered model, for a sampler."),
                io.String.Output(display_name="report", tooltip="Which way the references went in, and why."),
            ],
        )

    @classmethod
    def execute(
        cls, model, strength: float, start_percent: float, end_percent: float,
        references=None, image: Tensor | None = None, adapter: ManagedAdapter | None = None, clip_vision=None, vae=None,
    ) -> io.NodeOutput:  # fmt: skip
        dials = dict(strength=strength, start_percent=start_percent, end_percent=end_percent)
        model, report = inject(model, see.pictures(references, image), adapter, clip_vision, vae, **dials)
        note = getattr(references, "note", "")
        return io.NodeOutput(model, f"{report}\n{note}" if note else report)
