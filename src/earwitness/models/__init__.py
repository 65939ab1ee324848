"""Models by name, in folders and on the hub: weights, cards, and what ships with the package."""
