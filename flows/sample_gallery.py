"""The final flow: registered champions to sample artifacts."""

from prefect import flow

from tasks.gallery_page import Work
from tasks.registration import champions
from tasks.sampling import draw_images, fresh_folder, publish_gallery, write_texts
from tasks.tracking import open_run


@flow(name="sample-gallery", flow_run_name="gallery, seed {seed}")
def sample_gallery(
    names: list[str] | None = None, seed: int = 0, parent_run_id: str | None = None
) -> str:
    """Let champions draw and write, and publish one page of it; returns the page's path.

    Args:
        names: registered models to show, those without a champion left out; by default all.
        seed: the same seed and the same champions give the same samples.
        parent_run_id: the MLflow run under which this one is filed.
    """
    shown = [name for name in champions() if names is None or name in names]
    with open_run("gallery", parent_run_id=parent_run_id) as run_id:
        folder = fresh_folder(run_id)
        works = [_make(name, folder, seed) for name in shown]
        return publish_gallery(works, folder, run_id)


def _make(name: str, folder: str, seed: int) -> Work:
    is_text = name.endswith(("-ngram", "-gpt"))
    return (write_texts if is_text else draw_images)(name, folder, seed)
