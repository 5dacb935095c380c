"""Attaches to a run with the published Python API: RUN MINE THEIRS, the last two are ports of this and of another run.

Prints one JSON object: the first lines of the output, and what the forwarded ports answer.
"""

import json
import socket
import subprocess
import sys
import time
import urllib.request

from dstack.api import Client

name, mine, theirs = sys.argv[1:]
client = Client.from_config()
run = client.runs.get(name)
result = {"attached": run.attach(), "hostname": run.hostname, "forwarded": sorted(run.ports)}

lines = []
for entry in run.logs():
    lines.append(entry.decode())
    if "listening on" in lines[-1]:
        break
result["lines"] = lines


def ask(port):
    """Asks a port of the job through the tunnel that the client has opened."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        local = free.getsockname()[1]
    control = run._ssh_attach.tunnel.control_sock_path
    forward = ["ssh", "-S", control, "-O", "forward", "-L", f"{local}:localhost:{port}", name]
    subprocess.run(forward, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{local}/", timeout=10) as response:
            return response.status
    except OSError as error:
        return type(error).__name__


result["mine"], result["theirs"] = ask(mine), ask(theirs)
run.detach()

# The same object attaches again.
result["again"] = run.attach()
began = time.monotonic()
run.stop(abort=True)
result["stopped_after"] = time.monotonic() - began
print(json.dumps(result))
