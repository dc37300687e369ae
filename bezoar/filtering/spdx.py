"""Licences by name: every usual spelling of one is the same licence, and none is guessed.

A licence has its SPDX id as name. A provider's terms of use are called `PROVIDER-terms`. A text
with a single word that is not understood is an unknown licence, which counts as stricter than any
other."""

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import combinations
from typing import Literal, NamedTuple

Answer = Literal["yes", "no", "unknown"]
STRICTNESS: dict[Answer, int] = {"yes": 0, "unknown": 1, "no": 2}
# The Hub's word for it.
UNKNOWN = "unknown"


class Licence(NamedTuple):
    """A licence and its answers. `name` is the SPDX id. `commercial` says whether what is made with
    it may be used to earn money. `sharing` says whether a set made with it may be passed on.
    `reason` explains an answer that is no plain yes. `hub` is its name in a card's front matter on
    the Hugging Face Hub."""

    name: str
    commercial: Answer
    sharing: Answer
    share_alike: bool
    attribution: bool
    reason: str
    hub: str

    @property
    def is_known(self) -> bool:
        """False for a text that names no licence that this module knows."""
        return self.hub != UNKNOWN

    @property
    def strictness(self) -> tuple[bool, int, int, bool, bool, str]:
        """A sort key from free to strict, with unknown licences last. The name breaks ties."""
        answers = STRICTNESS[self.commercial], STRICTNESS[self.sharing]
        return (not self.is_known, *answers, self.share_alike, self.attribution, self.name)


def _free(name: str, hub: str = "", attribution: bool = True) -> Licence:
    """Return a licence that allows every use."""
    return Licence(name, "yes", "yes", False, attribution, "", hub or name.lower())


def _alike(name: str, hub: str = "") -> Licence:
    """Return a licence that allows every use and asks for share alike."""
    return Licence(name, "yes", "yes", True, True, "", hub or name.lower())


def _bound(name: str, reason: str, hub: str = "other") -> Licence:
    """Return a licence with a rule on commercial use, `reason`, that a reader must judge."""
    return Licence(name, "unknown", "yes", False, False, reason, hub)


def _terms(provider: str) -> Licence:
    """Return a provider's terms of use."""
    return _bound(
        f"{provider}-terms",
        f"{provider}'s terms give its output away, but not to develop models that compete with "
        "its own; whether yours would is for you to judge",
    )


def _rail(name: str) -> Licence:
    """Return a licence with a list of forbidden uses, by its id on the Hub."""
    return _bound(
        name,
        "its list of forbidden uses holds for what is made from it and is to be passed on; whether "
        "your use is on it is for you to judge",
        name,
    )


def _llama(version: str, learning: bool) -> Licence:
    """Return a version of Llama's licence. `learning` says whether models may learn from its
    output."""
    rule = (
        "asks that models made with its output carry its name and licence"
        if learning
        else "does not let its output improve other language models"
    )
    return _bound(
        f"llama{version}",
        f"Llama's licence {rule}, and that very large companies ask Meta first; whether that "
        "concerns you is for you to judge",
        f"llama{version}",
    )


