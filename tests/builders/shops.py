"""Support tickets of shops in French and in Arabic, and a model that answers in what it is shown.

`rows` makes tickets. `reply` is what a model behind a server says. It reads nothing but the prompt,
and writes the recipe's marks as models of other languages do: with their own quotes, digits and
full stops.
"""

import hashlib
import random
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Shop:
    """Hold the words of one language. A ticket is about a thing, and has a subject: what is asked,
    with its answer."""

    things: tuple[str, ...]
    subjects: dict[str, tuple[tuple[str, str], ...]]
    orders: tuple[str, ...]
    closings: tuple[str, ...]
    more: tuple[str, ...]
    thanks: str
    unknown: str
    refusal: str
    equal: tuple[str, ...]
    fits: tuple[str, str]


FRENCH = Shop(
    things=(
        "la bouilloire",
        "le moulin à café",
        "l’étagère",
        "la lampe de bureau",
        "le sac à dos",
        "la machine à coudre",
        "la tondeuse",
        "le lit d’enfant",
        "la poêle",
        "la tente",
    ),
    subjects={
        "facturation": (
            (
                "{x} figure deux fois sur ma facture alors que je ne l’ai commandée qu’une fois",
                "Nous avons annulé la seconde ligne. Le montant payé pour {x} vous sera remboursé "
                "sous trois jours ouvrés.",
            ),
            (
                "la remise promise n’a pas été appliquée quand j’ai payé {x}",
                "Le code n’était pas encore actif. Nous déduisons la remise de {x} et vous "
                "envoyons « Avoir » par courriel.",
            ),
        ),
        "livraison": (
            (
                "le suivi ne bouge plus depuis une semaine et {x} n’est toujours pas arrivé",
                "Le transporteur a réenregistré le colis. Vous recevrez un nouveau numéro, qui "
                "vous dira où se trouve {x}.",
            ),
            (
                "je voudrais faire livrer {x} chez ma voisine",
                "Tant que le colis n’est pas préparé, vous pouvez changer l’adresse dans votre "
                "commande ; {x} partira alors chez votre voisine.",
            ),
        ),
        "retour": (
            (
                "{x} est arrivé abîmé et je voudrais être remboursé",
                "Envoyez-nous deux photos du dommage. Vous recevrez une étiquette gratuite pour "
                "renvoyer {x}, puis le remboursement.",
            ),
        ),
    },
    orders=("Ma commande porte le n° {n}.", "J’ai passé la commande {n} le mois dernier."),
    closings=("Que dois-je faire ?", "Pouvez-vous m’aider ?", "Merci de me répondre vite !"),
    more=("le délai et la personne à contacter", "les frais à prévoir", "deux solutions possibles"),
    thanks="Bonjour, merci pour votre message.",
    unknown="Indiquez-nous le numéro de la commande, et nous vérifierons tout de suite.",
    refusal="Je suis désolé, mais je ne peux pas répondre à cette demande.",
    equal=("Not equal.", "not equal", "**Not Equal**"),
    fits=("La réponse correspond à la question.", "La réponse parle d’autre chose."),
)
ARABIC = Shop(
    things=(
        "غلاية الماء",
        "مطحنة القهوة",
        "رف الكتب",
        "مصباح المكتب",
        "حقيبة الظهر",
        "ماكينة الخياطة",
        "جزازة العشب",
        "سرير الطفل",
        "المقلاة",
        "الخيمة",
    ),
    subjects={
        "الفواتير": (
            (
                "ظهرت {x} مرتين في فاتورتي مع أنني طلبت قطعة واحدة فقط",
                "لقد ألغينا السطر المكرر، وسيعاد المبلغ الذي دفعتموه مقابل {x} خلال ثلاثة أيام "
                "عمل.",
            ),
            (
                "لم يخصم التخفيض الموعود عندما دفعت ثمن {x}",
                "لم يكن الرمز مفعلا بعد. سنخصم التخفيض من ثمن {x} ونرسل إليكم إشعارا بالبريد "
                "الإلكتروني.",
            ),
        ),
        "الشحن": (
            (
                "رقم التتبع لا يعمل منذ أسبوع ولم تصل {x} حتى الآن",
                "أعاد الناقل تسجيل الطرد، وستصلكم رسالة فيها رقم جديد يبين أين توجد {x} الآن.",
            ),
            (
                "أريد إرسال {x} إلى عنوان جارتي بدلا من عنواني",
                "ما دام الطرد لم يجهز بعد فيمكنكم تغيير العنوان في صفحة الطلب، وعندئذ ترسل {x} "
                "إلى جارتكم.",
            ),
        ),
        "الإرجاع": (
            (
                "وصلت {x} تالفة وأريد استرداد المبلغ",
                "أرسلوا إلينا صورتين للضرر من فضلكم. ستحصلون على ملصق مجاني لإرجاع {x} ثم على "
                "المبلغ كاملا.",
            ),
        ),
    },
    orders=("رقم طلبي هو {n}.", "اشتريتها الشهر الماضي برقم {n}."),
    closings=("ماذا أفعل الآن؟", "هل يمكنكم مساعدتي؟", "أرجو الرد سريعا!"),
    more=("المدة المتوقعة والشخص المسؤول", "التكاليف المترتبة علي", "حلين ممكنين على الأقل"),
    thanks="شكرا جزيلا على رسالتكم.",
    unknown="نرجو ذكر رقم الطلب لكي نتحقق من الأمر فورا.",
    refusal="عذرا، لا أستطيع الإجابة عن هذا الطلب.",
    equal=("Not equal", "not equal.", "غير متساويين (not equal)"),
    fits=("الإجابة مناسبة للسؤال.", "الإجابة عن سؤال آخر."),
)
SHOPS = {"fr": FRENCH, "ar": ARABIC}
EASTERN = str.maketrans("0123456789", "٠١٢٣٤٥٦٧٨٩")


