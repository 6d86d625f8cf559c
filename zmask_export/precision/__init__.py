"""The type that a network computes in, decided in its exported graph: float16, bfloat16, int8 by Q/DQ."""
