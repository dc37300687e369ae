"""What a text's language is taken for, which languages rows may be in, and how they decline."""

import json
from pathlib import Path

import pytest

from bezoar import params
from bezoar.filtering import gates
from bezoar.llm.embedded import judge, outside
from bezoar.preflight import seeds
from bezoar.rows import languages, refusals
from bezoar.rows.files import write_json, write_jsonl
from bezoar.rows.records import Seed
from tests.builders.rows import sample
from tests.conftest import DATA, ROOT

SETTINGS = params.load(ROOT)
GATES = SETTINGS.filter.gates

TICKETS = {
    "de": "Wo bleibt mein Paket? Ich habe die Jacke vor zwei Wochen bestellt und nichts gehört.",
    "en": "Where is my parcel? I ordered the jacket two weeks ago and have not heard anything.",
    "fr": "Où est mon colis ? J'ai commandé la veste il y a deux semaines et je n'ai rien reçu.",
    "es": "¿Dónde está mi paquete? Pedí la chaqueta hace dos semanas y todavía no sé nada.",
    "pl": "Gdzie jest moja paczka? Zamówiłem kurtkę dwa tygodnie temu i nadal nic nie wiem.",
    "ru": "Где моя посылка? Я заказал куртку две недели назад и до сих пор ничего не знаю.",
    "ja": "荷物はどこですか。二週間前に注文したジャケットがまだ届いていません。",
    "zh": "我的包裹在哪里？我两周前订购了夹克，到现在还没有收到任何消息。",
    "ar": "أين طردي؟ طلبت السترة قبل أسبوعين ولم أسمع أي شيء حتى الآن.",
    "th": "พัสดุของฉันอยู่ที่ไหน ฉันสั่งแจ็กเก็ตเมื่อสองสัปดาห์ก่อน",
}


@pytest.mark.parametrize("short", TICKETS)
def test_a_ticket_is_told_and_passes_where_its_language_is_allowed(short: str) -> None:
    text = TICKETS[short]
    assert languages.detect(text) == short
    other = "en" if short != "en" else "de"
    found = gates.fault(sample(instruction=text, response=text), GATES, [other])
    assert found and found.reason == "wrong_language"
    assert found.details["language"] == languages.name(short)
    for allowed in ([short], [other, short], None):
        assert gates.fault(sample(instruction=text, response=text), GATES, allowed) is None


def test_code_tables_and_names_are_of_no_language() -> None:
    for text in (
        "def total(prices):\n    return sum(prices.values())",
        "```\nfür jede Zeile eine Rechnung und nicht mehr als das\n```",
        "| a | b |\n|---|---|\n| 1 | 2 |",
        "Uranium, Thorium, Plutonium",
        "",
    ):
        assert not languages.foreign(text, ["en"], GATES.language_words, GATES.language_odds)


def test_seeds_say_what_rows_may_be_in() -> None:
    mixed = [TICKETS["de"]] * 60 + [TICKETS["en"]] * 38 + [TICKETS["fr"]] * 2 + ["PayPal"] * 20
    counts = languages.of_texts(mixed)
    assert counts == {"de": 60, "en": 38, "fr": 2, "": 20}
    assert languages.of_seeds(counts) == ["de", "en"]
    assert gates.allowed_languages(GATES, ["de", "en"]) == ["de", "en"]
    assert gates.allowed_languages(GATES, []) is None  # no seed tells one
    assert gates.allowed_languages(GATES.model_copy(update={"language": "any"}), ["de"]) is None
    assert gates.allowed_languages(GATES.model_copy(update={"language": ["fr"]}), ["de"]) == ["fr"]


def test_languages_are_named_by_code_or_in_english() -> None:
    assert [*map(languages.code, ("de", "German", "pt-BR", "nb", "zh_CN"))] == [
        *("de", "de", "pt", "no", "zh"),
    ]
    with pytest.raises(ValueError, match="did you mean German"):
        languages.code("Germn")


@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason="needs the shared data")
def test_english_rows_of_dolly_are_not_taken_for_others() -> None:
    with (DATA / "dolly/databricks-dolly-15k.jsonl").open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file][:3000]
    texts = [row[field] for row in rows for field in ("instruction", "response")]
    words, odds = GATES.language_words, GATES.language_odds
    assert sum(bool(languages.foreign(text, ["en"], words, odds)) for text in texts) <= 3


