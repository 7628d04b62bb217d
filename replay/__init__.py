"""Rewinds positions, never the log: rebuild views beside live traffic, compare them with the live ones, and swap. Replay never sends."""
