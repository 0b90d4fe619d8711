"""Files, archives and caches."""
