"""The parameters, typed and closed: all are checked, under every profile, before a stage starts.

A stage's parameters are the recipe's section joined with the active profile's. A key stands in one
of the two, never in both.
"""

from bezoar.params.across import unknown_tasks
from bezoar.params.endpoints import (
    LOCAL_FOLDER,
    LOCAL_MAXIMA,
    Anthropic,
    Budget,
    Embedded,
    Endpoint,
    Endpoints,
    InProcess,
    OpenAI,
    Price,
)
from bezoar.params.evaluating import LmEval, MtAnswer, Temperatures
from bezoar.params.fields import KEY_FIELD
from bezoar.params.filtering import Action, Balance, Decontamination, Filter, Gates, RowAction, Step
from bezoar.params.judging import FEWEST_KNOWN, Known
from bezoar.params.loading import check, forget, load
from bezoar.params.recipe import FURTHER, OWN, PAIRS, Evaluated, Link
from bezoar.params.schemes import EvolInstruct, Generate, Lamini, Orca, Schemes
from bezoar.params.settings import Params
from bezoar.params.sources import (
    FIELDS,
    AnswerIs,
    Fetch,
    Further,
    FurtherHub,
    FurtherLocal,
    FurtherServed,
    GrownBase,
    Harness,
    Hub,
    HubBase,
    HubFlan,
    Local,
    LocalBase,
    Reading,
    Repository,
    Wikipedia,
    World,
)
from bezoar.params.training import (
    ALL_LINEAR,
    NEVER_UNSMOOTHED,
    Dpo,
    MergeStage,
    Optimizer,
    Preference,
    Scheduler,
    Sft,
    Training,
)
