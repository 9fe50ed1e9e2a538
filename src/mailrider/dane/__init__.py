"""DANE for SMTP: what TLSA records demand of a certificate (RFC 6698, RFC 7671, RFC 7672).

`tlsa` decides which records count, `match` whether a chain satisfies them. Both are pure: finding the records, and
knowing that they are authentic, is the policy's work.
"""
