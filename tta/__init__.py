"""Source training and test-time adaptation."""
