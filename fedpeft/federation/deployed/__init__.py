"""A federation out of simulation: the operator's side. Devices' side is ``federation.node``."""
