"""A source model: trained, or adopted from elsewhere; its options, and what a run leaves."""
