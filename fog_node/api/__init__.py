"""The HTTP API of a fog node. `models` says what its JSON holds, `app` what it answers."""
