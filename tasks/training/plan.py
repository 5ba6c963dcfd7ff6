"""What is to be trained, as a value: which code, with what settings, for which data."""

from dataclasses import asdict, dataclass, field
from pkgutil import resolve_name
from typing import Any

from models.metrics.recipe import classifier_recipe
from models.presets import ImageShape, TextShape
from tasks.data.ingestion import ImageSet
from tasks.data.sources import Kind
from tasks.data.tokenization import TokenSet
from tasks.store.records import shaped
from tasks.training.initial_weights import InitialWeights


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingPlan:
    """One training, before it begins."""

    family: str
    training: str
    """`module:class` with the interface `models.training.protocol.Training`."""
    settings: dict[str, Any]
    """What that class is called with: configurations (dataclasses, or None) by name."""
    seed: int
    uses_gpu: bool = True
    is_generative: bool = True
    """Whether a version is made of it, which carries examples of its data."""
    given: dict[str, Any] = field(default_factory=dict)
    """Of the settings those that a person set, by `group.field`."""
    metric_prefix: str = ""
    """Put before the names of its metrics."""
    threads: int | None = None
    """Of PyTorch, with which it is trained on a CPU; None: as many as the process has, or one where
    batches are cut into shards."""
    processes: int = 1
    """That share the shards of each batch; the result does not depend on it."""
    initial: InitialWeights | None = None
    """What it begins with; None: with random weights, as its seed has them."""
    continued: tuple[str, ...] = ()
    """The modules of its state that begin with them; see `Family.continued`."""
    kept_beside: tuple[str, ...] = ()
    """The modules of its state that are kept for who continues; see `Family.kept_beside`."""

    @property
    def shards(self) -> int:
        """Parts into which each batch is cut; 1 of what is not trained by gradients."""
        return getattr(self.settings.get("training"), "shards", 1)

    @property
    def threads_of_a_process(self) -> int | None:
        """Of PyTorch on a CPU; None: as many as the process has.

        A shard's bits may depend on it, so it must be the same wherever a shard is computed.
        """
        return self.threads or (1 if self.shards > 1 else None)

    @property
    def module(self) -> str:
        """Where its code begins: what a cache key is made of."""
        return self.training.partition(":")[0]

    @property
    def keeps_class_names(self) -> bool:
        """Whether the model knows classes, whose names then travel with it."""
        return self.is_generative and hasattr(self.settings["model"], "num_classes")

    def plain_settings(self) -> dict[str, dict[str, Any]]:
        """The settings as JSON."""
        return {name: asdict(value) if value else {} for name, value in self.settings.items()}

    def kinds(self) -> dict[str, str]:
        """The `module:class` of each configuration by name; empty for none."""
        return {name: _address(value) for name, value in self.settings.items()}

    def parameters(self) -> dict[str, Any]:
        """The same for its MLflow run, by the names that a person sets them by."""
        begins = {}
        if self.initial is not None:
            parent = self.initial.parent
            begins = {"continues": parent.address, "continues_digest": parent.digest}
        return {self.family: self.plain_settings(), **begins}


def plan_from(plain: dict[str, Any], kinds: dict[str, str]) -> TrainingPlan:
    """A plan that travelled as JSON (`asdict`, its settings plain), with the kinds of these."""
    settings = {
        name: resolve_name(kind)(**values) if (kind := kinds[name]) else None
        for name, values in plain["settings"].items()
    }
    return TrainingPlan(**{**plain, "settings": settings})


def data_from(plain: dict[str, Any], kind: Kind) -> ImageSet | TokenSet:
    """The receipt of data that travelled as JSON (`asdict`), with what kind they are of."""
    found: ImageSet | TokenSet = shaped(plain, ImageSet if kind == "images" else TokenSet, "data")
    return found


def kind_of(data: ImageSet | TokenSet) -> Kind:
    """What kind data are of."""
    return "images" if isinstance(data, ImageSet) else "text"


def _address(configuration: Any) -> str:
    kind = type(configuration)
    return f"{kind.__module__}:{kind.__qualname__}" if configuration is not None else ""


def feature_extractor_plan(images: ImageSet) -> TrainingPlan:
    """Of the classifier in whose features image samples are compared: once for an image set."""
    settings = classifier_recipe(image_shape(images))
    return TrainingPlan(
        family="classifier",
        training="models.metrics.classifier_training:ClassifierTraining",
        settings=settings,
        seed=settings["training"].seed,
        is_generative=False,
        metric_prefix="classifier_",
    )


def image_shape(images: ImageSet) -> ImageShape:
    """What a recipe is told of an image set."""
    return ImageShape(images.channels, images.height, images.width, len(images.class_names))


def shape_of(data: ImageSet | TokenSet) -> ImageShape | TextShape:
    """What a recipe is told of data."""
    if isinstance(data, ImageSet):
        return image_shape(data)
    return TextShape(data.scheme, data.vocabulary_size, data.num_train)
