"""A method of a run, fitted again as the run fitted it, for pictures that no kept estimate shows."""

from __future__ import annotations

from sepbench.ambient import put_back
from sepbench.errors import SepbenchError
from sepbench.report.panels.opened_run import OpenedRun
from sepbench.run.plan import make_plan
from sepbench.run.request import RunRequest
from sepbench.run.separate import one_line
from sepbench.run.session import Session, open_session
from sepbench.suites.model import Task


def fitted_again(run: OpenedRun, task: Task, method: str, device: str) -> Session:
    """The method with the settings, seed and budget that the run recorded, fitted on the task.

    Raises:
        SepbenchError: the method is not the one that the run was made with, or cannot be fitted.
    """
    record = run.record
    entry = record.methods[method]
    request = RunRequest(
        suite=run.suite.name,
        methods=(method,),
        tasks=(task.spec.name,),
        limit=record.limit,
        device=device,
        seed=record.seed,
        budget="quick" if record.budget == "quick" else "paper",
        settings={method: entry.settings},
        shard_size=record.shard_size,
    )
    plan = make_plan(request, run.suite)
    (cell,) = plan.cells
    if cell.info.version != entry.version:
        raise SepbenchError(f"the run was made with {method} version {entry.version}, version {cell.info.version} is installed; run the suite again")
    if not cell.support.ok:
        raise SepbenchError(f"{method} does not take task {task.spec.name}: {cell.support.note}")
    try:
        with put_back():
            session = open_session(cell, plan, task.mixture_set(), lambda tell: None)
    except SepbenchError:
        raise
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever a third party's fit raises
        raise SepbenchError(f"{method} cannot be fitted on {task.spec.name}: {one_line(error)}") from error
    old = run.store.read_cell(task.spec.name, method)
    known = old.weights_sha256 if old is not None else ""
    if known and known != getattr(session.separator, "weights_sha256", ""):
        raise SepbenchError(f"the weights of {method} have changed since the run; restore them, or run the suite again")
    return session
