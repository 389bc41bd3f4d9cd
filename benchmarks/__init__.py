"""What is measured: the demo, its report, and speed."""
