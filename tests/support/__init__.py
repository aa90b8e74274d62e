"""What the tests share, and some of it the benchmarks."""
