"""What masks are worth: figures of each case, and of all of them."""
