"""The small dual encoder: photos and their phrases, the training, a starting encoder that leaves headroom, its card."""
