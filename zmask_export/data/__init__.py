"""Images, label maps and drawn street scenes."""
