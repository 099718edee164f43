"""The virtual hosts of docs/recipes.md, with the applications that they are for."""
