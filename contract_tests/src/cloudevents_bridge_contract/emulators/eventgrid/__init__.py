"""An emulator of Azure Event Grid: a namespace whose topics are pulled from, and custom topics that push.

Written from the service's public documentation and from what its SDK is seen to send. `python -m` this package runs
it; `launcher` runs it for tests.
"""
