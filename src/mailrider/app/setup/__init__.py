"""From nothing to a machine that sends for a domain: what `mailrider setup` writes, prints and installs."""
