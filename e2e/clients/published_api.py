"""Uses the Python API of the published dstack 0.18.10: published_api.py local|virtual WORKLOAD PORT TOKEN.

It submits the current folder, or files made here, as a service, and prints what it could not do.
"""

import sys
import time
import urllib.request

from dstack.api import Client, Service
from dstack.api.server import APIClient

try:
    from dstack.api import LocalRepo, VirtualRepo
except ImportError:
    from dstack._internal.core.models.repos import LocalRepo, VirtualRepo

kind, workload, port, token = sys.argv[1:]
client = Client.from_config()
name = "api-" + kind


def wait_for(*statuses):
    for _ in range(300):
        run.refresh()
        if run.status.value in statuses:
            return
        time.sleep(0.2)
    sys.exit(f"the run is {run.status.value}, expected {statuses}")


if kind == "local":
    repo = client.repos.load(".", local=True)
else:
    repo = VirtualRepo(repo_id="made-here")
    repo.add_file("data/hello.txt", b"hello from a virtual repo\n")
    client.repos.init(repo)
service = Service(
    commands=["find . -name '*.txt' -exec cat {} +", f"HOST=127.0.0.1 exec {workload} {port}"], port=int(port), env={"A": "1"}
)

plan = client.runs.get_plan(configuration=service, repo=repo, run_name=name)
job = plan.job_plans[0]
assert job.total_offers == 1 and job.offers[0].backend.value == "local", job.offers
assert plan.run_spec.profile.pool_name == "default-pool", plan.run_spec.profile
assert client.runs.get(name) is None

run = client.runs.submit(configuration=service, repo=repo, run_name=name)
assert run.name == name, run.name
wait_for("running")
assert [r.name for r in client.runs.list()] == [name], client.runs.list()
assert client.runs.get(name).status.value == "running"
assert run.backend.value == "local" and isinstance(run.hostname, str), run.hostname

request = urllib.request.Request(run.service_url, headers={"Authorization": "Bearer " + token})
with urllib.request.urlopen(request, timeout=10) as response:
    assert response.status == 200 and b'"path":"/"' in response.read()

if kind == "virtual":
    for _ in range(100):
        text = b"".join(run.logs())
        if b"hello from a virtual repo" in text:
            break
        time.sleep(0.2)
    else:
        sys.exit(f"the logs are {text!r}")

assert client.backends.list()[0].name == "local", client.backends.list()
api: APIClient = client.client
assert api.projects.get("main").project_name == "main"
assert "admin" in [u.username for u in api.users.list()]
assert api.users.get_my_user().username == "admin"
assert [p.project_name for p in api.projects.list()] == ["main"]
assert [p.name for p in api.pool.list("main")] == ["default-pool"]
assert len(api.pool.show("main", None).instances) == 1
for listed in (api.gateways, api.fleets):
    assert listed.list("main") == []
assert api.volumes.list("main") == []

run.stop(abort=kind == "virtual")
wait_for("terminated")
assert client.runs.list(all=True)[0].name == name
api.runs.delete("main", [name])
assert client.runs.get(name) is None
print("all done")
