"""The carrier of the simulated plant: milestones and proofs of delivery as CloudEvents batches over HTTP."""

import sys

from hub.app.demo.plant import post


def main() -> int:
    """Run it."""
    return post.run("carrier", post.options("carrier"))


if __name__ == "__main__":
    sys.exit(main())
