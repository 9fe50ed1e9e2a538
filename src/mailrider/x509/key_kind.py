"""The kinds of keys that can be made: a module of its own, so that settings name them without any cryptography."""

import enum


class KeyKind(enum.StrEnum):
    """What a new key can be."""

    RSA2048 = "rsa2048"
    RSA4096 = "rsa4096"
    ED25519 = "ed25519"
