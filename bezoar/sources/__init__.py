"""Where the pipeline's rows come from: the project's own world (embedded.py), the user's files
(local.py for rows, weights.py for a base model; link.py finds them and links them into local/),
the Hugging Face Hub (hub.py; flan.py streams what is too large to keep, harness.py has lm_eval
fetch its tasks), Wikipedia (wikipedia.py).
"""

from bezoar import params
from bezoar.rows.files import BadInput
from bezoar.sources import embedded, flan, harness, hub, local, wikipedia
from bezoar.sources.tables import Source

Wanted = (
    params.World | params.Local | params.Hub | params.HubFlan | params.Wikipedia | params.Harness
)


def collect(name: str, wanted: Wanted, seed: int) -> Source:
    """The files of data/fetch/NAME/. Where local/NAME/ is empty, what the profile names stands in,
    and the account says so. BadInput: a bad file, a source that cannot be reached, or an empty
    folder that nothing stands in for."""
    if isinstance(wanted, params.World):
        return embedded.read(name, wanted.rows, seed)
    if isinstance(wanted, params.Hub):
        return hub.read(name, wanted, seed)
    if isinstance(wanted, params.HubFlan):
        return flan.read(wanted, seed)
    if isinstance(wanted, params.Wikipedia):
        return wikipedia.read(wanted)
    if isinstance(wanted, params.Harness):
        return harness.read(wanted)
    return _local(name, wanted, seed)


def _local(name: str, wanted: params.Local, seed: int) -> Source:
    if source := local.read(name, wanted.limit, seed, how=wanted, licence=wanted.licence):
        return source
    if wanted.otherwise is None:
        raise BadInput(
            f"local/{name}: holds no file, and nothing stands in for it; put the file there (the "
            "formats are in local/README.md) or run `make local DATA=folder`"
        )
    source = embedded.read(name, wanted.otherwise.rows, seed)
    return Source(source.tables, {**source.account, "stands_in_for": f"local/{name}"})
