"""Agents that learn, or search, in the design environments."""
