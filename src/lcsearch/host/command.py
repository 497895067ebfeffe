"""`lcsearch serve`: options -> a host, its address, and the one line that says how to use it."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
from pathlib import Path

from lcsearch import files
from lcsearch.errors import InvalidValue
from lcsearch.host import serving
from lcsearch.host.device import OnDevice
from lcsearch.host.in_process import Pretrained
from lcsearch.host.service import MOST_PENDING, Host
from lcsearch.host.wire import MOST_BYTES
from lcsearch.terminal import say

_LAST_S = 1.0  # for a pass that the end came over


def serve(
    listen: str,
    device: str = "auto",
    *,
    weights: Path | None = None,
    token_file: Path | None = None,
    tls: tuple[Path | None, Path | None] = (None, None),
    max_body: int = MOST_BYTES,
    max_pending: int = MOST_PENDING,
    ready_file: Path | None = None,
) -> None:
    """Answer until a signal ends it.

    Raises:
        LcsearchError: an option is wrong, or the machine is not as needed.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise InvalidValue("auto, cpu, cuda or cuda:N", device, "--device")
    address, token = serving.Address.of(listen), serving.token(token_file)
    model = OnDevice(lambda on: Pretrained(device=on, file=weights), device)
    host = Host(model, most_pending=max_pending, most_bytes=max_body)

    def ready(url: str) -> None:
        if ready_file is not None:
            files.write_atomically(ready_file, json.dumps({"url": url, "pid": os.getpid()}).encode())
        how = f'host="{url}", or LCSEARCH_HOST={url}'
        say(f"{model.name} {model.version} on {model.device} answers at {url}: {how}")
        if token and tls == (None, None) and sys.stdout.isatty():
            say("! The token travels as it is: --tls-cert and --tls-key keep it from the network between.")

    if sys.stdout.isatty():
        say("The network is being loaded; Ctrl-C ends it.")
    serving.serve(host, address, token=token, cert=tls[0], key=tls[1], ready=ready)
    if ready_file is not None:
        ready_file.unlink(missing_ok=True)
    _leave_what_hangs()


def _leave_what_hangs() -> None:
    """End at once where a thread is still at work: a device that hangs keeps nobody."""
    others = [t for t in threading.enumerate() if t is not threading.current_thread() and not t.daemon]
    for thread in others:
        thread.join(_LAST_S)
    if any(thread.is_alive() for thread in others):
        sys.stdout.flush()
        os._exit(0)
