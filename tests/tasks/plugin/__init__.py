"""What somebody writes who brings a task, or a target, of their own."""
