"""The one JSON form of outcomes, queue entries and explanations."""
