"""Process managers: what facts of several systems, taken together, ask for. One file each; `process.py` is what they share."""
