"""Everything that runs in the cloud: the deployed zip is this package as it stands."""

__version__ = "0.1.0"
