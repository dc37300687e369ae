"""Answers about texts from outside the world, made of nothing but the texts themselves.

There is no knowledge in them. They are the sentences of a context that share most words with the
question, and phrases made of a text's own key words.
"""

import random
import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from bezoar.world import facts

_STOP = frozenset(
    re.findall(
        r"\w+",
        """
        a about above after again all also am an and any are as at be because been before being
        below between both but by can could did do does doing down during each few for from further
        had has have having he her here hers him his how i if in into is it its just me more most
        my name no nor not now of off on once one only or other our out over own same she should so
        some such than that the their them then there these they this those through to too under
        until up very was we were what when where which while who whom whose why will with would
        you your give tell write list make following text passage please use used using input
        answer ask asked beginner best came case come describe differ explain expert five follows
        four generate get go good great identify introduces knowing like many matter matters
        means mention mentions much need new note provide question questions relate say said short
        steps suggest summarize take terms thing things think three time two want way ways well
        works worth
        """,
    )
)
LONGEST = 20_000  # characters read of a text: a hostile one may be huge

# Characters of scripts that put no blanks between words (Thai, Lao, Japanese, Chinese). A run of
# Chinese characters, of Katakana, or of Thai or Lao is taken for a key word.
_SPACELESS = "\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_RUN = re.compile("[\u3400-\u9fff々]{2,6}|[\u30a1-\u30ffー]{3,12}|[\u0e00-\u0eff]{4,12}")


class Wording(NamedTuple):
    """Phrases in one language that ask and answer about key words.

    `frequent` are the words by which the language is known. `joined` stands between key words.
    `deeper` is added to a prompt. `explained` has the key words and the answer.
    """

    frequent: frozenset[str]
    joined: str
    asks: tuple[str, ...]
    answers: str
    deeper: str
    explained: str


def _wording(frequent: str, *texts: str) -> Wording:
    joined, *asks, answers, deeper, explained = texts
    return Wording(frozenset(frequent.split()), joined, (*asks,), answers, deeper, explained)


