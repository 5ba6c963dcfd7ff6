"""The final flow: registered champions to sample artifacts."""

from prefect import flow

from flows.parameters import Seed
from tasks.flow_runs import sign
from tasks.galleries import fresh_folder, gallery_work, stored_gallery
from tasks.gallery_page import Work
from tasks.registration import champions
from tasks.runs import open_run
from tasks.sampling import draw_images, publish_gallery, write_texts
from tasks.storage import ChecksumMismatch
from tasks.verification import UNVERIFIED, report_unverified


@flow(name="sample-gallery", flow_run_name="gallery, seed {seed}", on_running=[sign])
def sample_gallery(
    names: list[str] | None = None, seed: Seed = 0, parent_run_id: str | None = None
) -> str:
    """Let champions draw and write, and publish one page of it; returns the page's path.

    Args:
        names: registered models to show, those without a champion left out; by default all.
        seed: the same seed and the same champions give the same samples.
        parent_run_id: the MLflow run under which this one is filed.
    """
    shown = [name for name in champions() if names is None or name in names]
    with gallery_work(shown, seed) as record:
        if (page := stored_gallery(record)) is not None:
            return page
        with open_run("gallery", key=record.key, parent_run_id=parent_run_id) as run_id:
            folder = fresh_folder(record)
            made = [_make(name, folder, seed) for name in shown]
            works = [work for work in made if work is not None]
            if shown and not works:
                raise ChecksumMismatch(f"no champion is what was registered: {', '.join(shown)}")
            return publish_gallery(works, folder, run_id, is_whole=len(works) == len(shown))


def _make(name: str, folder: str, seed: int) -> Work | None:
    """What a champion makes; None where it is not what was registered: the others go on."""
    is_text = name.endswith(("-ngram", "-gpt"))
    try:
        return (write_texts if is_text else draw_images)(name, folder, seed)
    except UNVERIFIED as error:
        report_unverified(name, str(error))
        return None
