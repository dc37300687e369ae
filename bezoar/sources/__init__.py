"""Where the pipeline's rows come from: the project's own world (embedded.py), or the user's files
(local.py for rows, weights.py for a base model; link.py finds them and links them into local/)."""

from bezoar import params
from bezoar.files import BadInput
from bezoar.sources import embedded, local
from bezoar.sources.tables import Source


def collect(name: str, wanted: params.Rows, seed: int) -> Source:
    """The files of data/fetch/NAME/. Where local/NAME/ is empty, what the profile names stands in,
    and the account says so. BadInput: a bad file, or an empty folder that nothing stands in for."""
    if isinstance(wanted, params.World):
        return embedded.read(name, wanted.rows, seed)
    if source := local.read(name, wanted.limit):
        return source
    if wanted.otherwise is None:
        raise BadInput(
            f"local/{name}: holds no file, and nothing stands in for it; put the file there (the "
            "formats are in local/README.md) or run `make local DATA=folder`"
        )
    source = embedded.read(name, wanted.otherwise.rows, seed)
    return Source(source.tables, {**source.account, "stands_in_for": f"local/{name}"})
