"""Puts this folder on the path of every room's tests, for the samples that they share."""
