"""A captioning system in torch: encoder, prefix, language model and guide; its folder on disk."""
