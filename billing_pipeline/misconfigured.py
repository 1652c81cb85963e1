"""That a configuration cannot be used, said without importing what reads it: completion in a shell has 0.1 s, not 0.8."""

from __future__ import annotations


class WrongConfiguration(Exception):
    """accounts.toml cannot be used as it is. The text has one line per problem, each with the line of the file to mend."""

    rerun = "no"
    remedy = "Mend what is named; nothing was fetched"
