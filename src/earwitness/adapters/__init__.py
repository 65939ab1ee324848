"""Third-party captioners behind the same interface: audio-language models and remote endpoints."""