def ticket(draw: random.Random, shop: Shop, category: str) -> tuple[str, str]:
    """Write a question of this category and its answer."""
    asked, answer = draw.choice(shop.subjects[category])
    thing, number = draw.choice(shop.things), str(draw.randint(10000, 99999))
    number = number.translate(EASTERN) if shop is ARABIC and draw.random() < 0.5 else number
    order = draw.choice(shop.orders).format(n=number)
    question = f"{asked.format(x=thing)}.\n{order} {draw.choice(shop.closings)}"
    return question[0].upper() + question[1:], f"{shop.thanks} {answer.format(x=thing)}"


def rows(language: str, count: int) -> list[dict[str, str]]:
    """Make tickets of one language."""
    draw, shop = random.Random(f"{language}/{count}"), SHOPS[language]
    made = []
    for number in range(count):
        category = draw.choice(list(shop.subjects))
        question, answer = ticket(draw, shop, category)
        id = f"{language}-{number}"
        made.append({"id": id, "instruction": question, "response": answer, "category": category})
    return made


def reply(prompt: str) -> str:
    """Answer a prompt of the recipe in the language of what it shows."""
    draw = random.Random(hashlib.sha256(prompt.encode()).digest())
    if "<status>" in prompt:
        return _verdict(prompt)
    if asked := re.search(r"Write (\d+) new examples[\s\S]*\(Category: (.*)\)", prompt):
        shop = next(shop for shop in SHOPS.values() if asked[2] in shop.subjects)
        return "\n".join(
            f"<example>\n{ticket(draw, shop, asked[2])[0]}\n</example>"
            for _ in range(int(asked[1]))
        )
    shop = _shop(prompt)
    if prompt.endswith("The two prompts are"):
        return draw.choice(shop.equal)
    told = prompt.rpartition("#Given Prompt#:")[2].partition("<bot>")[0].strip()
    if "#Rewritten Prompt#:" in prompt:
        joined = "Précisez aussi" if shop is FRENCH else "واذكروا أيضا"
        return f"#Rewritten Prompt#:\n{told} {joined} {draw.choice(shop.more)}."
    if "#Created Prompt#:" in prompt:
        return ticket(draw, shop, draw.choice(list(shop.subjects)))[0]
    return shop.refusal if draw.random() < 0.1 else _answer(prompt, shop)


def _shop(prompt: str) -> Shop:
    return ARABIC if len(re.findall("[\u0600-\u06ff]", prompt)) > 20 else FRENCH


def _answer(prompt: str, shop: Shop) -> str:
    """Answer what a prompt asks about its first known thing."""
    thing = next((each for each in shop.things if each in prompt.lower()), shop.things[0])
    for pairs in shop.subjects.values():
        for asked, answer in pairs:
            if asked.replace("{x}", thing) in prompt[:1].lower() + prompt[1:] or all(
                part.strip() in prompt for part in asked.split("{x}") if len(part) > 3
            ):
                return f"{shop.thanks} {answer.format(x=thing)}"
    return f"{shop.thanks} {shop.unknown}"


def _verdict(prompt: str) -> str:
    """Accept an answer that is about the thing that was asked about, and no refusal."""
    asked, said = re.findall(r"<(?:instruction|response)>([\s\S]*?)</", prompt)[:2]
    shop = _shop(asked)
    fits = _answer(asked, shop).split() == said.split()
    rating = "6" if fits else "2"
    rating = rating.translate(EASTERN) if shop is ARABIC else rating
    status = "Accept" if fits else "Reject"
    return (
        f"<status>{status}</status>\n<rating>{rating}</rating>\n"
        f"<reason>{shop.fits[0 if fits else 1]}</reason>"
    )
