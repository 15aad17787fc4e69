"""``ray-xml serve``: a trained model behind HTTP."""

from __future__ import annotations

import argparse

from ray_xml.use_cli import RUN, positive


def add_serve(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command to the command line's."""
    serve = commands.add_parser("serve", help="answer HTTP requests with labels for texts")
    serve.add_argument("model", help=RUN)
    serve.add_argument("--host", default="127.0.0.1", help="address to listen at (127.0.0.1)")
    serve.add_argument("--port", type=_port, default=8000, help="0 is any free one (8000)")
    serve.add_argument(
        "--replicas", type=positive, default=1, metavar="N", help="processes that answer (1)"
    )
    serve.add_argument(
        "--label-shards",
        type=positive,
        metavar="N",
        help="hold the labels in so many processes; 1 is in each replica (default: by the "
        "model's size)",
    )
    serve.add_argument("--address", metavar="ADDRESS", help="the Ray cluster to join, such as auto")
    serve.set_defaults(command=_serve)


def _port(text: str) -> int:
    number = int(text)
    if not 0 <= number < 1 << 16:
        raise argparse.ArgumentTypeError(f"{text} is no port: give 0 to 65535")
    return number


def _serve(options: argparse.Namespace) -> int:
    from ray_xml.cluster.serve import Server, serve

    server = Server(
        options.host, options.port, options.replicas, options.label_shards, options.address
    )
    serve(options.model, server)
    return 0
