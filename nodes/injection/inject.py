"""Inject References: a clone of the MODEL that sees real photos while it paints."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from comfy_api.latest import io
from torch import Tensor

from ...realrag.errors import AdapterError
from ...realrag.injection.reference_pack import ReferencePack
from ...realrag.injection.shared_attention import content_seed
from ..compat import folded, supported_keywords
from ..input_check import checked
from ..sockets import AdapterSocket, PackSocket, ReferencesSocket, SettingsSocket
from . import bake_pack
from .choose_path import choose
from .initial_latents import first_latent
from .inputs import advanced_inputs, encode_references
from .inputs.advanced_inputs import AdvancedInputs, describe
from .inputs.base_model import BaseModel, base_of
from .inputs.controls import Controls, Strength, counted
from .inputs.path_names import ADAPTER, AUTO, INITIAL
from .load_adapter import ManagedAdapter
from .model.patch import Injection, attach
from .model.shared_attention import SharedInjection
from .prompt.reference_latents import kind
from .prompt.through_prompt import goes_through_prompt, through_prompt


@dataclass(frozen=True, eq=False)
class Connected:
    """What is connected to Inject References beside the model and the pictures; None where nothing is."""

    adapter: ManagedAdapter | None = None
    clip_vision: object | None = None
    vae: object | None = None
    conditioning: list | None = None
    latent: dict | None = None
    negative: list | None = None
    pack: ReferencePack | None = None

    @property
    def family(self) -> str:
        """The family of adapters whose presets hold."""
        if self.pack is not None:
            return self.pack.metadata.family
        return self.adapter.adapter.spec.family if self.adapter is not None else "shared"


class Injected(NamedTuple):
    """What Inject References gives. Where there is nothing to do, its parts are the very ones that came in."""

    model: object  # with references, a patched clone
    report: str
    conditioning: list | None
    latent: dict | None
    negative: list | None


def inject(
    model, images: list[Tensor], connected: Connected, controls: Controls, path: str = AUTO, downsampling: int = 3
) -> Injected:
    """The model that looks at these pictures (H, W, 3) or at the connected pack, by the path that was chosen."""
    conditioning, latent, negative = connected.conditioning, connected.latent, connected.negative
    pack, strength = connected.pack, controls.strength
    if reason := idle(len(images) if pack is None else len(pack), controls):
        return Injected(model, f"The model passes through unchanged: {reason}", conditioning, latent, negative)
    way, why = choose(path, model, connected) if pack is None else ("reference pack", "one is connected")
    path_taken = f"Path: {way}, because {why}."
    if way == INITIAL:
        latent, report = first_latent(connected.vae, images, controls, latent)
        return Injected(model, f"{path_taken}\n{report}", conditioning, latent, negative)
    if goes_through_prompt(way, connected.adapter):
        conditioning, negative, report = through_prompt(way, model, images, connected, controls, downsampling)
        name = kind(model)
    else:
        base = base_of(model)
        if pack is not None:
            injection, report = bake_pack.from_pack(base, controls, pack, connected.adapter)
        elif way == ADAPTER:
            injection, report = with_adapter(base, controls, images, connected)
        else:
            injection, report = without_adapter(model, base, controls, images, connected.vae)
        model, name = attach(model, injection), base.name
    report += f"\nBase: {name}. Strength {strength.weight:g}, steps {strength.start:.0%} to {strength.end:.0%}."
    return Injected(model, f"{path_taken}\n{report}", conditioning, latent, negative)


def idle(count: int, controls: Controls) -> str:
    """Why there is nothing to inject, or "" where there is something."""
    strength = controls.strength
    if not count:
        return "there are no references."
    if strength.weight == 0:
        return "the strength is 0."
    if all(controls.of(i).weight == 0 for i in range(count)):
        return "every reference has the weight 0."
    if strength.start >= strength.end:
        return f"the window from {strength.start:.0%} to {strength.end:.0%} of the steps is empty."
    return ""


def with_adapter(
    base: BaseModel, controls: Controls, images: list[Tensor], connected: Connected
) -> tuple[Injection, str]:
    managed = connected.adapter
    spec = managed.adapter.spec
    spec.check_base(base.family, base.name, base.width, base.double + base.single * spec.single_blocks)
    features = encode_references.features(spec, connected.clip_vision, images, managed.head)
    tensors = bake_pack.bake(base, managed, features)
    injection = bake_pack.injected(base, controls, spec.family, tensors, len(images), managed)
    report = f"Adapter: {spec.label}. {counted(len(images))}, {len(images) * spec.tokens} tokens."
    if (spec.family, spec.tokens) == ("flux-xlabs", 4):
        report += " Warning: XLabs v1 was made for true CFG: set cfg to about 4 in the sampler, with a negative prompt."
    return injection, report


def without_adapter(model, base: BaseModel, controls: Controls, images: list[Tensor], vae) -> tuple[Injection, str]:
    if base.inputs != base.channels:
        raise AdapterError(
            "This model expects more than a plain latent (inpainting, depth or edges), which references without an "
            "adapter cannot give it. Use the plain model, or an adapter."
        )
    latents = encode_references.latents(model, base, vae, images)
    injection = SharedInjection(base, controls, latents, [content_seed(image) for image in images])
    tokens = encode_references.token_count(base, latents)
    return injection, (
        "Shared attention to the noised references (experimental). "
        f"{counted(len(images))}, {tokens} tokens; each step runs the model once more for each."
    )


def or_missing(part, sentence: str):
    """The part. Where an input is empty, a blocker in its place stops what hangs on the output, and says why."""
    from comfy_execution.graph_utils import ExecutionBlocker

    return part if part is not None else ExecutionBlocker(f"Inject References: {sentence}")


class InjectReferences(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        percent = dict(min=0.0, max=1.0, step=0.01)
        return io.Schema(
            node_id="RealRAG_InjectReferences",
            display_name="Inject References",
            category="RealRAG",
            description="Lets a model see real photos while it paints. Flux, SD3 and SD3.5: with a reference adapter and "
            "its CLIP Vision model, or with the model's VAE alone (experimental, slower). SDXL, SD2.1 unCLIP, FLUX.2, "
            "OmniGen2, Qwen-Image-Edit: through the positive prompt. The model you connect stays untouched.",
            inputs=[
                io.Model.Input(
                    "model", tooltip="The model to steer, such as Flux or SD3.5. LoRAs may come before or after."
                ),
                ReferencesSocket.Input(
                    "references", optional=True, tooltip="Photos from Retrieve Real References. None found: no effect."
                ),
                # The page hands on a bypassed node's inputs by slot: these stand at the slots of their outputs.
                io.Conditioning.Input(
                    "conditioning",
                    optional=True,
                    tooltip="The positive prompt. Needed where references go in through it: Flux Redux, reference "
                    "latents, SDXL and SD2.1.",
                ),
                io.Latent.Input(
                    "latent",
                    optional=True,
                    tooltip="Only for initial latents: an empty latent of the picture's size. Taken by auto where the "
                    "model's own code lets no references in.",
                ),
                io.Conditioning.Input(
                    "negative",
                    optional=True,
                    tooltip="The negative prompt. Needed where references go in through the prompt and some of them are "
                    "negative, or apply_to is both.",
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
                    "InstantX, clip_vision of Load Reflective Retriever for adapters trained on its encoder.",
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
                *folded(*advanced_inputs.path_inputs()),
                advanced_inputs.preset_input(),
                *folded(*advanced_inputs.mixing_inputs()),
                PackSocket.Input(
                    "pack",
                    optional=True,
                    tooltip="From Load Reference Pack, in the place of references: no photos, no CLIP Vision and, for "
                    "Flux, no adapter are needed.",
                ),
                SettingsSocket.Input(
                    "settings",
                    optional=True,
                    tooltip="From Inject Settings. When it is connected, its values replace those of the advanced inputs.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The steered model, for a sampler."),
                io.String.Output(display_name="report", tooltip="Which way the references went in, and why."),
                io.Conditioning.Output(
                    display_name="conditioning", tooltip="The positive prompt with the references, for a sampler."
                ),
                io.Latent.Output(
                    display_name="latent",
                    tooltip="With initial latents the first photo, for a sampler with a denoise of 0.6 to 0.85; "
                    "otherwise as it came in.",
                ),
                io.Conditioning.Output(
                    display_name="negative",
                    tooltip="The negative prompt with the negative references, for a sampler; otherwise as it came in.",
                ),
            ],
            **supported_keywords(
                io.Schema,
                search_aliases=[
                    "ipadapter",
                    "ip-adapter",
                    "apply ipadapter",
                    "reference",
                    "image prompt",
                    "style transfer",
                    "redux",
                    "rag",
                ],
            ),
        )

    @classmethod
    @checked
    def execute(
        cls, model, strength: float, start_percent: float, end_percent: float,
        references=None, image: Tensor | None = None, adapter: ManagedAdapter | None = None, clip_vision=None, vae=None,
        conditioning: list | None = None, pack: ReferencePack | None = None, latent: dict | None = None,
        negative: list | None = None, settings: AdvancedInputs | None = None, **advanced,
    ) -> io.NodeOutput:  # fmt: skip
        if pack is not None and (references is not None or image is not None):
            raise AdapterError("Connect either a reference pack or references and pictures, not both.")
        connected = Connected(adapter, clip_vision, vae, conditioning, latent, negative, pack)
        pictures = encode_references.pictures(references, image)
        values = AdvancedInputs(**advanced)
        if settings is not None:
            values = replace(settings, preset=values.preset)
        controls = values.controls(
            Strength(strength, start_percent, end_percent), connected.family,
            references if pack is None else pack, len(pictures) if pack is None else len(pack),
        )  # fmt: skip
        made = inject(model, pictures, connected, controls, values.path, values.downsampling)
        lines = [made.report, *describe(controls), getattr(references, "note", "")]
        return io.NodeOutput(
            made.model,
            "\n".join(filter(None, lines)),
            or_missing(made.conditioning, "connect the positive prompt to conditioning as well."),
            or_missing(made.latent, "connect an empty latent to latent as well."),
            or_missing(made.negative, "connect the negative prompt to negative as well."),
        )
