"""What `realrag bench inject` and `realrag bench startup` run inside ComfyUI, as scripts of their own. No node imports it."""
