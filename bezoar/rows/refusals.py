"""Recognises answers that decline, by how they open, in seven languages.

A refusal in another language is not recognised, and each set's account says so (filter's
languages.json)."""

import re

# Characters of a text that are looked at, from its start
OPENING = 400

_ENGLISH = r"""\W*(?:unfortunately\W+|regrettably\W+|well\W+|(?:i\ am|i'm)\ afraid\ (?:that\ )?)*
    (?: (?:i\ am|i'm)?\ *(?:very\ |so\ |truly\ |really\ )*sorry\W+(?:but|i|as|this|that|the)\b
      | (?:i\ (?:do\ |must\ )?|my\ )apolog(?:i[sz]e|ies)\W+(?:but|i|as)\b
      | as\ an?\ (?:ai|artificial\ intelligence|(?:large\ )?language\ model)\b.{0,60}?
        \bi(?:'m|\ am)?\ *(?:do\ not|don't|can\ ?not|can't|not|unable|have\ no|must)\b
      | i(?:\ am|'m)?\ (?:can\ ?not|can't|will\ not|won't|(?:not\ |un)able\ to|must\ decline\ to)
        \ (?:be\ able\ to\ )?(?:help|assist|comply|fulfil|answer|provide|give|offer|create|generate|
            write|rewrite|complete|continue|produce|share|discuss|engage|support|access|do\ that)
      | i\ (?:do\ not|don't)\ have\ (?:access|enough\ (?:information|context)|the\ ability|
            (?:any\ )?(?:personal|information\ (?:on|about)|real-time))
    )"""
# What follows an excuse must decline: "I am sorry that your parcel is late" helps on.
_GERMAN = r"""\W*(?:leider\W+|bedauerlicherweise\W+|nun\W+)*
    (?: (?:es\ tut\ mir\ (?:sehr\ |wirklich\ )?leid|tut\ mir\ (?:sehr\ )?leid|
          (?:ich\ bitte\ um\ )?(?:entschuldigung|verzeihung)|entschuldigen\ sie)\W+
        (?:aber\W+|dass\W+|doch\W+)*(?:(?:dabei|hierbei|das|dies|diese\w*|leider)\W+)*
        (?:kann|darf|könnte|bin|habe)\ ich\b.{0,90}?\b(?:nicht|kein\w*|außerstande)\b
      | (?:es\ tut\ mir\ (?:sehr\ )?leid|tut\ mir\ leid|entschuldigung)\W+
        (?:aber\W+|dass\W+)*ich\b.{0,90}?\b(?:nicht|kein\w*)\b
      | als\ (?:eine?\ )?(?:ki|künstliche\ intelligenz|(?:großes\ )?sprachmodell|ki-\w+)\b.{0,60}?
        \b(?:kann|habe|bin|darf|besitze)\ ich\b.{0,60}?\b(?:nicht|kein\w*)\b
      | (?:kann|darf)\ ich\ (?:\w+\ ){0,4}?(?:nicht|keine?n?)\ (?:\w+\ ){0,4}?
        (?:helfen|beantworten|erfüllen|nachkommen|geben|schreiben|erstellen|unterstützen|weiterhelfen)
      | ich\ (?:kann|darf|werde)\ (?:\w+\ ){0,5}?(?:nicht|keine?n?)\ (?:\w+\ ){0,4}?
        (?:helfen|beantworten|erfüllen|nachkommen|geben|schreiben|erstellen|unterstützen|weiterhelfen)
      | ich\ bin\ (?:leider\ )?nicht\ in\ der\ lage
      | ich\ habe\ (?:leider\ )?keinen?\ (?:zugriff|zugang|möglichkeit|informationen)
    )"""
_FRENCH = r"""\W*(?:malheureusement\W+)*
    (?: (?:je\ suis\ (?:vraiment\ |sincèrement\ )?désolée?|désolée?|navrée?|
          je\ (?:vous\ )?prie\ de\ m'excuser|
          je\ m'excuse|toutes\ mes\ excuses|je\ regrette)\W+(?:mais\W+|car\W+)*
        (?:malheureusement\W+)?je\ (?:ne\ |n'|suis\ (?:dans\ l'incapacité|incapable))
      | en\ tant\ qu(?:e\ |')(?:ia|intelligence\ artificielle|(?:grand\ )?modèle\ de\ langage|
          assistante?\ (?:ia|virtuel\w*)).{0,60}?\bje\ (?:ne\ |n'|suis\ incapable)
      | je\ ne\ (?:peux|puis|suis)\ (?:malheureusement\ )?pas\ (?:en\ mesure\ |autorisée?\ |vous\ |
          d'|de\ |à\ |te\ )*(?:aider|répondre|fournir|donner|écrire|rédiger|accéder|satisfaire|
          créer|générer|accomplir|traiter)
      | je\ n'ai\ (?:malheureusement\ )?pas\ (?:accès|la\ possibilité|suffisamment|assez)
    )"""
