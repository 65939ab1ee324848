"""Turns data sets on disk into training manifests: one short module per layout."""
