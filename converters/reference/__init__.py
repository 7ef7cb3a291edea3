"""The published networks in plain torch, for `--verify` and the benchmarks; all need torch."""
