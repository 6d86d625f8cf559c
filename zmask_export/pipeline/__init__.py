"""One function a verb: the stages in order, each reading and writing files or specs."""