@pytest.mark.parametrize(
    ("short", "text"),
    [
        ("de", "Es tut mir leid, aber dabei kann ich Ihnen nicht helfen."),
        ("de", "Leider kann ich diese Frage nicht beantworten."),
        ("de", "Als KI-Sprachmodell kann ich keine persönlichen Daten einsehen."),
        ("fr", "Je suis désolé, mais je ne peux pas vous aider."),
        ("fr", "En tant que modèle de langage, je n'ai pas d'opinion."),
        ("es", "Lo siento, pero no puedo ayudarte con eso."),
        ("es", "Como modelo de lenguaje, no tengo opiniones."),
        ("it", "Mi dispiace, ma non posso aiutarti."),
        ("it", "Purtroppo non posso rispondere a questa domanda."),
        ("pt", "Desculpe, mas não posso ajudar com isso."),
        ("pt", "Infelizmente, não consigo responder a esta pergunta."),
        ("nl", "Het spijt me, maar daar kan ik niet mee helpen."),
        ("nl", "Helaas kan ik deze vraag niet beantwoorden."),
    ],
)
def test_a_refusal_is_known_in_its_language(short: str, text: str) -> None:
    assert refusals.language(text) == short
    found = gates.fault(sample(response=text), GATES)
    assert found and found.reason == "refusal"


@pytest.mark.parametrize(
    "text",
    [
        "Es tut mir leid, dass Ihr Paket verspätet ist. Wir schicken heute ein neues.",
        "Leider ist die Jacke ausverkauft. Wir erstatten Ihnen den Betrag.",
        "Je suis désolé pour ce retard. Votre colis arrive demain.",
        "Lo siento mucho. Su paquete llegará mañana.",
        "Mi dispiace per il ritardo. Il pacco arriva domani.",
        "Desculpe pelo atraso. A encomenda chega amanhã.",
        "Sorry voor de vertraging. Uw pakket komt morgen aan.",
    ],
)
def test_an_excuse_that_helps_is_no_refusal(text: str) -> None:
    assert refusals.language(text) == ""


def test_what_a_check_does_not_know_is_said() -> None:
    assert gates.gates_off(["de", "ja", "th"]) == {"refusal": ["ja", "th"], "truncated": ["th"]}
    assert gates.gates_off(["en", "fr"]) == {}


def test_a_cut_answer_is_seen_without_blanks_between_words() -> None:
    text = "荷物は昨日発送しましたので、二日以内に届く予定です。" * 8
    assert gates.fault(sample(response=text), GATES.model_copy(update={"loop_share": 1.0})) is None
    cut = gates.fault(sample(response=text[:-1]), GATES.model_copy(update={"loop_share": 1.0}))
    assert cut and cut.reason == "truncated"


@pytest.mark.parametrize("short", ["de", "fr", "es", "ja", "zh", "ar", "ru"])
def test_the_simulated_models_answer_in_the_rows_language(short: str) -> None:
    text = TICKETS[short]
    answer = outside.answer(text, "")
    assert languages.detect(f"{answer} {answer}") == short
    assert judge.judge_response(text, answer).accept
    assert not judge.judge_response(text, text).accept


def test_preflight_says_what_the_free_checks_would_do_to_seeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def put(texts: list[str]) -> None:
        rows = [
            Seed(
                id=str(n),
                instruction=text,
                context="",
                response=text,
                category="open_qa",
                source="mine",
                licence="",
            )
            for n, text in enumerate(texts)
        ]
        write_jsonl("data/fetch/dolly/seeds.jsonl", rows)
        write_json("data/fetch/dolly/source.json", {"source": "local"})

    assert seeds.look(SETTINGS, "dolly") is None
    put([TICKETS["de"]] * 20)
    good = seeds.look(SETTINGS, "dolly")
    assert good and good.level == "ok" and "20 seeds in German" in good.message
    put([*[TICKETS["de"]] * 18, *["x" * 9000] * 3])
    bad = seeds.look(SETTINGS, "dolly")
    assert bad and bad.level == "warning" and "overlong 3" in bad.message
    assert "filter.gates.characters" in bad.do
