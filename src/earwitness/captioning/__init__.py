"""Captioning jobs: sounds from files and shards, windows and gates, results in every format.

This package uses models only through the protocol in `captioner`, and never imports torch.
"""
