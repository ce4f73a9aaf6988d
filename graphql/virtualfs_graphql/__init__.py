"""The GraphQL API of VirtualFS: catalog, online and historical features, typed entity fields."""
