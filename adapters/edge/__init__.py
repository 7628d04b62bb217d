"""Store and forward at a plant: a durable spool, the forwarder to the hub, and what notices that something is missing. Knows no protocol."""
