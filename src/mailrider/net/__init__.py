"""The network: channels (TCP and TLS in one), dialing, listening; the only importer of `ssl`."""
