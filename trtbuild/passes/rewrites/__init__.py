"""The passes of the catalogue: one file per pass or per group of related passes."""
