"""What a user writes: entities, sources, features, views and services, closed as a Project."""
