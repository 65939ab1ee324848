"""LAMB (arXiv 2601.04658), part by part: adapter, aligner, guide, and its baselines."""