_WORDINGS = {
    "de": _wording(
        "der die das und ist nicht ich ein eine mit dem den zu auf für sich von im auch wird meine "
        "mein bitte sie wie wir haben kann bei ihnen ihre einen noch was wo",
        " und ",
        "Erklären Sie einem Anfänger, was {} mit {} zu tun hat.",
        "Nennen Sie drei Dinge, die man über {} und {} wissen sollte.",
        "Worin unterscheidet sich {} von {}?",
        "Schreiben Sie eine kurze Nachricht, in der es um {} und {} geht.",
        "Kurz gesagt geht es hier um {0}, und zwar zusammen mit {1}. Zuerst wird geklärt, was {1} "
        "bedeutet, danach folgt, was das für {0} heißt.",
        "Sagen Sie auch, warum {} hier wichtig ist und was daraus für {} folgt.",
        "In der Aufgabe geht es um {}. Liest man sie so, dann ist die Antwort: {}",
    ),
    "fr": _wording(
        "le la les des et est une dans que qui pour pas sur avec du au sont ce il elle je vous "
        "nous mon ma votre comment où puis merci de un",
        " et ",
        "Expliquez à un débutant ce que {} a à voir avec {}.",
        "Citez trois choses qu'il faut savoir sur {} et sur {}.",
        "En quoi {} est-il différent de {} ?",
        "Écrivez un court message dans lequel il est question de {} et de {}.",
        "En bref, il est question ici de {0}, et aussi de {1}. On commence par dire ce que {1} "
        "veut dire, puis on revient à {0}.",
        "Dites aussi pourquoi {} est important ici et ce qui en découle pour {}.",
        "Dans cette question, il s'agit de {}. Si on la lit ainsi, la réponse est : {}",
    ),
    "es": _wording(
        "el los las una por con para del es se su como más pero está que mi mis no cómo dónde "
        "usted nos gracias puedo de la un",
        " y ",
        "Explique a un principiante qué tiene que ver {} con {}.",
        "Nombre tres cosas que hay que saber sobre {} y sobre {}.",
        "¿En qué se diferencia {} de {}?",
        "Escriba un mensaje corto en el que se hable de {} y de {}.",
        "En pocas palabras, aquí se trata de {0}, y también de {1}. Primero se dice qué significa "
        "{1}, y después se vuelve a {0}.",
        "Diga también por qué {} es importante aquí y qué se sigue de ello para {}.",
        "En esta pregunta se trata de {}. Si se lee así, la respuesta es: {}",
    ),
    "it": _wording(
        "il che di della sono una con gli le del più è nel alla anche non mio mia per come dove "
        "vorrei posso grazie un la",
        " e ",
        "Spieghi a un principiante che cosa c'entra {} con {}.",
        "Dica tre cose che bisogna sapere su {} e su {}.",
        "In che cosa {} è diverso da {}?",
        "Scriva un breve messaggio in cui si parla di {} e di {}.",
        "In breve, qui si tratta di {0}, e anche di {1}. Prima si dice che cosa significa {1}, poi "
        "si torna a {0}.",
        "Dica anche perché {} è importante qui e che cosa ne segue per {}.",
        "In questa domanda si tratta di {}. Se la si legge così, la risposta è: {}",
    ),
    "pt": _wording(
        "que não uma para com os em da é por mais dos ao foi são meu minha o a onde como obrigado "
        "posso você seu sua de um",
        " e ",
        "Explique a um principiante o que {} tem a ver com {}.",
        "Diga três coisas que é preciso saber sobre {} e sobre {}.",
        "Em que é que {} é diferente de {}?",
        "Escreva uma mensagem curta em que se fale de {} e de {}.",
        "Em poucas palavras, aqui trata-se de {0}, e também de {1}. Primeiro diz-se o que {1} "
        "significa, e depois volta-se a {0}.",
        "Diga também por que {} é importante aqui e o que isso significa para {}.",
        "Nesta pergunta trata-se de {}. Se for lida assim, a resposta é: {}",
    ),
    "nl": _wording(
        "de het een en dat niet te zijn voor met die op aan ook wordt ik mijn u uw wij hoe waar "
        "kan nog heb van",
        " en ",
        "Leg aan een beginner uit wat {} met {} te maken heeft.",
        "Noem drie dingen die je moet weten over {} en over {}.",
        "Waarin verschilt {} van {}?",
        "Schrijf een kort bericht dat gaat over {} en over {}.",
        "Kort gezegd gaat het hier om {0}, en ook om {1}. Eerst wordt gezegd wat {1} betekent, "
        "daarna komt wat dat voor {0} inhoudt.",
        "Zeg ook waarom {} hier belangrijk is en wat daaruit volgt voor {}.",
        "In deze vraag gaat het om {}. Wie het zo leest, komt op dit antwoord: {}",
    ),
    "ja": _wording(
        "",
        "と",
        "{}と{}の関係を初めての人に説明してください。",
        "{}と{}について、知っておくべきことを三つ挙げてください。",
        "{}は{}とどのように違いますか。",
        "{}と{}について短い案内文を書いてください。",
        "簡単に言うと、ここで問題になっているのは{0}と{1}です。まず{1}の意味を確かめ、そのあとで{0}に"
        "ついて考えます。",
        "また、{}がなぜ大切なのか、{}にどう関わるのかも述べてください。",
        "この問いは{}についてのものです。そのように読むと、答えは次のとおりです。{}",
    ),
    "zh": _wording(
        "",
        "和",
        "请向初学者解释{}与{}有什么关系。",
        "关于{}和{}，请说出三件值得知道的事情。",
        "{}与{}有什么不同？",
        "请写一段简短的话，介绍{}和{}。",
        "简单地说，这里讨论的是{0}和{1}。首先要弄清楚{1}的意思，然后再回到{0}。",
        "另外请说明{}为什么重要，以及它对{}意味着什么。",
        "这个问题是关于{}的。这样来看，答案是：{}",
    ),
    "ar": _wording(
        "",
        " و ",
        "اشرح لمبتدئ ما علاقة {} مع {} ولماذا يجب أن يعرف ذلك.",
        "اذكر ثلاثة أشياء يجب أن نعرفها عن {} وعن {}.",
        "ما الفرق بين {} وبين {}؟",
        "اكتب رسالة قصيرة تتحدث فيها عن {} وعن {}.",
        "باختصار، الحديث هنا عن {0} وكذلك عن {1}. نبدأ بتوضيح معنى {1} ثم نعود إلى {0}.",
        "اذكر أيضا لماذا {} مهم هنا وما الذي ينتج عنه بخصوص {}.",
        "هذا السؤال يتحدث عن {}. وإذا قرأناه هكذا فإن الجواب هو: {}",
    ),
    "ru": _wording(
        "",
        " и ",
        "Объясните новичку, как {} связано с тем, что такое {}.",
        "Назовите три вещи, которые нужно знать о том, что такое {} и {}.",
        "Чем {} отличается от того, что называют {}?",
        "Напишите короткое сообщение, в котором речь идёт о словах {} и {}.",
        "Коротко говоря, здесь речь идёт о том, что такое {0}, а также {1}. Сначала нужно понять, "
        "что значит {1}, а потом вернуться к тому, что значит {0}.",
        "Скажите также, почему {} здесь важно и что из этого следует для того, что значит {}.",
        "В этом вопросе речь идёт о словах {}. Если читать его так, то ответ такой: {}",
    ),
}
_SCRIPTS = {
    "ja": re.compile("[\u3040-\u30ff]"),
    "zh": re.compile("[\u4e00-\u9fff]"),
    "ar": re.compile("[\u0600-\u06ff]"),
    "ru": re.compile("[\u0400-\u04ff]"),
}


def wording(text: str) -> Wording | None:
    """Choose the wording of a text's language. None: English, or a language that has none here."""
    text = text[:LONGEST]
    # A language with a script of its own is known by it: a quarter of the letters is enough. The
    # others are told apart by their frequent words. Japanese comes before Chinese, because
    # it has Chinese characters too.
    for short, letters in _SCRIPTS.items():
        if not text.isascii() and 4 * len(letters.findall(text)) > sum(map(str.isalpha, text)):
            return _WORDINGS[short]
    tokens = Counter(re.findall(r"[^\W\d_]+", text.lower()))
    counts = {
        short: _count_among(tokens, candidate.frequent) for short, candidate in _WORDINGS.items()
    }
    best = max(counts, key=lambda short: counts[short])
    return _WORDINGS[best] if counts[best] > max(1, _count_among(tokens, _STOP)) else None


