"""Running a built bundle; imports neither torch nor torchvision."""
