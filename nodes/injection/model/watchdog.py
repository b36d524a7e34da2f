"""The first-step watchdog: where references have no effect, one warning names the likely cause and the cure."""

from __future__ import annotations

import logging
from weakref import WeakKeyDictionary, WeakSet

log = logging.getLogger(__name__)
_at_work: WeakSet = WeakSet()  # injections judged in the first call in which they acted
_in_time: WeakSet = WeakSet()  # injections whose window was compared with a sampling's steps
_pieces: WeakKeyDictionary = WeakKeyDictionary()  # injection -> the node that samples it, and the latent's shape

INSTEAD = (
    "References that go in with the prompt or the picture still work there: Flux Redux, reference latents, or the "
    "photo as the first latent with a denoise of 0.6 to 0.85."
)


def judge_windows(asked: tuple, options: dict, sampling) -> None:
    """Warn once about an injection whose window holds none of this sampling's steps.

    A sampling that ends with noise left over is the first of several: the window may lie in a later one.
    """
    new = [injection for injection in asked if injection not in _in_time]
    sigmas = options.get("sample_sigmas")
    if not new or sigmas is None:
        return
    *steps, end = sigmas.tolist()  # the last one is where the sampling ends, not a model call
    if end > 0:
        new = [injection for injection in new if any(injection.acts(sigma, sampling) for sigma in steps)]
    _in_time.update(new)
    for injection in new:
        if steps and not any(injection.acts(sigma, sampling) for sigma in steps):
            log.warning(
                "The references have no effect: none of this sampling's %d steps lies in their window, %.0f%% to "
                "%.0f%% or narrower for single ones. Likely causes are few steps, or a denoise below 1, which skips the "
                "beginning. Widen the window in Inject References or Edit References.",
                len(steps), 100 * injection.strength.start, 100 * injection.strength.end,
            )  # fmt: skip


def judge_pieces(asked: tuple, shape: tuple[int, ...]) -> None:
    """Warn once about masks where one node samples latents of one size again and again: a tiled upscaler, most likely.

    It shows the model one piece after the other and does not say which, so a mask is laid on each piece anew.
    """
    from comfy_execution.utils import get_executing_context

    context = get_executing_context()
    for injection in asked if context is not None else ():
        if not injection.masked:
            continue
        now = (tuple(context), shape)
        if _pieces.get(injection) == now:
            log.warning(
                "A node samples several latents of %d x %d pixels with masked references. If it paints a picture in "
                "tiles, each mask is laid on every tile anew, not on the whole picture. Give that node a model whose "
                "references have no masks: a second Inject References, or none.",
                8 * shape[-1], 8 * shape[-2],
            )  # fmt: skip
            now = None
        if _pieces.get(injection, ()) is not None:
            _pieces[injection] = now


def judge_call(asked: list, call) -> None:
    """After the first call in which injections were at work: warn once, if the model's attention never came by."""
    if not call.reached and not any(injection in _at_work for injection in asked):
        log.warning("The references had no effect: %s %s", cause(call), INSTEAD)
    _at_work.update(asked)


def cause(call) -> str:
    """What most likely kept the references out of this model call, and what to do about it."""
    if (foreign := foreign_module(call.net)) is not None:
        return f"this model runs code of its own ({foreign}), which has no hooks. Load it with ComfyUI's own loader."
    if call.obstacle:
        parts = sorted({name for part in call.net.modules() if (name := foreign_module(part)) is not None})
        who = f" ({', '.join(parts[:3])})" if parts else ""
        return f"another node exchanged the model's blocks{who}: {call.obstacle}. Bypass that node."
    for name in ("forward", "_forward", "forward_orig"):
        if (foreign := foreign_module(getattr(call.net, name, None))) is not None:
            return f"another node, such as a cache, runs the model with its own code ({foreign}). Bypass that node."
    if replaced := sorted({name for hook in call.replacements if (name := foreign_module(hook)) is not None}):
        return f"another node replaces the model's blocks ({', '.join(replaced)}). Bypass that node."
    if not call.entered:
        return (
            "the model's blocks were never asked for their replacements. A cache or a compiler that skips or replays "
            "the model (TeaCache, WaveSpeed, TorchCompile) is the likely cause. Bypass it."
        )
    if foreign := sorted({name for part in call.net.modules() if (name := foreign_module(part)) is not None}):
        return f"parts of this model were exchanged ({', '.join(foreign[:3])}). Bypass the node that did it."
    return (
        "its blocks ran, but their attention never came by. A node that exchanges the attention kernel (a patched "
        "SageAttention, Nunchaku) is the likely cause. Bypass it, or start ComfyUI with its usual attention."
    )


def foreign_module(part) -> str | None:
    """The module of code that is neither ComfyUI's, nor torch's, nor ours."""
    if part is None:
        return None
    module = getattr(part, "__module__", None) if hasattr(part, "__code__") else type(part).__module__
    module = module or ""
    ours = __name__.rpartition(".nodes.")[0]
    known = ("comfy", "torch", "builtins", "functools")
    if module.split(".")[0] in known or (ours and module.startswith(ours)):
        return None
    return module
