"""References inside the prompt: tokens, reference latents, image embeddings. Leaves the model alone."""
