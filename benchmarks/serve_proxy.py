"""What Ray Serve's own HTTP proxy costs: a replica behind it that computes nothing, under load.

    python benchmarks/serve_proxy.py

Beside ``serve_load`` on the same machine this tells why replicas of ``ray-xml serve`` listen for
HTTP themselves.
"""

from __future__ import annotations

import argparse
import json
import logging
from typing import Any

from serve_load import measured, request

_ANSWER = b'{"documents": [{"labels": []}]}'


class AtOnce:
    """Reads a request and answers it. No function: Ray Serve would take it for one that makes an
    application."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                await send({"type": f"{message['type']}.complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        while (await receive()).get("more_body"):
            pass
        length = b"%d" % len(_ANSWER)
        headers = [(b"content-type", b"application/json"), (b"content-length", length)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": _ANSWER})


class Nothing:
    """Answers without computing."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--port", type=int, default=8123)
    parser.add_argument("--clients", default="1,8,32")
    parser.add_argument("--seconds", type=float, default=10.0)
    given = parser.parse_args()
    # Here, so that the options can be read without Ray.
    import ray
    from ray import serve

    ray.init(
        address="local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR
    )
    quiet = {"log_level": "WARNING", "enable_access_log": False}
    http = {"host": "127.0.0.1", "port": given.port}
    serve.start(http_options=http, logging_config=quiet)
    deployed = serve.deployment(max_ongoing_requests=1000)(serve.ingress(AtOnce())(Nothing))
    serve.run(deployed.bind(), name="nothing", logging_config=quiet)
    requests = [request(b'{"text": "a few words"}')]
    for clients in given.clients.split(","):
        line = measured(given.port, requests, int(clients), given.seconds, hostile=False)
        print(json.dumps(line), flush=True)
    serve.delete("nothing")
    ray.shutdown()


if __name__ == "__main__":
    main()
