"""Five plug-ins for trtbuild, one per module; pyproject.toml gives them the names for options."""