# Each under the spellings that data sets and model cards use for it, beside its own name.
# Creative Commons' are read off their letters.
_TABLE: tuple[tuple[Licence, tuple[str, ...]], ...] = (
    (
        _free("Apache-2.0"),
        ("ASL 2.0", "Apache Software License 2.0", "Apache License 2.0, January 2004"),
    ),
    (_free("MIT"), ("Expat",)),
    (_free("MIT-0", "other", attribution=False), ("MIT No Attribution",)),
    (_free("BSD-2-Clause"), ("BSD 2", "Simplified BSD", "BSD 2-Clause Simplified", "FreeBSD")),
    (
        _free("BSD-3-Clause"),
        ("BSD 3", "New BSD", "Modified BSD", "Revised BSD", "BSD 3-Clause New or Revised"),
    ),
    (_free("BSD-3-Clause-Clear"), ()),
    (_free("BSD"), ()),
    (_free("0BSD", "other", attribution=False), ("BSD Zero Clause",)),
    (_free("ISC"), ()),
    (_free("Zlib"), ()),
    (_free("BSL-1.0"), ("Boost Software License 1.0",)),
    (_free("PostgreSQL"), ()),
    (_free("NCSA"), ()),
    (_free("AFL-3.0"), ("Academic Free License 3.0",)),
    (_free("ECL-2.0"), ()),
    (_free("Artistic-2.0"), ()),
    (_free("MS-PL"), ()),
    (_free("OFL-1.1"), ("SIL Open Font License 1.1",)),
    (_free("Unlicense", attribution=False), ()),
    (_free("WTFPL", attribution=False), ()),
    (
        _free("ODC-By-1.0", "odc-by"),
        ("ODC-By", "Open Data Commons Attribution License (ODC-By) 1.0"),
    ),
    (_free("PDDL-1.0", "pddl", attribution=False), ("PDDL",)),
    (_free("CDLA-Permissive-1.0"), ()),
    (_free("CDLA-Permissive-2.0", attribution=False), ()),
    (
        _free("CC0-1.0", attribution=False),
        ("CC0", "CC Zero", "Creative Commons Zero", "Creative Commons CC0 1.0"),
    ),
    (_free("public-domain", "other", attribution=False), ()),
    (_free("etalab-2.0"), ("Licence Ouverte 2.0",)),
    (_free("OGL-UK-3.0", "other"), ("Open Government Licence 3.0", "OGL 3.0")),
    (_alike("ODbL-1.0", "odbl"), ("ODbL", "Open Database License", "Open Database License 1.0")),
    (_alike("CDLA-Sharing-1.0"), ()),
    (_alike("GFDL"), ("GNU Free Documentation License", "FDL")),
    (_alike("GFDL-1.2-only", "gfdl"), ("GFDL 1.2", "FDL 1.2")),
    (_alike("GFDL-1.2-or-later", "gfdl"), ("GFDL 1.2+",)),
    (_alike("GFDL-1.3-only", "gfdl"), ("GFDL 1.3", "FDL 1.3")),
    (_alike("GFDL-1.3-or-later", "gfdl"), ("GFDL 1.3+",)),
    (_alike("GPL"), ("GNU General Public License", "GNU GPL")),
    (_alike("GPL-2.0-only", "gpl-2.0"), ("GPL 2", "GNU GPL 2", "GNU General Public License 2")),
    (_alike("GPL-2.0-or-later", "gpl-2.0"), ("GPL 2+", "GNU General Public License 2 or later")),
    (_alike("GPL-3.0-only", "gpl-3.0"), ("GPL 3", "GNU GPL 3", "GNU General Public License 3")),
    (_alike("GPL-3.0-or-later", "gpl-3.0"), ("GPL 3+", "GNU General Public License 3 or later")),
    (_alike("LGPL"), ()),
    (_alike("LGPL-2.1-only", "lgpl-2.1"), ("LGPL 2.1", "GNU Lesser General Public License 2.1")),
    (_alike("LGPL-2.1-or-later", "lgpl-2.1"), ("LGPL 2.1+",)),
    (_alike("LGPL-3.0-only", "lgpl-3.0"), ("LGPL 3", "GNU Lesser General Public License 3")),
    (_alike("LGPL-3.0-or-later", "lgpl-3.0"), ("LGPL 3+",)),
    (_alike("AGPL-3.0-only", "agpl-3.0"), ("AGPL 3", "GNU Affero General Public License 3")),
    (_alike("AGPL-3.0-or-later", "agpl-3.0"), ("AGPL 3+",)),
    (_alike("MPL-2.0"), ("Mozilla Public License 2.0",)),
    (_alike("EPL-2.0"), ("Eclipse Public License 2.0",)),
    (_alike("EUPL-1.1"), ()),
    (_alike("EUPL-1.2"), ("European Union Public Licence 1.2",)),
    (_alike("OSL-3.0"), ()),
    (_alike("FAL-1.3", "other"), ("Free Art License 1.3", "LAL-1.3")),
    (_terms("OpenAI"), ()),
    (_terms("Anthropic"), ()),
    (_llama("2", learning=False), ("Llama 2 Community License",)),
    (_llama("3", learning=False), ("Llama 3 Community License",)),
    (_llama("3.1", learning=True), ("Llama 3.1 Community License",)),
    (_llama("3.2", learning=True), ("Llama 3.2 Community License",)),
    (_llama("3.3", learning=True), ("Llama 3.3 Community License",)),
    (_llama("4", learning=True), ("Llama 4 Community License",)),
    (_rail("gemma"), ("Gemma Terms of Use",)),
    (_rail("openrail"), ("OpenRAIL-M",)),
    (_rail("openrail++"), ("CreativeML Open RAIL++-M",)),
    (_rail("bigscience-openrail-m"), ()),
    (_rail("bigscience-bloom-rail-1.0"), ("BigScience BLOOM RAIL License 1.0",)),
    (_rail("creativeml-openrail-m"), ("CreativeML Open RAIL-M",)),
    (_rail("bigcode-openrail-m"), ("BigCode OpenRAIL-M v1",)),
)
# Creative Commons' that the Hub lists: letters -> versions
_ON_HUB = {
    "": ("2.0", "2.5", "3.0", "4.0"),
    "sa": ("3.0", "4.0"),
    "nc": ("2.0", "3.0", "4.0"),
    "nd": ("4.0",),
    "nc-sa": ("2.0", "3.0", "4.0"),
    "nc-nd": ("3.0", "4.0"),
}

