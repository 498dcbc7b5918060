"""Settings of `evaluate`: which backbones, which labelled pictures, which probes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from cgeartheye.settings.base import NOT_IDENTITY, BackboneSpec, Settings, StageSettings, UserPath

_NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]*$"


class Split(Settings):
    """Which pictures are measured on; fixed by names before anything is trained."""

    kind: Literal["hash", "folders"] = "hash"
    """`hash`: `root/<class>/*`, in the test part if the hash of `<class>/<file name>` is below `test_share`; `folders`:
    `root/train/<class>/*` and `root/test/<class>/*` [ours]."""
    test_share: float = Field(0.3, gt=0, lt=1)
    """Share of test pictures, for `hash` [ours]."""
    salt: str = ""
    """Another text gives another split, for `hash`."""


class ClassFolder(Settings):
    """A set of labelled pictures in class folders."""

    name: str = Field(pattern=_NAME)
    """Name in tables and files."""
    root: UserPath
    """Its folder."""
    split: Split = Split()
    """Bank and test part."""
    size_px: int | None = Field(None, ge=8, le=4096)
    """Bring the shorter side to this and cut the centre square; empty: pictures as they are [ours]."""
    group: Literal["picture", "place"] = "picture"
    """What is drawn at once for the intervals: a picture, or all pictures of a place (several dates of it) [ours]."""
    place_pattern: str = r"^(.+)[._-][dq]?\d\.[^.]+$"
    """For `group: place`: pattern on the file name whose first group is the place (`12_34_2.png`, `PLACE.d0.jpg`); a name that
    does not match is a place of its own [ours]."""


class KnnSettings(Settings):
    """The nearest-neighbour probe."""

    k: int = Field(20, ge=1)
    """Neighbours [dinov2]."""
    temperature: float = Field(0.07, gt=0)
    """Of the votes [dinov2]."""


class LinearSettings(Settings):
    """The linear probe: multinomial logistic regression."""

    strengths: tuple[float, ...] = Field((1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0), min_length=1)
    """Inverse L2 strengths tried on an inner split of the bank, never on test pictures [ours]."""


class RetrievalSet(Settings):
    """Places seen at several dates: is the same place found again at another date?"""

    name: str = Field(pattern=_NAME)
    """Name in tables and files."""
    curated: UserPath | None = None
    """A folder with shards that `curate` wrote; default: the project's own, whose places the backbone has usually seen."""
    places: int = Field(600, ge=2)
    """At most so many places, chosen by the hash of their names [ours]."""
    pairs: int = Field(1, ge=1, le=16)
    """Date pairs asked: date 0 in date 1, then 1 in 2, and so on around [ours]."""
    queries: Literal["disturbed", "stored"] = "disturbed"
    """`disturbed`: turned by a random quarter turn and cropped at 75 to 100 %, so that a place must be known whichever way it
    lies; `stored`: upright and whole, where plain pixels are hardest to beat [ours]."""
    size_px: int | None = Field(None, ge=8, le=4096)
    """Side that query and gallery are brought to before the network; empty: the stored side [ours]."""
    thumbnail_px: int = Field(64, ge=4, le=512)
    """Side of the grey pixels of the baseline without a network [ours]."""


class EvaluateSettings(StageSettings):
    """`evaluate`: figures of frozen backbones with intervals, beside plain baselines."""

    backbones: tuple[BackboneSpec, ...] | None = None
    """Several are training seeds of one recipe: figures are averaged, intervals cover the seeds; default: the project's own."""
    datasets: tuple[ClassFolder, ...] = ()
    """Labelled pictures for kNN and the linear probe."""
    retrieval: tuple[RetrievalSet, ...] = ()
    """Places at several dates."""
    readouts: tuple[Literal["class", "patch"], ...] = Field(("class", "patch"), min_length=1)
    """Class token, and mean with standard deviation of the patch tokens [ours]."""
    knn: KnnSettings = KnnSettings()
    """The nearest-neighbour probe."""
    linear: LinearSettings = LinearSettings()
    """The linear probe."""
    bootstrap: int = Field(2000, ge=100)
    """Replicates of the 95 % intervals [ours]."""
    untrained: bool = True
    """Measure the same networks with their initial weights too."""
    allow_seen: bool = False
    """Go on although test pictures are among the backbone's training pictures."""
    batch: int = Field(64, ge=1)
    """Pictures a pass; another value may change the last digits of features [ours]."""
    device: Literal["cpu", "cuda", "auto"] = Field("auto", json_schema_extra=NOT_IDENTITY)
    """Where networks run."""

    @model_validator(mode="after")
    def _names_differ(self) -> EvaluateSettings:
        names = [folder.name for folder in self.datasets] + [places.name for places in self.retrieval]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            message = f"data sets and retrieval sets need names of their own; used twice: {', '.join(twice)}"
            raise ValueError(message)
        return self
