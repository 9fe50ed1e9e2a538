"""The operator's limits: their rules, and the arithmetic of their windows."""
