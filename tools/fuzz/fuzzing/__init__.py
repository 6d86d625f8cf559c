"""What the fuzzer and its test have in common."""
