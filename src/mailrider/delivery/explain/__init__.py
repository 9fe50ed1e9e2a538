"""The delivery plan of a domain, with its evidence and advice."""
