"""What `realrag bench inject` runs inside ComfyUI, as a script of its own. No node imports it."""
