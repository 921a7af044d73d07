"""Signals (and, later, forks): the only place that handles either."""
