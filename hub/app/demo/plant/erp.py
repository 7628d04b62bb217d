"""The ERP of the simulated plant: canonical JSON over HTTP, and the warehouse's facts with it where there is no Kafka."""

import sys

from hub.app.demo.plant import post


def main() -> int:
    """Run it."""
    parser = post.options("erp")
    parser.add_argument("--kafka", default="", metavar="BROKERS", help="given: the part `wms` sends the warehouse's facts, not this one")
    return post.run("erp", parser, wms_without_kafka=True)


if __name__ == "__main__":
    sys.exit(main())
