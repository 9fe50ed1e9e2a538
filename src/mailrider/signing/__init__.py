"""DKIM signing at work: keys in files, and the settings that name them."""
