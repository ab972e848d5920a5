"""Actions: between the files of a workspace and the services; each is one thing a user or a flow asks for."""
