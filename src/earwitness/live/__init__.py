"""Listening: captions and events of a sound that does not end, while it arrives."""
