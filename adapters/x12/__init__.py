"""X12: transaction sets of partners to facts (`mapping`, a module each), our facts to transaction sets (`documents`), and 997 answers (`answers`).

What is read and written, by which keys, and what is refused: docs/x12.md. The parser and the writer are adapters/formats/x12.py and x12_write.py.
"""
