"""From images to numbers: running moments, fitting the fusion block, choosing the threshold."""
