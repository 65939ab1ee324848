"""Commands that the laboratory adds to `earwitness`."""
