"""Adds finished services to the database of a server of dstack 0.18.10.

That server submits a service only if a machine of a gateway answers. This script does the rest of its submission with
the server's own functions, and marks the run and its jobs as terminated: nothing processes them any more.

    HOME=... python seed_published.py FIRST COUNT < request.json

The request is the body of runs/get_plan.
"""

import asyncio
import json
import sys
import uuid

from dstack._internal.core.models.runs import JobStatus, JobTerminationReason, RunSpec, RunStatus, RunTerminationReason
from dstack._internal.core.models.runs import ServiceSpec
from dstack._internal.server.db import get_session_ctx
from dstack._internal.server.models import ProjectModel, RepoModel, RunModel
from dstack._internal.server.services.jobs import get_jobs_from_run_spec
from dstack._internal.server.services.runs import create_job_model_for_new_submission
from dstack._internal.utils.common import get_current_datetime
from sqlalchemy import select


async def add_runs(request, first, count):
    async with get_session_ctx() as session:
        project = (await session.execute(select(ProjectModel).where(ProjectModel.name == "main"))).scalar_one()
        repo = (await session.execute(select(RepoModel))).scalars().first()
        for number in range(first, first + count):
            spec = RunSpec.parse_obj({**request["run_spec"], "run_name": f"bench-{number}"})
            now = get_current_datetime()
            run = RunModel(
                id=uuid.uuid4(), project_id=project.id, project=project, repo_id=repo.id, user_id=project.owner_id,
                run_name=spec.run_name, submitted_at=now, last_processed_at=now, run_spec=spec.json(),
                status=RunStatus.TERMINATED, termination_reason=RunTerminationReason.STOPPED_BY_USER,
                service_spec=ServiceSpec(url=f"http://{spec.run_name}.example.com").json(),
            )
            session.add(run)
            for replica in range(spec.configuration.replicas.min):
                for job in await get_jobs_from_run_spec(spec, replica_num=replica):
                    model = create_job_model_for_new_submission(run_model=run, job=job, status=JobStatus.TERMINATED)
                    model.termination_reason = JobTerminationReason.TERMINATED_BY_USER
                    session.add(model)
        await session.commit()


asyncio.run(add_runs(json.load(sys.stdin), int(sys.argv[1]), int(sys.argv[2])))
