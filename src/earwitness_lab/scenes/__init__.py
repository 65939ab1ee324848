"""Training scenes: human captions read by a lexicon, real sounds mixed to match them."""
