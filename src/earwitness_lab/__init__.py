"""Companion of earwitness: training scenes, the pocket models, reproducing the papers."""
