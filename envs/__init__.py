"""Gymnasium environments in which a network is designed."""
