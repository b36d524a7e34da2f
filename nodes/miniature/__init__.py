"""Load Miniature: the small SD3 and Flux that come along, as ComfyUI models."""
