"""What an exported model brings besides its own modules: loaders that run without this project.

These files are copied as they are, but for their imports of each other; so they import nothing else
of the project, and no library but the one that they name.
"""
