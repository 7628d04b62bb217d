"""Who may decide: people with their tokens and roles, what a role may do, and that two pairs of eyes are two people."""
