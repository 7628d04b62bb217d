"""From a delivery to facts: keep raw, recognise, map, append, acknowledge; what cannot be mapped is quarantined."""
