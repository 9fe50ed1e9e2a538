"""The queue: accepted means delivered or bounced. Storage, schedule, and what to do with a report."""
