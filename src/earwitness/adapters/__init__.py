"""Captioners that are not ours behind the same seam: audio-language models and remote endpoints."""
