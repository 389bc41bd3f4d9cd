"""Readers of published sets in the layout in which they are handed out; howto/data.md says where
each comes from.
"""
