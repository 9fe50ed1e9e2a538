"""The operator's limits: what concerns a message, the book of who may begin and who waits, and what processes share."""
