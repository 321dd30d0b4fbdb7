"""Azure Event Grid. Being written: no URL scheme is registered yet."""
