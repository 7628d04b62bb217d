"""The pack station of the simulated plant: EPCIS 2.0 JSON documents posted to capture."""

import sys

from hub.app.demo.plant import post


def main() -> int:
    """Run it."""
    return post.run("epcis", post.options("epcis"))


if __name__ == "__main__":
    sys.exit(main())
