"""Ask/tell algorithms, one file each; what they share is in ``base``, ``shaping`` and ``steps``."""
