"""What was made from what: the artifacts of a home, joined by the digests of their contents."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tasks.store.artifacts import KINDS, Artifact, artifacts


@dataclass(frozen=True, slots=True)
class Graph:
    """Finished artifacts, by digest; several may have the same content."""

    by_digest: dict[str, list[Artifact]]

    @staticmethod
    def of_home() -> "Graph":
        """As the manifests tell it now."""
        return Graph.joining(artifact for kind in KINDS for artifact in artifacts(kind))

    @staticmethod
    def joining(some: Iterable[Artifact]) -> "Graph":
        """Some artifacts, of whatever place."""
        found: dict[str, list[Artifact]] = {}
        for artifact in some:
            found.setdefault(artifact.digest, []).append(artifact)
        return Graph(found)

    def __iter__(self) -> Iterator[Artifact]:
        return (artifact for same in self.by_digest.values() for artifact in same)

    def named(self, digest: str) -> Artifact | None:
        """One artifact of a content."""
        return next(iter(self.by_digest.get(digest, ())), None)

    def origins(self, digests: Iterable[str]) -> list[Artifact]:
        """The artifacts of some contents and all that they were made from; those come first."""
        found: dict[str, Artifact] = {}
        visited: set[str] = set()

        def visit(digest: str) -> None:
            artifact = self.named(digest)
            if artifact is not None and digest not in visited:
                visited.add(digest)  # now: a training that changed nothing has itself among them
                for each in artifact.inputs:
                    visit(each)
                found[digest] = artifact

        for digest in digests:
            visit(digest)
        return list(found.values())

    def reachable(self, digests: Iterable[str]) -> set[str]:
        """Some contents and those of all that they were made from, known here or not."""
        marked: set[str] = set()
        waiting = list(digests)
        while waiting:
            digest = waiting.pop()
            if digest not in marked:
                marked.add(digest)
                waiting += (i for same in self.by_digest.get(digest, ()) for i in same.inputs)
        return marked
