"""Events: files in, one validated and deduplicated event each out."""
