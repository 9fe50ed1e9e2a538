"""DNS as a port: what the engine asks, and answers that know whether they are authentic."""
