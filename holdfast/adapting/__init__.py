"""Adaptation of a source model to a stream: its options, its parts, and what a run leaves."""
