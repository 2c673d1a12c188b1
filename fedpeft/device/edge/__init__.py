"""A person's own device: their text, when it may train, and an adapter that learns from it. Nothing imports torch."""
