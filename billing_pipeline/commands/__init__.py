"""What a person types: a module for each part of a life with it. `__main__` puts them together.

What a command works with is imported in it: `--help` and the TAB key take a third of the time that a command does.
"""
