"""Commands that this package adds to `earwitness`."""
