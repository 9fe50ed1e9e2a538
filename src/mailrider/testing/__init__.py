"""Stand-ins for tests, ours and our users': clock, resolver, channels, store. The product never imports them."""
