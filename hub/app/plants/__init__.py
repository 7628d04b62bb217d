"""The hub's side of its edges: the plants' certificate authority and the listener that takes their batches."""
