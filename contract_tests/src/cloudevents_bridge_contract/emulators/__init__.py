"""Emulators of brokers, started without Docker: each finds its program, runs it, and leaves nothing behind."""
