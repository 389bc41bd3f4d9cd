"""A run as one HTML page that needs nothing else: what is kept for it on the way, and how it is
drawn and written.
"""
