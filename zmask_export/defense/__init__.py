"""The only definition of the maths: z-score, pooling cascade, fusion, the ZMask module."""
