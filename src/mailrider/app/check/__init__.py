"""Is this machine fit to send? What `mailrider check` looks at, each in a module of its own; all say it in findings."""