# --- spellings -----------------------------------------------------------------------------------

_NOISE = {"license", "licence", "licensed", "under", "version", "v", "the", "a", "is", "this"}
_NOISE |= {"work", "dataset", "international", "unported", "generic", "universal", "deed"}
_WORDS = {"attribution": "by", "noncommercial": "nc", "sharealike": "sa", "noderivatives": "nd"}
_WORDS |= {"noderivs": "nd", "ccby": "cc-by"}
# Two letters behind the version name a country's edition of it, as in CC-BY-SA-3.0-DE.
_CC = re.compile(
    r"(?P<prefix>(?:creative-commons|cc)-)?by(?P<letters>(?:-(?:nc|sa|nd))*)"
    r"(?:-(?P<version>[1-4](?:\.\d)?)(?:-(?P<edition>[a-z]{2}|igo))?)?(?:-public)?"
)
_ADDRESSES: tuple[tuple[str, Callable[[re.Match[str]], str]], ...] = (
    (
        r"creativecommons\.org/licenses/([a-z-]+)/(\d\.\d)(?:/([a-z]{2})(?![a-z]))?[\w./-]*",
        lambda m: f"CC-{m[1]}-{m[2]}" + (f"-{m[3]}" if m[3] else ""),
    ),
    (r"creativecommons\.org/publicdomain/zero[\w./-]*", lambda m: "CC0-1.0"),
    (r"creativecommons\.org/publicdomain/mark[\w./-]*", lambda m: "public domain"),
    (r"apache\.org/licenses/license-2\.0[\w.]*", lambda m: "Apache-2.0"),
    (
        r"(?:opensource|spdx)\.org/licenses?/([\w.+-]+?)"
        r"(?:\.(?:html|json|txt|php))?/?(?=[\s)>,;]|$)",
        lambda m: m[1],
    ),
    (r"choosealicense\.com/licenses/([\w.-]+)/?", lambda m: m[1]),
    (
        r"gnu\.org/licenses/(?:old-licenses/)?([al]?gpl|fdl)-(\d\.\d)[\w.-]*",
        lambda m: f"{m[1]}-{m[2]}",
    ),
    (r"opendatacommons\.org/licenses/(odbl|pddl)[\w./-]*", lambda m: m[1]),
    (r"opendatacommons\.org/licenses/by[\w./-]*", lambda m: "ODC-By"),
    (
        r"cdla\.(?:dev|io)/(permissive|sharing)-(\d)-(\d)[\w./-]*",
        lambda m: f"CDLA-{m[1]}-{m[2]}.{m[3]}",
    ),
    (r"mozilla\.org/[\w/-]*mpl/2\.0/?", lambda m: "MPL-2.0"),
)


def _replace_addresses(stated: str) -> str:
    """Replace the address of a licence in a text by its name."""
    text = unicodedata.normalize("NFKC", stated).lower()
    for pattern, name in _ADDRESSES:
        text = re.sub(rf"<?https?://(?:www\.)?{pattern}>?", name, text)
    return text.lower()


def _key(stated: str) -> str:
    """Return a licence's name as a key, without case, spacing and filler words. Also dropped are an
    unknown address in brackets and the name of whoever put a work into the public domain. Any other
    word stays: it may take back what the name gives."""
    text = re.sub(r"\(https?://[^()\s]{1,200}\)", " ", _replace_addresses(stated)).strip()
    text = re.sub(r"\A\w{1,40}:\s?(?=public domain\Z)", "", text)
    text = re.sub(r"(?<=non)[- ](?=commercial)|(?<=share)[- ](?=alike)", "", text)
    text = re.sub(r"(?<=no)[- ](?=deriv)", "", text)
    text = re.sub(r"(?<=\d)\+(?!\w)|\bor any later\b", " or later ", text)
    text = re.sub(r"(?<=[a-z])v(?=\d)", " ", text)
    words = re.findall(r"\d+(?:\.\d+)*|[^\W\d_]+|\+\+", text)
    meaningful = (_WORDS.get(word, word) for word in words if word not in _NOISE)
    return "-".join(re.sub(r"(?<=\d)\.0\Z", "", word) for word in meaningful)


