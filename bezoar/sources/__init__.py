"""The sources of the pipeline's rows, one module each.

embedded.py  the project's own world
local.py     the user's rows. weights.py reads the user's base model. link.py finds both and links
             them into local/.
bases.py     the base model: downloaded, copied or grown
hub.py       the Hugging Face Hub. flan.py streams the FLAN collection, which is too large to keep.
             harness.py has lm_eval fetch its tasks.
wikipedia.py the category table of Wikipedia
"""

from bezoar import params
from bezoar.rows.files import BadInput
from bezoar.sources import embedded, flan, harness, hub, local, wikipedia
from bezoar.sources.tables import Source

Settings = (
    params.World | params.Local | params.Hub | params.HubFlan | params.Wikipedia | params.Harness
)


def collect(name: str, settings: Settings, seed: int) -> Source:
    """Return the files of data/fetch/NAME/ and their account, by `settings` (fetch.NAME).

    If local/NAME/ is empty, the stand-in that the profile names takes its place, and the account
    says so. BadInput: a bad file, a source that cannot be reached, or an empty folder that nothing
    stands in for.
    """
    if isinstance(settings, params.World):
        return embedded.read(name, settings.rows, seed)
    if isinstance(settings, params.Hub):
        return hub.read(name, settings, seed)
    if isinstance(settings, params.HubFlan):
        return flan.read(settings, seed)
    if isinstance(settings, params.Wikipedia):
        return wikipedia.read(settings)
    if isinstance(settings, params.Harness):
        return harness.read(settings)
    return _local(name, settings, seed)


def _local(name: str, settings: params.Local, seed: int) -> Source:
    if source := local.read(
        name, settings.limit, seed, settings=settings, licence=settings.licence
    ):
        return source
    if settings.otherwise is None:
        raise BadInput(
            f"local/{name}: holds no file, and nothing stands in for it; put the file there (the "
            "formats are in local/README.md) or run `make local DATA=folder`"
        )
    source = embedded.read(name, settings.otherwise.rows, seed)
    return Source(source.tables, {**source.account, "stands_in_for": f"local/{name}"})
