"""The final flow: registered champions to sample artifacts."""

from prefect import flow

from flows.parameters import ModelName, Seed
from tasks.maintenance.crash_recovery import label_with_process
from tasks.registry.verdicts import report_unverified
from tasks.registry.verification import UNVERIFIED
from tasks.runtime.progress import log_on_page
from tasks.samples.cache import (
    GalleryIncomplete,
    empty_gallery,
    fresh_folder,
    gallery_work,
    one_gallery_at_a_time,
    shown_works,
    stored_gallery,
)
from tasks.samples.challengers import find_challengers
from tasks.samples.html_page import ChampionSamples
from tasks.samples.plan import Piece, drawn_from, kept_work, last_work, plan_gallery
from tasks.samples.sampling import draw_samples, publish_gallery
from tasks.store.files import CannotWrite
from tasks.tracking.runs import open_run


@flow(name="sample-gallery", flow_run_name="gallery, seed {seed}", on_running=[label_with_process])
def sample_gallery(
    names: list[ModelName] | None = None, seed: Seed = 0, parent_run_id: str | None = None
) -> str:
    """Let champions draw and write, and publish one page of all of them; returns the page's path.

    The page tells of the refused challengers too, and where nobody is champion of them alone.

    A champion that made the same for the last page does not make it again. One that cannot draw
    keeps its place with what was made last, and the flow ends with GalleryIncomplete, which names
    it, after the page is published.

    Args:
        names: registered models that are to draw with this seed, while the others stay as they
            are on the page; by default all champions.
        seed: the same seed and the same champions give the same samples.
        parent_run_id: the MLflow run under which this one is filed.
    """
    with one_gallery_at_a_time():
        pieces, challengers = plan_gallery(names, seed), find_challengers()
        if not pieces and (not challengers or shown_works()):
            return empty_gallery()
        with gallery_work([*pieces, *challengers], seed) as record:
            if (stored := stored_gallery(record)) is not None:
                return stored
            with open_run("gallery", key=record.key, parent_run_id=parent_run_id) as run_id:
                folder = fresh_folder(record)
                problems: list[str] = []
                works = [_work(piece, folder, problems) for piece in pieces]
                page = publish_gallery(works, folder, run_id, challengers)
    if problems:
        message = "the gallery shows the last works of what cannot draw: " + "; ".join(problems)
        raise GalleryIncomplete(message, page)
    return page


def whole_gallery(parent_run_id: str) -> str:
    """The page after a training run, which does not fail for a champion that cannot draw."""
    try:
        return sample_gallery(parent_run_id=parent_run_id)
    except GalleryIncomplete as problem:
        log_on_page(f"WARNING: {problem}")
        return problem.page


def _work(piece: Piece, folder: str, problems: list[str]) -> ChampionSamples:
    """What a model made before, what it makes now, or, where it cannot, what it made last."""
    if (work := kept_work(piece, folder)) is not None:
        return work
    try:
        return drawn_from(piece, draw_samples(piece.name, folder, piece.seed, piece.version))
    except (ConnectionError, TimeoutError, CannotWrite):  # of servers and disks, not of the model
        raise
    except Exception as error:  # whatever a version's own code, or its damaged files, may raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if isinstance(error, UNVERIFIED):
            report_unverified(piece.name, reason)
        problems.append(f"{piece.name} version {piece.version}: {reason}")
        return last_work(piece, folder, reason)
