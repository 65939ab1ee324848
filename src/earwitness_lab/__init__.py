"""The laboratory next door: training scenes, the pocket models, reproducing the papers."""
