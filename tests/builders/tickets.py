"""Support tickets of a German shop, and a model that writes such: what a user of another language
brings.

`write` makes the file that a German Excel saves. `reply` answers every prompt of the recipe in
German, as a model behind a server would. It knows the tickets' subjects and reads nothing but the
prompt.
"""

import csv
import hashlib
import random
import re
from pathlib import Path

# The thing as a subject and as an object.
GOODS = [
    ("der Wasserkocher", "den Wasserkocher"),
    ("die Kaffeemühle", "die Kaffeemühle"),
    ("das Bücherregal", "das Bücherregal"),
    ("der Bürostuhl", "den Bürostuhl"),
    ("die Stehlampe", "die Stehlampe"),
    ("der Schlafsack", "den Schlafsack"),
    ("die Nähmaschine", "die Nähmaschine"),
    ("das Fernglas", "das Fernglas"),
    ("der Rasenmäher", "den Rasenmäher"),
    ("die Bratpfanne", "die Bratpfanne"),
    ("das Kinderbett", "das Kinderbett"),
    ("der Rucksack", "den Rucksack"),
]
# By category: what is asked, a word that gives it away, and how it is answered.
SUBJECTS = {
    "Rechnung": [
        (
            "auf meiner Rechnung steht {a} zweimal, obwohl ich nur ein Stück bestellt habe",
            "zweimal",
            "Die doppelte Buchung haben wir gelöscht. Der Betrag für {b} wird innerhalb von drei "
            "Werktagen erstattet, und eine neue Rechnung liegt bereits in Ihrem Postfach.",
        ),
        (
            "ich brauche für {b} eine Rechnung, die auf meine Firma ausgestellt ist",
            "Firma",
            "Bitte tragen Sie die Anschrift der Firma unter Mein Konto ein. Danach können Sie die "
            "Rechnung für {b} dort noch einmal herunterladen.",
        ),
        (
            "der Rabatt wurde nicht abgezogen, als ich {b} bezahlt habe",
            "Rabatt",
            "Der Gutschein war beim Bezahlen noch nicht freigeschaltet. Wir ziehen den Rabatt für "
            "{b} nachträglich ab und überweisen Ihnen den Unterschied.",
        ),
    ],
    "Versand": [
        (
            "die Sendungsnummer ist ungültig, und {a} ist seit einer Woche unterwegs",
            "Sendungsnummer",
            "Der Spediteur hat das Paket neu erfasst. Unter der neuen Nummer, die Sie per E-Mail "
            "bekommen, sehen Sie, wo {a} gerade liegt.",
        ),
        (
            "ich möchte {b} an die Adresse meiner Nachbarin schicken lassen",
            "Nachbarin",
            "Solange das Paket nicht gepackt ist, lässt sich die Adresse in der Bestellung ändern. "
            "Wählen Sie dort Lieferadresse, und {a} geht an Ihre Nachbarin.",
        ),
        (
            "laut Bote wurde {a} zugestellt, doch vor meiner Tür liegt nichts",
            "zugestellt",
            "Fragen Sie bitte zuerst im Haus nach. Findet sich {a} bis morgen nicht, so eröffnen "
            "wir eine Nachforschung und schicken Ihnen Ersatz.",
        ),
    ],
    "Rückgabe": [
        (
            "{a} ist beschädigt angekommen, und ich möchte das Geld zurück",
            "beschädigt",
            "Schicken Sie uns bitte zwei Fotos vom Schaden. Sie erhalten dann ein Etikett, mit dem "
            "Sie {b} kostenlos zurücksenden, und das Geld nach dem Eingang.",
        ),
        (
            "wie lange kann ich {b} umtauschen, wenn die Verpackung schon geöffnet ist",
            "umtauschen",
            "Sie haben dreißig Tage Zeit, auch mit geöffneter Verpackung. Legen Sie den Zettel aus "
            "dem Karton bei, damit wir {b} der Bestellung zuordnen können.",
        ),
    ],
    "Konto": [
        (
            "seit gestern wird mein Passwort abgelehnt, und ich kann {b} nicht bezahlen",
            "Passwort",
            "Nach fünf falschen Eingaben wird das Konto für eine Stunde gesperrt. Setzen Sie das "
            "Passwort über den Link in unserer E-Mail zurück, dann können Sie {b} bezahlen.",
        ),
        (
            "ich möchte mein Konto löschen, aber {a} ist noch nicht geliefert",
            "löschen",
            "Offene Bestellungen müssen zuerst abgeschlossen sein. Sobald {a} bei Ihnen ist, "
            "löschen Sie das Konto unter Einstellungen, Datenschutz.",
        ),
    ],
}
GREETINGS = ["Guten Tag", "Hallo", "Sehr geehrtes Team", "Liebes Team", "Guten Morgen"]
ORDERS = [
    "Die Bestellung {n} habe ich im {m} aufgegeben.",
    "Meine Bestellnummer lautet {n}, der Kauf war im {m}.",
    "Gekauft wurde alles im {m} unter der Nummer {n}.",
    "Es geht um den Auftrag {n} vom {m}.",
]
MONTHS = ["Januar", "Februar", "März", "April", "Mai", "Juni", "Juli", "August", "September"]
CLOSINGS = [
    "Was soll ich jetzt tun?",
    "Können Sie mir bitte weiterhelfen?",
    "Ich freue mich über eine schnelle Antwort.",
    "Bitte melden Sie sich bald bei mir.",
    "Gibt es dafür eine einfache Lösung?",
    "Meine Familie wartet schon ungeduldig darauf.",
]


