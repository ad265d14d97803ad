"""Pure functions beside their equations: losses, advantages, rewards, statistics."""
