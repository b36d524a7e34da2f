"""`realrag-general`: a tail of its photo tower trained on named photos, its text tower on ImageNet's names and WordNet. What the small encoder alone needs stays in small_encoder."""
