"""One file per step from an old schema version to the next; `events` imports them all."""
