"""Files, archives and caches on disk."""