_KNOWN = {_key(name): licence for licence, others in _TABLE for name in (licence.name, *others)}


@cache
def find_licence(stated: str) -> Licence:
    """Return the licence that `stated` names in any usual spelling, or a licence of unknown
    answers."""
    if licence := _single(stated):
        return licence
    name = " ".join(stated.split()) or "not stated"
    reason = "no licence is stated, or none that bezoar/filtering/spdx.py knows"
    return Licence(name, "unknown", "unknown", False, False, reason, UNKNOWN)


def _single(stated: str) -> Licence | None:
    key = _key(stated)
    if key in _KNOWN:
        return _KNOWN[key]
    match = _CC.fullmatch(key)
    if match and (match["prefix"] or match["letters"] or match["version"]):
        return _creative_commons(match)
    long = re.fullmatch(r"(.{3,200}?)\s*\(([^()]{2,60})\)", _replace_addresses(stated).strip())
    if long and (licence := _single(long[1])) and licence == _single(long[2]):
        return licence
    return None


def _creative_commons(match: re.Match[str]) -> Licence:
    letters = [part for part in ("nc", "sa", "nd") if part in match["letters"].split("-")]
    version = match["version"] or ""
    version += ".0" if len(version) == 1 else ""
    plain = "-".join(filter(None, ["CC-BY", *map(str.upper, letters), version]))
    reasons = []
    if "nc" in letters:
        reasons.append("non-commercial use alone is allowed")
    if "nd" in letters:
        reasons.append("what is made from it may not be passed on")
    return Licence(
        name=plain + (f"-{match['edition'].upper()}" if match["edition"] else ""),
        commercial="no" if "nc" in letters else "yes",
        sharing="no" if "nd" in letters else "yes",
        share_alike="sa" in letters,
        attribution=True,
        reason="; ".join(reasons),
        hub=plain.lower() if version in _ON_HUB.get("-".join(letters), ()) else "other",
    )


# --- lists and expressions -----------------------------------------------------------------------

_EXCEPTION = re.compile(r"[\w.-]+-exception(?:-[\d.]+)?|linux-syscall-note", re.IGNORECASE)
OR, AND = r"\s+or\s+", r"\s+and\s+|\s*&\s*|(?<![:/])/(?!/)"
# So many pieces between commas are tried as one licence.
MOST = 4


def split(stated: str) -> list[Licence]:
    """Return the licences of a list "A, B" or of an SPDX expression, in order. "A OR B" stands for
    the freer of the two."""
    pieces = [piece for piece in re.split(r"\s*[,;|\n]\s*", stated.strip()) if piece] or [""]
    listed: list[Licence] = []
    while pieces:
        # "Apache License, Version 2.0" is one licence.
        size = next(
            (
                n
                for n in range(min(MOST, len(pieces)), 1, -1)
                if find_licence(" ".join(pieces[:n])).is_known
            ),
            1,
        )
        listed += _expression(" ".join(pieces[:size])) or [find_licence(pieces[0])]
        pieces = pieces[size:]
    return list(dict.fromkeys(listed))


def _expression(text: str) -> list[Licence] | None:
    """Return the licences of one SPDX expression, or None where a part of it is unknown."""
    text = text.strip()
    if single := _single(text):
        return [single]
    for word in (OR, AND):
        parts = _split_outside_brackets(text, word)
        if len(parts) > 1:
            return _combine([_expression(part) for part in parts], word)
    if excepted := re.fullmatch(r"(.+?)\s+with\s+(\S+)", text, re.IGNORECASE):
        return _expression(excepted[1]) if _EXCEPTION.fullmatch(excepted[2]) else None
    if text.startswith("(") and text.endswith(")"):
        return _expression(text[1:-1])
    # "MIT (CC BY 4.0)" names both.
    long = re.fullmatch(r"(.{3,200}?)\s*\(([^()]{2,60})\)", _replace_addresses(text))
    return _combine([_expression(part) for part in long.groups()], AND) if long else None


