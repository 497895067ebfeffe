"""LitServe around the network, for benchmarks/host.py; bodies travel as its JSON, in base64."""

from __future__ import annotations

import base64
import json
import os
import sys
from pathlib import Path

import litserve as ls
from same_host import LOOKS, WAIT_S, Same, free_port


class Api(ls.LitAPI):  # type: ignore[misc]  # without LitServe, it is Any
    def setup(self, device: str) -> None:
        self.same = Same()
        Path(os.environ["READY"]).write_text(json.dumps({"url": f"http://127.0.0.1:{os.environ['PORT']}"}))

    def decode_request(self, request: dict[str, str]) -> bytes:
        return base64.b64decode(request["body"])

    def batch(self, inputs: list[bytes]) -> list[bytes]:
        return inputs

    def predict(self, batch: list[bytes]) -> list[bytes]:
        return self.same.answer(batch)

    def unbatch(self, output: list[bytes]) -> list[bytes]:
        return output

    def encode_response(self, output: bytes) -> dict[str, str]:
        return {"body": base64.b64encode(output).decode()}


if __name__ == "__main__":
    os.environ["READY"], os.environ["PORT"] = sys.argv[1], str(free_port())  # for the process that it starts
    api = Api(max_batch_size=LOOKS, batch_timeout=WAIT_S)
    server = ls.LitServer(api, accelerator="cpu", timeout=60)
    server.run(host="127.0.0.1", port=int(os.environ["PORT"]), generate_client_file=False, log_level="error")
