"""What is measured: methods and guards on shifted streams, shifts, and speed."""
