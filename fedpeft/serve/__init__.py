"""A small HTTP service for personal adapters on one machine: one base, a batch of rows, everybody's own voice.

    request -> token -> whose adapters -> limits -> scheduler -> rows of one batch -> text, as it comes

It speaks OpenAI's dialect: ``model`` is the name of an adapter. HTTP is asynchronous and never computes; one thread
runs the base and never waits for a client. Neither writes anybody's words to a log.
"""
