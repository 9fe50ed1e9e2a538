"""Where an accepted message goes, and what is checked and changed on the way."""
