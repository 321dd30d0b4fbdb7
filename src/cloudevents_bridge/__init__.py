"""Publish and consume CloudEvents on any broker, chosen by one URL."""
