"""RealRAG for ComfyUI: real photos, retrieved for your prompt, steer SD3 and Flux."""

from .nodes import comfy_entrypoint

WEB_DIRECTORY = "./web"  # the nodes' help pages, and what happens when photos are dropped on one

__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
