"""Everything, in order: data, models, their judges, the registry, the gallery."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from prefect import flow
from prefect.runtime import flow_run

from flows.champion_challenger import APPROVAL_SECONDS
from flows.continuing import beginning
from flows.device_slot import final_state, training_slot
from flows.parameters import (
    ApprovalSeconds,
    Glob,
    ImageSide,
    ImageSource,
    Processes,
    Seed,
    Settings,
    TextSource,
    TrainingSeconds,
    VersionAddress,
    data_name,
    takes_options,
)
from flows.prepare_data import prepare_corpus, prepare_images
from flows.sample_gallery import whole_gallery
from flows.train import planned, report_version, train_model, within_seconds
from models.presets import Preset
from tasks.data.kinds import Scheme
from tasks.families.table import names, of_data, options_of_families
from tasks.maintenance.crash_recovery import label_with_process
from tasks.registry.versions import Version
from tasks.runtime.progress import log, log_on_page
from tasks.runtime.stopping import unless_stopped
from tasks.samples.lineage import publish_lineage
from tasks.settings.processes import shards_name, with_shards
from tasks.settings.values import check_time, checked, with_options
from tasks.store.files import digest_of
from tasks.tracking.runs import describe_run, open_run, recover_from_crashes

if TYPE_CHECKING:
    FamilyName = str
else:
    FamilyName = Literal[names()]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSummary:
    """What a full run registered, and where its gallery is."""

    versions: tuple[Version, ...]
    gallery: str


def run_title(
    images: str, text: str, models: Collection[str], preset: str, seed: int, **_: Any
) -> str:
    """What a run is called in Prefect and in MLflow: the data that it trains on, and how.

    models: the families; they are named where not all of these data are trained.
    """
    kinds = {"images": images, "text": text}
    trained = [(source, of_data(kind, models), of_data(kind)) for kind, source in kinds.items()]  # type: ignore[arg-type]
    told = " and ".join(data_name(source) for source, chosen, _ in trained if chosen)
    if any(chosen and chosen != known for _, chosen, known in trained):
        told += f" ({', '.join(models)})"
    return f"{told}, {preset}, seed {seed}"


@flow(
    name="full-run",
    flow_run_name=lambda: run_title(**flow_run.parameters),
    on_running=[label_with_process],
)
@takes_options(options_of_families())
def full_run(  # noqa: PLR0913, D417 - each is a field of the form in the Prefect UI
    *,
    images: ImageSource = "digits",
    text: TextSource = "pydocs",
    models: tuple[FamilyName, ...] = names(),
    preset: Preset = "standard",
    seed: Seed = 0,
    settings: Settings | None = None,
    seconds: TrainingSeconds | None = None,
    processes: Processes | None = None,
    continue_from: VersionAddress | None = None,
    image_size: ImageSide | None = None,
    tokenizer: Scheme = "characters",
    glob: Glob | None = None,
    rehash: bool = False,
    approve: bool = False,
    approval_seconds: ApprovalSeconds = APPROVAL_SECONDS,
    **options: Any,
) -> RunSummary:
    """Train, judge and register the chosen models, then publish samples of the champions.

    Args:
        images: a data set such as digits, or folder:PATH (its sub-folders are classes);
            NAME=folder:PATH gives the data set a name of your own.
        text: a data set such as pydocs, file:PATH or folder:PATH; NAME=file:PATH gives the data set
            a name of your own.
        models: which families to train (--families of the command line).
        preset: how much work: quick, standard or full.
        seed: 0 to 2147483647; the same seed gives the same weights on the same machine.
        settings: values that take the place of the preset's, such as {"vae.model.latent_size": 16};
            `atelier settings` lists all.
        seconds: train each model for about so long, instead of the preset's steps; none: its steps.
        processes: share the batches of each training among so many processes of this machine, in
            4 shards unless settings say another number; the weights do not depend on how many
            processes there are, but on the shards. None: no shards, as the presets say.
        continue_from: a version whose weights the training begins with, such as
            digits-vae@champion or digits-vae/3; the models to train are then its family alone.
        image_size: side in pixels, 8 to 64, to which your own images are cropped and resized.
        tokenizer: one token per character, or byte-level BPE.
        glob: which files of your own folder of text are read, such as *.py; none: all text.
        rehash: read your own files again even if their names, sizes and times are unchanged.
        approve: wait for a person's consent, in the Prefect UI, before a version becomes champion.
        approval_seconds: seconds to wait for it, at most a week; then the present champion stays.
    """
    within = approval_seconds if approve else None
    of_images, of_text = of_data("images", models), of_data("text", models)
    versions: list[Version] = []
    given = checked(with_options(settings or {}, options), models)
    check_time(given, models, seconds)
    given = with_shards(given, models, processes)
    parameters = {
        **{"images": images, "text": text, "models": list(models), "preset": preset, "seed": seed},
        **{"image_size": image_size, "tokenizer": tokenizer, **options},
        **({"glob": glob} if glob is not None else {}),
        **({"settings": given} if given else {}),
        **({"seconds": seconds} if seconds is not None else {}),
    }
    if alone := [name for name in models if processes and not shards_name(name)]:
        log(f"{', '.join(alone)}: no batches to share, so one process trains it")
    source = {"images": images, "image_size": image_size, "text": text, "scheme": tokenizer}
    recover_from_crashes()
    begins = beginning(continue_from, models, given, preset, source)
    if begins.weights is not None:
        parameters["continue_from"] = begins.weights.parent.address
    sources = [source for source, of in ((images, of_images), (text, of_text)) if of]
    facts = {"data": ", ".join(map(data_name, sources)), "preset": preset, "seed": str(seed)}
    if of_text:
        facts["tokenizer"] = tokenizer
    title, key = run_title(images, text, models, preset, seed), digest_of(parameters)
    with training_slot(), open_run(title, key=key, parameters=parameters, tags=facts) as run_id:
        # Data and settings first: bad input must stop the run before anything is trained.
        image_set, token_set = None, None
        if of_images:
            image_set = unless_stopped(prepare_images(images, image_size, rehash))
        if of_text:
            token_set = unless_stopped(
                prepare_corpus(
                    text,
                    tokenizer,
                    glob=glob,
                    rehash=rehash,
                    tokenizer_file=begins.tokenizer_file,
                )
            )
        work = []
        for family in (*of_images, *of_text):
            data = image_set if family.data == "images" else token_set
            assert data is not None, "prepared above"
            planned(family, data, preset, seed, given, begins.weights)
            work.append((family, data))
        for family, data in work:
            given = within_seconds(
                family,
                data,
                preset,
                seed,
                given,
                seconds,
                continues=begins.weights,
                processes=processes or 1,
            )
        for family, data in work:
            log_on_page(f"{data.name}-{family.name}: next; its run below tells how far it is")
            version = train_model(
                family.name,
                data,
                preset=preset,
                seed=seed,
                parent_run_id=run_id,
                settings=given,
                processes=processes or 1,
                continues=begins.on(data, preset, seed, given),
                approve_within=within,
            )
            versions.append(unless_stopped(version))
            _tell(versions, run_id)
        gallery = unless_stopped(whole_gallery(run_id))
        publish_lineage(versions, gallery, run_id)
    return final_state(RunSummary(versions=tuple(versions), gallery=gallery), versions)


def _tell(versions: Sequence[Version], run_id: str) -> None:
    """Give the pages of the whole run a line and a number for its latest model.

    The rest is on the pages of its parts. MLflow's charts open with whole runs.
    """
    latest = versions[-1]
    report_version(latest)
    families = [version.name.rpartition("-")[2] for version in versions]
    told = [f"{of} {v.main_value:.4g}" for of, v in zip(families, versions, strict=True)]
    number = f"{families[-1]}_{latest.main_metric.removeprefix('test_')}"
    describe_run(run_id, tags={"main_metric": ", ".join(told)}, metrics={number: latest.main_value})
