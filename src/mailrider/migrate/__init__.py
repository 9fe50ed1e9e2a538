"""From another mail server's configuration to ours."""