_SPANISH = r"""\W*(?:lamentablemente\W+|desafortunadamente\W+|por\ desgracia\W+)*
    (?: (?:lo\ siento(?:\ mucho)?|lo\ lamento|perd[oó]n(?:e)?|disculp[ae]|mis\ disculpas)\W+
        (?:pero\W+|ya\ que\W+)*(?:yo\W+)?
        (?:no\ (?:puedo|podré|tengo|soy|estoy|me\ es)|me\ es\ imposible)
      | como\ (?:una?\ )?(?:ia|inteligencia\ artificial|(?:gran\ )?modelo\ de\ lenguaje|
          asistente\ (?:de\ ia|virtual)).{0,60}?\bno\ (?:puedo|tengo|soy)
      | no\ (?:puedo|podré|me\ es\ posible)\ (?:\w+\ ){0,2}?(?:ayud|respond|proporcion|dar|darte|
          darle|escrib|cre|gener|cumpl|ofrec|acced|complet|redact)\w*
      | no\ tengo\ (?:acceso|la\ capacidad|suficiente\ (?:información|contexto))
    )"""
_ITALIAN = r"""\W*(?:purtroppo\W+|sfortunatamente\W+)*
    (?: (?:mi\ (?:dis)?piace(?:\ molto)?|sono\ spiacente|chiedo\ scusa|mi\ scuso|mi\ rincresce)\W+
        (?:ma\W+|però\W+)*(?:purtroppo\W+)?(?:io\W+)?non\ (?:posso|sono|ho|mi\ è|riesco)
      | (?:come|in\ quanto)\ (?:una?\ )?(?:ia|intelligenza\ artificiale|
          (?:grande\ )?modello\ (?:di\ linguaggio|linguistico)|assistente\ (?:ia|virtuale)).{0,60}?
        \bnon\ (?:posso|ho|sono)
      | non\ (?:posso|sono\ in\ grado\ di|riesco\ a)\ (?:\w+\ ){0,2}?(?:aiut|rispond|forn|dar|
          scriv|cre|gener|soddisf|complet|accede|redig|offr)\w*
      | non\ ho\ (?:accesso|la\ possibilità|abbastanza|informazioni\ sufficienti)
    )"""
_PORTUGUESE = r"""\W*(?:infelizmente\W+|lamentavelmente\W+)*
    (?: (?:(?:eu\ )?(?:sinto|lamento)(?:\ muito)?|desculp[ae](?:-me)?|peço\ desculpas?|perdão|
          perdoe-me)\W+(?:mas\W+|porém\W+)*(?:infelizmente\W+)?(?:eu\W+)?
        não\ (?:posso|poderei|consigo|tenho|sou|estou|me\ é)
      | como\ (?:uma?\ )?(?:ia|inteligência\ artificial|(?:grande\ )?modelo\ de\ linguagem|
          assistente\ (?:de\ ia|virtual)).{0,60}?\bnão\ (?:posso|tenho|sou|consigo)
      | (?:eu\ )?não\ (?:posso|consigo|sou\ capaz\ de|estou\ apto\ a)\ (?:\w+\ ){0,2}?(?:ajud|
          respond|fornec|dar|escrev|cri|ger|cumpr|oferec|acess|complet|redig)\w*
      | (?:eu\ )?não\ tenho\ (?:acesso|a\ capacidade|informaç(?:ão|ões)\ suficientes?)
    )"""
_DUTCH = r"""\W*(?:helaas\W+|jammer\ genoeg\W+)*
    (?: (?:het\ spijt\ (?:me|mij)|sorry|mijn\ excuses|excuseer\ (?:me|mij)|excuses)\W+
        (?:maar\W+|dat\W+)*(?:helaas\W+)?(?:(?:daar|hier)\w*\W+)?
        (?:ik\ (?:kan|mag|ben|heb)|(?:kan|mag|ben|heb)\ ik)\b.{0,90}?\b(?:niet|geen)\b
      | als\ (?:een\ )?(?:ai|kunstmatige\ intelligentie|(?:groot\ )?taalmodel|ai-\w+)\b.{0,60}?
        \b(?:kan|heb|ben|mag)\ ik\b.{0,60}?\b(?:niet|geen)\b
      | (?:ik\ (?:kan|mag)|(?:kan|mag)\ ik)\ (?:\w+\ ){0,5}?(?:niet|geen)\ (?:\w+\ ){0,4}?
        (?:helpen|beantwoorden|voldoen|geven|schrijven|maken|verstrekken|ondersteunen)
      | ik\ ben\ (?:helaas\ )?niet\ in\ staat
      | ik\ heb\ (?:helaas\ )?geen\ (?:toegang|mogelijkheid|informatie)
    )"""
_DECLINING = {
    short: re.compile(pattern, re.VERBOSE)
    for short, pattern in {
        **{"en": _ENGLISH, "de": _GERMAN, "fr": _FRENCH, "es": _SPANISH, "it": _ITALIAN},
        **{"pt": _PORTUGUESE, "nl": _DUTCH},
    }.items()
}
# The languages in which a refusal is recognised, by ISO 639-1
KNOWN = tuple(_DECLINING)


def language(text: str) -> str:
    """Return the code of the language in which a text opens by declining, or "" if it does not."""
    opening = " ".join(text[:OPENING].replace("’", "'").casefold().split())
    return next((short for short, pattern in _DECLINING.items() if pattern.match(opening)), "")
