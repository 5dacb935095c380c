"""Hooks of schemathesis: requests that harm neither the test's own objects nor the machine."""

import re

import schemathesis
from schemathesis.core.parameters import ParameterLocation

# What the tests need until their end. Objects named spare may go.
KEPT = {"admin", "member", "nobody", "main", "side", "kept", "ended", "kept-12345678"}
DESTRUCTIVE = (
    "/users/delete", "/users/update", "/users/refresh_token", "/projects/delete", "/set_members", "/remove_members",
    "/add_members", "/secrets/delete", "/secrets/create_or_update", "/repos/delete", "/repos/init", "/runs/stop",
    "/runs/delete", "/runs/rollback",
)
PROJECTS = {"main", "MAIN", "side", "none", "a\0b", "..", "%2e%2e", "ä"}
MAX_WAIT = 1  # seconds

# A run that is accepted and starts nothing: it sleeps until a request comes.
SLEEPING = {"commands": ["sleep 600"], "replicas": "0..1", "scaling": {"metric": "rps", "target": 1}}
# These could reach other machines, or run something on this one.
DANGEROUS = ("setup", "entrypoint", "image", "registry_auth", "env", "repos", "files", "volumes", "docker", "probes")


@schemathesis.hook
def before_call(context, case, kwargs):
    choose_project(case)
    body = case.body
    if not isinstance(body, dict):
        return
    if case.path.endswith(DESTRUCTIVE):
        case.body = body = spare(body)
    wait = body.get("wait_seconds")
    if isinstance(wait, int) and MAX_WAIT < wait <= 60:
        body["wait_seconds"] = MAX_WAIT
    if case.path.endswith("/logs/follow") and body.get("follow") is True:
        body["follow"] = False
    plan = body.get("plan") if isinstance(body.get("plan"), dict) else {}
    run_spec = body.get("run_spec", plan.get("run_spec"))
    if isinstance(run_spec, dict):
        tame(run_spec)
        if case.meta is None or case.meta.generation.mode.is_positive:
            simplify(run_spec)
    for info in (body.get("repo_info"), run_spec.get("repo_data") if isinstance(run_spec, dict) else None):
        if isinstance(info, dict) and info.get("repo_type") == "remote":
            info["repo_type"] = "virtual"  # nothing leaves the machine


@schemathesis.hook
def filter_failure(context, failure, case, response):
    # The document says it once, and not as a pattern of every text.
    return "U+0000" not in response.text


@schemathesis.check
def describes_probes(ctx, response, case):
    """schemathesis itself does not compare the answers to wrong methods and media types with the document."""
    status = response.status_code
    documented = case.operation.responses.status_codes
    if status == 405:
        assert response.headers.get("allow"), "405 without the header Allow"
    else:
        assert str(status) in documented, f"the status {status} is not documented: {', '.join(documented)}"
    if status >= 400 and response.request.method != "HEAD":
        assert "error" in response.json(), "the error has no field error"


def choose_project(case):
    """Puts an existing project into a path, unless the wrong name is the point of the case."""
    names = case.path_parameters or {}
    if "project_name" not in names or str(names["project_name"]) in PROJECTS:
        return
    component = case.meta and case.meta.components.get(ParameterLocation.PATH)
    if component is None or component.mode.is_positive:
        names["project_name"] = "main"


def spare(value):
    """Returns a body without the names of what the tests need."""
    if isinstance(value, dict):
        return {k: spare(v) for k, v in value.items()}
    if isinstance(value, list):
        return [spare(v) for v in value]
    if isinstance(value, str) and value.strip().lower() in KEPT:
        return "spare"
    return value


def tame(run_spec):
    """Makes a run that would be accepted sleep: random commands do not run on this machine."""
    configuration = run_spec.get("configuration")
    if not isinstance(configuration, dict):
        return
    for name in DANGEROUS:
        configuration.pop(name, None)
    configuration.update(SLEEPING)


def simplify(run_spec):
    """Keeps two generated fields of a configuration: with more, hardly any is accepted."""
    configuration = run_spec.get("configuration")
    if isinstance(configuration, dict):
        configuration.update(SLEEPING, type="service")
        configuration.setdefault("port", 8000)
        fields = sorted(k for k in configuration if k not in SLEEPING and k not in ("type", "port"))
        middle = len(fields) // 2
        for name in fields:
            if name not in fields[middle : middle + 2] or not re.fullmatch("[a-z_]+", name):
                del configuration[name]
    run_spec["profile"] = {"name": "default"}
    run_spec.update(repo_id="kept-12345678", repo_data={"repo_type": "virtual"}, repo_code_hash=None)
    if run_spec.get("run_name") in KEPT:
        run_spec["run_name"] = "spare"
