"""The supervisor of replica processes: starts them, restarts those that die, replaces and drains them."""
