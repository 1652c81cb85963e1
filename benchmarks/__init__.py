"""How fast a refresh is, and how much memory it takes, against a floor and against dlt: `make bench`."""
