"""The node that puts credits into saved pictures. Nothing may enter that changes pixels or ComfyUI's own nodes."""
