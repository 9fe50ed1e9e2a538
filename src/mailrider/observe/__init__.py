"""What people and machines are told: the log and the counters, made from events and from nothing else."""
