"""Ed25519 signatures over canonical encodings, and secret keys in files that only their owner can read."""
