"""The private internet on loopback: DNS, MX and policy hosts with faults, and a CA.

For users to try things in, and for our tests. No root, no outside network.
"""
