"""The passes of the catalogue: one file each, or one for a tight family."""
