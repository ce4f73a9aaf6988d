"""What is hot: online reads from the cache, and from the warehouse where the cache has nothing."""
