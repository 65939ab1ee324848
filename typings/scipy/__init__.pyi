"""The part of scipy that this repository uses; the package itself has no types."""
