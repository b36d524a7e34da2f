"""RealRAG for ComfyUI: real photos, retrieved for your prompt, steer SD3 and Flux."""

from .nodes import comfy_entrypoint

__all__ = ["comfy_entrypoint"]
