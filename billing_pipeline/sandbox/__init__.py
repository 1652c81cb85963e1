"""A stand-in for the four providers' APIs, with the bills of a company that does not exist.

It is what a person without credentials sees, and the test partner. Written from the providers'
documents alone and importing nothing else of this package, so that a misreading there is found
here. Loopback only.
"""
