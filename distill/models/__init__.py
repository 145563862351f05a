"""Teachers and students: loading, sizes, building, freezing."""
