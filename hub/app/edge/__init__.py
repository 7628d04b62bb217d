"""`hub edge`: the process at a plant that spools what its sources say and forwards it to the hub. Needs no PostgreSQL."""