def ticket(draw: random.Random, category: str) -> tuple[str, str]:
    """Write a question of this category and its answer."""
    said, _, answer = draw.choice(SUBJECTS[category])
    subject, thing = draw.choice(GOODS)
    order = draw.choice(ORDERS).format(n=draw.randint(10000, 99999), m=draw.choice(MONTHS))
    question = (
        f"{draw.choice(GREETINGS)}, {said.format(a=subject, b=thing)}.\n\n"
        f"{order} {draw.choice(CLOSINGS)}"
    )
    return question, _sentence(answer, subject, thing)


def _sentence(answer: str, subject: str, thing: str) -> str:
    return f"Vielen Dank für Ihre Nachricht. {answer.format(a=subject, b=thing)}"


def write(path: Path, rows: int) -> None:
    """Write tickets as a German Excel saves them: semicolons, a byte order mark, CRLF."""
    draw = random.Random(rows)
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        table = csv.writer(file, delimiter=";", lineterminator="\r\n")
        table.writerow(["Nr", "Frage", "Antwort", "Rubrik"])
        for number in range(1, rows + 1):
            category = draw.choice(list(SUBJECTS))
            table.writerow([f"T-{number:04d}", *ticket(draw, category), category])


def reply(prompt: str) -> str:
    """Answer a prompt of the recipe in German."""
    draw = random.Random(hashlib.sha256(prompt.encode()).digest())
    if asked := re.search(r"Write (\d+) new examples[\s\S]*\(Category: (.*)\)", prompt):
        return "\n".join(
            f"<example>\n{ticket(draw, asked[2])[0]}\n</example>" for _ in range(int(asked[1]))
        )
    if prompt.endswith("The two prompts are"):
        return "not equal"
    if "<status>" in prompt:
        return _verdict(prompt)
    told = prompt.rpartition("#Given Prompt#:")[2]
    if "#Rewritten Prompt#:" in prompt:
        plain = told.partition("<bot>")[0].strip()
        return f"{plain} Nennen Sie mir dazu auch {draw.choice(STEPS)}."
    if "#Created Prompt#:" in prompt:
        return ticket(draw, _category(told))[0]
    return answered(prompt)


STEPS = [
    "zwei Möglichkeiten mit ihren Vorteilen und Nachteilen",
    "den nächsten Schritt, die Frist und einen Ansprechpartner",
    "die Kosten, die dabei für mich entstehen können",
]


def answered(prompt: str) -> str:
    """Answer what a prompt asks about its first known thing."""
    last = re.split(r"INSTRUCTION:\n|<human>: ", prompt)[-1]  # other answers may stand before it
    subject, thing = next((g for g in GOODS if g[0].split()[1] in last), ("die Ware", "die Ware"))
    answers = [a for each in SUBJECTS.values() for _, word, a in each if word in last]
    unknown = "Bitte nennen Sie uns die Nummer der Bestellung, dann prüfen wir das sofort."
    return _sentence(answers[0] if answers else unknown, subject, thing)


def _category(text: str) -> str:
    named = (name for name, each in SUBJECTS.items() if any(word in text for _, word, _ in each))
    return next(named, "Konto")


def _verdict(prompt: str) -> str:
    """Accept an answer that is about the thing that was asked about."""
    parts = re.findall(r"<(?:instruction|response)>([\s\S]*?)</", prompt)
    fits = answered(parts[0]) in parts[1]
    status, rating = ("Accept", 6) if fits else ("Reject", 2)
    reason = "Die Antwort passt zur Frage." if fits else "Die Antwort gehört zu einer anderen."
    return f"<status>{status}</status>\n<rating>{rating}</rating>\n<reason>{reason}</reason>"
