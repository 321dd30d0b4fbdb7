"""`python -m cloudevents_bridge` is `ceb`."""

from cloudevents_bridge.cli import main

if __name__ == "__main__":
    main()
