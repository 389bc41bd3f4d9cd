"""What the commands do: training, adaptation, the benchmark."""
