"""Uses the Python API of the newest published dstack: newest_api.py WORKLOAD PORT TOKEN.

It applies a service, attaches to it, changes it, and prints what it could not do.
"""

import sys
import time
import urllib.request

from dstack.api import Client, Service

workload, port, token = sys.argv[1:]
client = Client.from_config()


def wait_for(*statuses):
    for _ in range(300):
        run.refresh()
        if run.status.value in statuses:
            return
        time.sleep(0.2)
    sys.exit(f"the run is {run.status.value}, expected {statuses}")


def make_service(greeting):
    return Service(
        name="programmed", port=int(port), commands=[f"echo {greeting}", f"HOST=127.0.0.1 exec {workload} {port}"]
    )


assert client.runs.get("programmed") is None
plan = client.runs.get_run_plan(configuration=make_service("hello"))
assert plan.action.value == "create" and plan.current_resource is None, plan.action
assert [o.backend.value for o in plan.job_plans[0].offers] == ["dstack"], plan.job_plans
run = client.runs.apply_plan(plan)
wait_for("running")
assert [r.name for r in client.runs.list()] == ["programmed"], client.runs.list()
assert client.runs.get("programmed").status.value == "running"

request = urllib.request.Request(run.service_url, headers={"Authorization": "Bearer " + token})
with urllib.request.urlopen(request, timeout=10) as response:
    assert response.status == 200 and b'"path":"/"' in response.read()

assert run.attach(), "not attached"
for entry in run.logs():
    if b"listening on" in entry:
        break
run.detach()
for _ in range(100):
    if b"hello\n" in b"".join(run.logs()):
        break
    time.sleep(0.2)
else:
    sys.exit("the output is not in the logs")

plan = client.runs.get_run_plan(configuration=make_service("goodbye"))
assert plan.action.value == "update" and plan.current_resource.id == run._run.id, plan.action
run = client.runs.apply_plan(plan, reserve_ports=False)
assert run._run.deployment_num == 2, run._run.deployment_num
for _ in range(150):
    run.refresh()
    if not run._run.is_deployment_in_progress() and b"goodbye\n" in b"".join(run.logs()):
        break
    time.sleep(0.2)
else:
    sys.exit("the change was not rolled out")

api = client.client
assert client.backends.list()[0].name == "dstack", client.backends.list()
assert api.projects.get("main").members[0].permissions.can_manage_secrets
assert [u.username for u in api.users.list()] == ["admin"]
assert api.users.list(return_total_count=True, name_pattern="adm").total_count == 1
assert [p.project_name for p in api.projects.list()] == ["main"]
assert api.users.get_my_user().creds.token == token
assert api.runs.get("main", run_id=run._run.id).id == run._run.id
events = api.events.list(within_runs=[run._run.id], limit=2, ascending=True)
later = api.events.list(within_runs=[run._run.id], prev_id=events[-1].id, prev_recorded_at=events[-1].recorded_at, ascending=True)
assert len(events) == 2 and later and not {e.id for e in events} & {e.id for e in later}, (events, later)
assert api.exports.list("main") == [] and api.imports.list("main") == []

run.stop()
wait_for("terminated")
assert client.runs.list(all=True)[0].name == "programmed"
api.runs.delete("main", ["programmed"])
assert client.runs.get("programmed") is None
print("all done")