def _count_among(tokens: Counter[str], words: frozenset[str]) -> int:
    """Count the tokens that are among the words."""
    return sum(tokens[word] for word in words & tokens.keys())


def words(text: str) -> list[str]:
    """List the lower-case words and numbers of a text, its characters where it has no blanks."""
    if text.isascii():
        return facts.words(text)
    return re.findall(f"[{_SPACELESS}]|[^\\W_{_SPACELESS}]+", text.lower())


def length(text: str) -> int:
    """Count a text's words, two characters for one where a script puts no blanks between them."""
    return len(text.split()) + len(re.findall(f"[{_SPACELESS}]", text)) // 2


def key_words(text: str) -> list[str]:
    """Return the key words of a text (all but the common ones), in the order and the spelling of
    their first use."""
    spellings: dict[str, str] = {}
    text = text[:LONGEST]
    language = wording(text)
    common = _STOP | language.frequent if language else _STOP
    spaceless = language is not None and re.search(f"[{_SPACELESS}]", text)
    for word in (_RUN if spaceless else re.compile(r"[^\W\d_][\w'’-]*")).findall(text):
        if (spaceless or len(word) > 3) and word.lower() not in common:
            spellings.setdefault(word.lower(), word)
    return list(spellings.values())


def subjects(texts: Sequence[str], rng: random.Random, number: int) -> list[str]:
    """Draw `number` key words of the texts at random. If there are fewer, they repeat."""
    pool = key_words(" ".join(texts)) or ["this"]
    sample = rng.sample(pool, min(number, len(pool)))
    return [sample[i % len(sample)] for i in range(number)]


def sentences(text: str) -> list[str]:
    """Split a text into its sentences, without blank ones."""
    parts = re.split(r"(?<=[.!?؟।])\s+|(?<=[。！？])|\n+", text[:LONGEST])
    return [part.strip() for part in parts if part.strip()]


def answer(instruction: str, context: str) -> str:
    """Answer with the two sentences of the context nearest to the question, in their order.

    Without a context the answer is a sentence or two made of the instruction's key words.
    """
    question_words = {word.lower() for word in key_words(instruction)}
    context_sentences = sentences(context)
    if context_sentences:
        ranked = sorted(
            range(len(context_sentences)),
            key=lambda i: (
                -len(question_words & {w.lower() for w in key_words(context_sentences[i])}),
                i,
            ),
        )
        return " ".join(context_sentences[i] for i in sorted(ranked[:2]))
    words = key_words(instruction)
    if not words:
        return "There is nothing in the request that could be answered."
    if language := wording(instruction):
        return language.answers.format(words[0], words[-1] if len(words) > 1 else words[0])
    first, *rest = words[:5]
    others = f", together with {_and(rest)}" if rest else ""
    return (
        f"In short, the matter here is {first}{others}. "
        f"An answer begins with what {words[-1]} means and then turns to {first}."
    )


def explanation(query: str, target: str) -> str:
    """Explain the answer `target` by the key words of the query."""
    words = key_words(query)[:4] or ["this"]
    if language := wording(query):
        return language.explained.format(language.joined.join(words), target)
    return (
        f"The task is about {_and(words)}. Reading it with that in mind, the answer is: {target}"
        + ("" if target.rstrip().endswith((".", "!", "?")) else ".")
    )


def new_instruction(first: str, second: str, rng: random.Random, like: str = "") -> str:
    """Write an instruction about two key words or topics, in the language of the text `like`."""
    if language := wording(like):
        return rng.choice(language.asks).format(first, second)
    return rng.choice(
        (
            "Explain to a beginner what {} has to do with {}.",
            "Name three things worth knowing about {} and relate them to {}.",
            "In what way does {} differ from {}?",
            "Describe how {} came to matter for {}.",
            "Write a short note that introduces {} and mentions {}.",
            "Which questions about {} would an expert on {} ask first?",
        )
    ).format(first, second)


def deeper(instruction: str, operation: str, rng: random.Random) -> str:
    """Make an instruction more demanding by one operation of Evol-Instruct."""
    first, second = subjects([instruction], rng, 2)
    if language := wording(instruction):
        return f"{instruction.rstrip()} {language.deeper.format(first, second)}"
    return (
        instruction.rstrip()
        + " "
        + {
            "add_constraints": f"Answer in five sentences at most, the first of them on {first}.",
            "deepen": f"Also say why {first} matters here and what follows from it for {second}.",
            "concretize": f"Take one particular case of {first} and name its details.",
            "increase_reasoning": f"Go through it in several steps, from {first} to {second}.",
            "complicate_input": f"Take this record into account: {{{first}: 1, {second}: 2}}.",
        }.get(operation, f"Say more about {first}.")
    )


def _and(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
