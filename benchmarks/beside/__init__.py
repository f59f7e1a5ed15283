"""The same work on dalsegno and on its peers, each in a process of its own: `peers` runs these files as programs, each
with the Python of an environment in which its library is installed, and nothing else is imported here."""
