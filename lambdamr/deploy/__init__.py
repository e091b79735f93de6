"""Putting the runtime into an AWS account, and taking it out again."""
