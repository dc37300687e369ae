"""A further model, to be looked at beside those that this recipe makes.

reads   a repository of the hub, or local/models/NAME/, as models.NAME of params.yaml says
writes  models/models/NAME: the model with its tokenizer, and its chat_template.jinja where
        params.yaml has one; endpoint.json alone where it is served elsewhere; source.json
metrics none
"""

import json
from pathlib import Path

from bezoar import llm, params, work
from bezoar.params import arguments
from bezoar.rows import files
from bezoar.sources import hub, local, weights


def main(name: str) -> None:
    work.begin()
    model, out = params.load().models[name], Path("models/models", name)
    account: dict[str, object]
    if isinstance(model, params.FurtherServed):
        account = {"source": "served", "model": model.endpoint.model}
        files.write_json(out / llm.ENDPOINT, model.endpoint.model_dump())
    else:
        if isinstance(model, params.FurtherHub):
            account = hub.base(model, out)
        else:
            paths, folder = local.list_files(f"models/{name}"), f"local/models/{name}"
            account = weights.copy(paths, out, folder, further=True)
        if model.chat_template is not None:
            files.write(out / "chat_template.jinja", [model.chat_template])
    files.write_json(out / "source.json", account)
    print(f"models {name}: {json.dumps(account, ensure_ascii=False)}")


if __name__ == "__main__":
    main(arguments.label("stages.models", __doc__))
