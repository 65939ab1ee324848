"""Data sets as people have them on disk become manifests to train on: one short module a layout."""
