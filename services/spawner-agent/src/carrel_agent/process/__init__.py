"""From a launch spec to the user's process. Standard library only: the keeper runs it bare."""
