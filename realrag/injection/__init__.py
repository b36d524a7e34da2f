"""The arithmetic of references inside a model: weights, ranges, masks, shared attention, packs. Knows no ComfyUI and no
retriever."""
