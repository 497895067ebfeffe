"""Ray Serve around the network, for benchmarks/host.py."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
from pathlib import Path

import ray
from ray import serve
from same_host import LOOKS, WAIT_S, Same, free_port
from starlette.requests import Request
from starlette.responses import Response


class Served:
    def __init__(self) -> None:
        self.same = Same()

    @serve.batch(max_batch_size=LOOKS, batch_wait_timeout_s=WAIT_S)
    async def answer(self, batch: list[bytes]) -> list[bytes]:
        return await asyncio.to_thread(self.same.answer, batch)

    async def __call__(self, request: Request) -> Response:
        return Response(await self.answer(await request.body()))


if __name__ == "__main__":
    port = free_port()
    here = str(Path(__file__).parent)
    ray.init(
        address="local",
        include_dashboard=False,
        num_cpus=2,
        logging_level=logging.ERROR,
        runtime_env={"env_vars": {"PYTHONPATH": ":".join([here, *filter(None, sys.path)])}},
    )
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(serve.deployment(max_ongoing_requests=2048)(Served).bind())
    Path(sys.argv[1]).write_text(json.dumps({"url": f"http://127.0.0.1:{port}"}))
    signal.pause()