def _combine(parts: list[list[Licence] | None], word: str) -> list[Licence] | None:
    """Return the licences of all parts, or those of the freest part where `word` is OR."""
    readable = [part for part in parts if part]
    if len(readable) < len(parts):
        return None
    if word == OR:
        return min(readable, key=lambda part: strictest(part).strictness)
    return [licence for part in readable for licence in part]


def _split_outside_brackets(text: str, word: str) -> list[str]:
    """Split `text` at the matches of `word` that stand in no brackets."""
    parts, start = [], 0
    for match in re.finditer(word, text, re.IGNORECASE):
        before = text[: match.start()]
        if before.count("(") == before.count(")"):
            parts.append(text[start : match.start()])
            start = match.end()
    return [*parts, text[start:]]


def strictest(licences: Sequence[Licence]) -> Licence:
    """Return the licence that allows least. An unknown licence allows less than any known one."""
    return max(licences, key=lambda licence: licence.strictness)


# --- share alike ---------------------------------------------------------------------------------

# licence -> others under which what is made from it may be passed on
_ONWARD: dict[str, tuple[str, ...]] = {
    "CC-BY-SA-4.0": ("GPL-3.0", "FAL-1.3"),
    "FAL-1.3": ("CC-BY-SA-4.0",),
    "GPL-2.0-or-later": ("GPL-3.0", "AGPL-3.0"),
    "GPL-3.0": ("AGPL-3.0",),
    "LGPL-2.1": ("GPL-2.0", "GPL-3.0", "AGPL-3.0"),
    "LGPL-2.1-or-later": ("LGPL-3.0",),
    "LGPL-3.0": ("GPL-3.0", "AGPL-3.0"),
    "MPL-2.0": ("GPL-2.0", "GPL-3.0", "LGPL-2.1", "LGPL-3.0", "AGPL-3.0"),
    "EUPL-1.1": ("GPL-2.0", "OSL-3.0", "EUPL-1.2"),
    "EUPL-1.2": ("GPL-2.0", "GPL-3.0", "AGPL-3.0", "LGPL-2.1", "LGPL-3.0", "MPL-2.0", "OSL-3.0"),
    "GFDL-1.2-or-later": ("GFDL-1.3",),
    "GPL": ("GPL-2.0", "GPL-3.0", "AGPL-3.0"),
    "LGPL": ("LGPL-2.1", "LGPL-3.0", "GPL-2.0", "GPL-3.0", "AGPL-3.0"),
    "GFDL": ("GFDL-1.2", "GFDL-1.3"),
}
_CC_VERSIONS = ("1.0", "2.0", "2.1", "2.5", "3.0", "4.0")


def unjoinable(licences: Iterable[Licence]) -> list[tuple[str, str]]:
    """Return pairs of these licences that no single licence satisfies. No one work can be made of
    both.

    One of each pair asks for share alike. The other does so too, or forbids commercial use."""
    bound = {
        licence
        for licence in licences
        if licence.is_known and (licence.share_alike or licence.commercial == "no")
    }
    ordered = sorted(bound, key=lambda licence: licence.name)
    return [
        (first.name, second.name)
        for first, second in combinations(ordered, 2)
        if (first.share_alike or second.share_alike) and not _can_join(first, second)
    ]


def _can_join(first: Licence, second: Licence) -> bool:
    if first.share_alike and second.share_alike:
        return bool(_onward_licences(first.name) & _onward_licences(second.name))
    return first.commercial == second.commercial


def _onward_licences(name: str) -> set[str]:
    """Return the licences under which what is made from `name` may be passed on."""
    base = re.sub(r"-(?:only|or-later)\Z", "", name)
    onward = {base, *_ONWARD.get(name, ()), *_ONWARD.get(base, ())}
    if match := re.fullmatch(r"(CC-BY(?:-NC)?-SA)(?:-(\d\.\d))?(?:-[A-Z]+)?", name):
        family, version = match.groups()
        # From 2.0 on an adaptation may be under a later version of the same licence.
        later = {f"{family}-{v}" for v in _CC_VERSIONS if not version or v >= version}
        onward = {f"{family}-1.0"} if version == "1.0" else later
        onward |= {
            further for licence in onward for further in _ONWARD.get(licence, ()) if licence == name
        }
    return onward
