"""Generated messages to a clothing shop: twelve requests told apart by what is asked for, never by how it begins."""

import random
from typing import Final, Literal

#: How a message is worded: by one of few form letters, by a wording that is usual, or by a rare one.
Wording = Literal["form", "usual", "rare"]


def _any(texts: str) -> tuple[str, ...]:
    return tuple(texts.split(" | "))


#: The commonest first; of each what may be asked for: verbs and objects, every pair of which is a wording.
REQUESTS: Final[dict[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "delivery": (
        _any("track | follow | have news of | ask about | learn where to find | know when you ship"),
        _any("my parcel | the GARMENT | my order | the delivery | the second package | the courier"),
    ),
    "return": (
        _any("return | send back | bring back | give back | post back | drop off"),
        _any("it | this GARMENT | the GARMENT unworn | both pieces | what came yesterday | my whole order"),
    ),
    "size": (
        _any("know | ask | check | find out | learn | be told"),
        _any(
            "how the GARMENT fits | which size suits me | whether it runs small | how long the sleeves are | the "
            "length of the GARMENT | how wide the shoulders are"
        ),
    ),
    "exchange": (
        _any("exchange | swap | change | switch | trade | replace"),
        _any(
            "it for another color | the GARMENT for a larger one | the size | the GARMENT for a smaller one | it for "
            "the next size up | one piece for another cut"
        ),
    ),
    "refund": (
        _any("get | have | receive | ask for | wait for | see"),
        _any(
            "my money back | a refund | what i paid | the amount on my card | the payment returned | a credit for "
            "the GARMENT"
        ),
    ),
    "stock": (
        _any("order | buy | reserve | get | find | put aside"),
        _any(
            "the GARMENT once it is back | a GARMENT that is sold out | the last GARMENT in COLOR | one more GARMENT "
            "in COLOR | a GARMENT you no longer show | the COLOR GARMENT from the catalog"
        ),
    ),
    "damage": (
        _any("report | complain about | point out | show you | tell you about | send a picture of"),
        _any(
            "a hole in the GARMENT | the broken zip | a torn seam | a loose button | stains on the GARMENT | a "
            "missing thread"
        ),
    ),
    "cancel": (
        _any("cancel | stop | change | call off | withdraw | take back"),
        _any(
            "my order | the purchase | the order of the GARMENT | what i ordered today | the second order | the "
            "subscription"
        ),
    ),
    "discount": (
        _any("use | get | apply | redeem | enter | combine"),
        _any(
            "a discount | my voucher | the code from your letter | the coupon | two vouchers | a better price for "
            "the GARMENT"
        ),
    ),
    "invoice": (
        _any("have | get | receive | ask for | print | download"),
        _any(
            "an invoice | a receipt | the bill for the GARMENT | a copy of the bill | the paper for my taxes | the "
            "invoice in the name of my firm"
        ),
    ),
    "washing": (
        _any("wash | clean | iron | dry | care for | store"),
        _any(
            "the GARMENT | it without shrinking | wool like this | the COLOR GARMENT at home | the lining | it after "
            "rain"
        ),
    ),
    "praise": (
        _any("thank you for | recommend | praise | compliment you on | say how happy i am with | tell you how i love"),
        _any(
            "the GARMENT | your service | the quick help | the lovely GARMENT | the cut of the GARMENT | the soft "
            "fabric"
        ),
    ),
}

_GREETINGS: Final = _any(
    "hello , | hi , | dear team , | good morning , | good evening , | hi there , | to whom it may concern :"
)
_FRAMES: Final = _any(
    "i would like to | i want to | please let me | is it possible to | how can i | i need to | could i perhaps | i "
    "am writing to | i hope to | tell me how to"
)
_NEGATIONS: Final = _any("i do not want to | there is no need to | i am not writing to | i will not")
#: What else a message tells: of no request, though some of the words are those of one.
_FACTS: Final = _any(
    "i bought a COLOR GARMENT WHEN | the COLOR GARMENT came WHEN | WHO wore the GARMENT once | WHO gave me a GARMENT "
    "| my order has the number NUMBER | this is about the COLOR GARMENT | i paid by card WHEN | it is NUMBER days "
    "now | the GARMENT is for WHO | i saw the GARMENT in your window | the courier rang WHEN | the bill lay in the "
    "parcel | WHO told me of the discount WHEN | the size on the label is NUMBER | the zip is on the left side | i "
    "washed a GARMENT WHEN | WHO got a refund once | your shop has been praised by WHO | the subscription began WHEN "
    "| i have NUMBER vouchers at home | the stock of COLOR is low they say | WHO returned a GARMENT WHEN"
)
_THANKS: Final = _any("thank you | many thanks | best wishes | regards | thanks in advance | yours")
_WORDS: Final = {
    "GARMENT": _any(
        "coat | jacket | shirt | dress | skirt | sweater | scarf | vest | hoodie | suit | blouse | cardigan | parka "
        "| shawl | tunic | blazer"
    ),
    "COLOR": _any("black | white | red | navy | green | beige | gray | yellow | brown | purple"),
    "WHEN": _any("yesterday | last week | on monday | on friday | in june | two days ago | this morning | in autumn"),
    "WHO": _any("my sister | my father | a friend | my wife | my son | a colleague | my aunt | our neighbor"),
    "NUMBER": tuple(map(str, range(3, 60))),
}

_FORMS: Final = 3  # form letters of each request
_USUAL: Final = 6  # wordings, of the 36; the others are rare
_POLITE: Final = 0.85  # share of the messages with a greeting, and of those with thanks
_TOLD: Final = (4, 8)  # facts of a message, form letters aside
_NEGATED: Final = 0.05  # share of the messages, form letters aside, that also say what they do not ask for


def message(request: str, source: random.Random, *, form: float) -> tuple[str, Wording]:
    """A message that makes this request, and how it is worded.

    Args:
        form: chance of a form letter.
    """
    if source.random() < form:
        return _filled(_form_letter(request, source.randrange(_FORMS)), source), "form"
    phrase, usual = _phrase(request, source)
    sentences = [f"{fact} ." for fact in source.sample(_FACTS, source.randint(*_TOLD))]
    if source.random() < _NEGATED:
        other, _ = _phrase(source.choice([name for name in REQUESTS if name != request]), source)
        sentences.append(f"{source.choice(_NEGATIONS)} {other} .")
    sentences.insert(source.randint(0, len(sentences)), f"{source.choice(_FRAMES)} {phrase} .")
    greeting = [source.choice(_GREETINGS)] if source.random() < _POLITE else []
    thanks = [source.choice(_THANKS)] if source.random() < _POLITE else []
    return _filled(" ".join([*greeting, *sentences, *thanks]), source), "usual" if usual else "rare"


def _phrase(request: str, source: random.Random) -> tuple[str, bool]:
    """What is asked for, and whether that is among the usual wordings; the later, the rarer, by Zipf's law."""
    wordings = _wordings(request)
    place = source.choices(range(len(wordings)), [1 / (1 + rank) for rank in range(len(wordings))])[0]
    return wordings[place], place < _USUAL


def _wordings(request: str) -> list[str]:
    """Every verb with every object, the commonest first."""
    verbs, objects = REQUESTS[request]
    pairs = sorted((v + o, v, o) for v in range(len(verbs)) for o in range(len(objects)))
    return [f"{verbs[v]} {objects[o]}" for _, v, o in pairs]


def _form_letter(request: str, number: int) -> str:
    chosen = random.Random(f"{request}/{number}")
    one, other = chosen.sample(_FACTS, 2)
    asked = f"{chosen.choice(_FRAMES)} {_wordings(request)[number]}"
    return f"{chosen.choice(_GREETINGS)} {one} . {other} . {asked} . thank you"


def _filled(text: str, source: random.Random) -> str:
    return " ".join(source.choice(_WORDS[word]) if word in _WORDS else word for word in text.split())
