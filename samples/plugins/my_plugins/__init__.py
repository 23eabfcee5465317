"""Five plug-ins for trtbuild, one a module; pyproject.toml gives them the names that options know."""
