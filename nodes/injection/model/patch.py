"""How references get into a running model: nothing of it is replaced, and nothing stays on it.

`attach` puts wrappers on a clone of the MODEL that carry immutable injections: one around a sampling, which learns who
guides it, one around each step's prompts, which learns what each prompt is, and one around each model call. That one
works out what holds for the whole call, then lays blocks around the model's blocks (and around whatever other plug-ins
laid there) in a copy of the call's options. So the order of nodes does not matter, and clones and deep copies carry
everything along. Nothing of ours is in the tables of patches that others go through.
"""

from __future__ import annotations

from comfy.patcher_extension import CallbacksMP, WrappersMP

from .blocks import with_blocks
from .injection import Injection, ModelCall
from .rows import KEY, Sampling, rows_of, step_of
from .watchdog import judge_call, judge_pieces, judge_windows

COMPILED = "torch.compile"  # the key of core's wrapper


class References:
    """The injections of one MODEL, and the wrappers through which they act."""

    def __init__(self, injections: tuple[Injection, ...]):
        self.injections = injections

    def __deepcopy__(self, memo):
        return self

    def around_sampling(self, executor, *args, **kwargs):
        """Wrapper of OUTER_SAMPLE: (noise, latent, sampler, sigmas, mask, callback, disable_pbar, seed, ...)."""
        noise, seed = args[0], kwargs.get("seed", args[7] if len(args) > 7 else None)
        numbered = any(injection.numbered for injection in self.injections)
        options = executor.class_obj.model_options.setdefault("transformer_options", {})
        options[KEY] = Sampling(executor.class_obj, noise, seed, numbered)
        judge_pieces(self.injections, tuple(noise.shape))
        try:
            return executor(*args, **kwargs)
        finally:
            options.pop(KEY, None)
            for injection in self.injections:
                injection.end_sampling()

    def around_prompts(self, executor, model, conds, x_in, timestep, model_options):
        """Wrapper of CALC_COND_BATCH: what each prompt of this step is goes along to the model calls."""
        options = model_options.get("transformer_options", {})
        options = {**options, KEY: step_of(conds, x_in, options)}
        return executor(model, conds, x_in, timestep, {**model_options, "transformer_options": options})

    def around_call(
        self, executor, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options=None, **kwargs
    ):
        """Wrapper of APPLY_MODEL. Where no injection acts, the blocks only hand on."""
        options = transformer_options if transformer_options is not None else {}
        model, base = executor.class_obj, self.injections[0].base
        sigma, sampling = float(t.flatten()[0]), model.model_sampling
        judge_windows(self.injections, options, sampling)
        call = ModelCall(
            base=base, net=model.diffusion_model, run=executor.original, x=x, t=t, sigma=sigma, context=c_crossattn,
            kwargs=kwargs, options=options, parts=rows_of(options, x, c_crossattn),
            n_image=base.image_tokens(x.shape), sampling=sampling,
        )  # fmt: skip
        asked = [injection for injection in self.injections if injection.in_window(sigma, sampling)]
        actives = [active for injection in asked if (active := injection.start(call)) is not None]
        options = with_blocks(options, call, actives)
        output = executor(x, t, c_concat, c_crossattn, control, options, **kwargs, **marker(options, call.net))
        if actives or call.obstacle:
            judge_call(asked, call)
        return output

    def unload(self, patcher, unpatch_all: bool) -> None:
        """Callback of ON_DETACH. A clone that takes the model over does not unload it."""
        if unpatch_all:
            for injection in self.injections:
                injection.unload()


def marker(options: dict, net) -> dict:
    """A keyword by which a compiled network tells calls with our blocks from calls without.

    Core compiles with no guard on a call's options, so without it one kind of call would be taken for the other.
    """
    return {KEY: True} if COMPILED in options.get("wrappers", {}).get(WrappersMP.APPLY_MODEL, {}) else {}


def attach(model, injection: Injection):
    """A clone of the MODEL with this injection added to those it already has."""
    references = References((*injections_of(model), injection))
    patched = model.clone()
    for kind, wrapper in (
        (WrappersMP.OUTER_SAMPLE, references.around_sampling),
        (WrappersMP.CALC_COND_BATCH, references.around_prompts),
        (WrappersMP.APPLY_MODEL, references.around_call),
    ):
        patched.remove_wrappers_with_key(kind, KEY)
        patched.add_wrapper_with_key(kind, KEY, wrapper)
    patched.remove_callbacks_with_key(CallbacksMP.ON_DETACH, KEY)
    patched.add_callback_with_key(CallbacksMP.ON_DETACH, KEY, references.unload)
    patched.set_additional_models(KEY, [found for one in references.injections for found in one.models()])
    return patched


def injections_of(model) -> tuple[Injection, ...]:
    """The injections that a MODEL carries."""
    found = model.get_wrappers(WrappersMP.APPLY_MODEL, KEY)
    return found[0].__self__.injections if found else ()
