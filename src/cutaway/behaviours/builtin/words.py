"""The words that prompts are filled with.

They are common English words, most of them single tokens for GPT-2's tokenizer and all of them
for the shipped model's. Generators keep only those that are one token for the tokenizer at hand.
"""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


FEMALE_NAMES = _words("""
    Mary Anna Emma Alice Sarah Laura Julia Rachel Amy Kate Jane Lisa Linda Susan Karen Helen
    Maria Emily Jessica Jennifer Michelle Amanda Melissa Rebecca Stephanie Nicole Elizabeth
    Victoria Katherine Christina Samantha Hannah Rose Ruth Claire Diana Erin Grace Heather Holly
    Kelly Lauren Lily Lucy Margaret Megan Natalie Olivia Patricia Sara Sophie Vanessa Allison
    Amber Andrea Angela Ashley Barbara Caroline Catherine Elena
""")
"""Given names that are nearly always a woman's."""

MALE_NAMES = _words("""
    John Tom James Robert Michael David Richard Thomas Daniel Matthew Mark Paul Steven Andrew
    Kenneth George Joshua Kevin Brian Edward Ronald Timothy Jason Jeffrey Ryan Jacob Gary
    Nicholas Eric Jonathan Stephen Larry Justin Scott Brandon Benjamin Samuel Frank Gregory
    Raymond Alexander Patrick Jack Dennis Jerry Tyler Aaron Jose Henry Adam Douglas Nathan Peter
    Zachary Kyle Walter Harold Jeremy Carl Roger
""")
"""Given names that are nearly always a man's."""

PLACES = _words("""
    store park school house garden office library hospital restaurant station beach market
    theater church farm museum hotel bank airport village
""")
"""Places that two people can go to."""

OBJECTS = _words("""
    drink book ring ball letter phone hat gift key flower cup camera ticket bottle computer
    necklace basket toy picture coat
""")
"""Things that one person can give to another."""

EVENTS = _words("""
    war plan trip project battle strike dispute journey conflict reign mission contract voyage
    expedition investigation campaign treaty alliance feud occupation partnership rebellion
    siege struggle study tournament program marriage peace drought empire recession festival
    truce operation debate trial career pilgrimage reform
""")
"""Things that last from one year to another (after Hanna et al. 2023)."""

TITLES = _words("""
    Academic Action Advanced Air American Applied Art Asian Bank Basic Biology Board Brain
    British Budget Bureau Business Cancer Canadian Care Center Central Chief Children City Civil
    Climate College Committee Computer Council Credit Data Defense Democratic Design Development
    Digital Disease Division Drug Early Earth East Economic Education Electric Energy
    Engineering European Executive Family Farm Federal Film Finance Fire Food Foreign Forest
    Foundation Fund General German Global Gold Government Green Group Growth Health High
    Historical Home Hospital House Human Ice Image Income Indian Industrial Information
    Institute International Island Joint Journal Justice Junior Kids King Kitchen Knowledge
    Labor Land Language Law League Learning Legal Library Life Local Machine Management Marine
    Market Media Medical Memory Military Model Music National Natural Navy Network New Nuclear
    Ocean Office Officer Oil Online Open Operations Order Organization Pacific Park Patent
    People Personal Planning Police Policy Power Press Project Public Quality Quantum Quick
    Radio Railway Record Regional Research River Road Royal Rural Safety School Science Security
    Senior Service Social Society Space State Station Student Systems Tax Teacher Technical
    Theory Trade Training Transport Union United Universal University Urban User Valley Value
    Vehicle Video Village Visual Volunteer Water Weather Welfare Wildlife Women Wood World Young
    Youth Zone Zero
""")
"""Capitalised words of which the names of organisations are made."""

CAPITALS = {
    "France": "Paris", "Italy": "Rome", "Germany": "Berlin", "Spain": "Madrid",
    "Japan": "Tokyo", "China": "Beijing", "Russia": "Moscow", "Egypt": "Cairo",
    "Greece": "Athens", "Ireland": "Dublin", "Poland": "Warsaw", "Austria": "Vienna",
    "England": "London", "Cuba": "Havana", "Peru": "Lima", "Norway": "Oslo",
    "Sweden": "Stockholm", "Finland": "Helsinki", "Denmark": "Copenhagen", "Portugal": "Lisbon",
    "Hungary": "Budapest", "Belgium": "Brussels", "Turkey": "Ankara", "Iran": "Tehran",
    "Iraq": "Baghdad", "Syria": "Damascus", "Lebanon": "Beirut", "Jordan": "Amman",
    "Israel": "Jerusalem", "Kenya": "Nairobi", "Canada": "Ottawa", "Taiwan": "Taipei",
    "Libya": "Tripoli", "Serbia": "Belgrade", "Ukraine": "Kiev", "Afghanistan": "Kabul",
    "Venezuela": "Caracas", "Thailand": "Bangkok", "Scotland": "Edinburgh", "Wales": "Cardiff",
    "Chile": "Santiago", "Vietnam": "Hanoi", "Qatar": "Doha", "Ghana": "Accra",
    "Bulgaria": "Sofia", "Nepal": "Kathmandu", "Croatia": "Zagreb", "Somalia": "Mogadishu",
}  # fmt: skip
"""Countries and their capitals, both one word."""

OWNERS = _words("""
    lighthouse bakery library hospital station museum theater hotel farm school bank market
    restaurant church airport harbor castle cinema pharmacy garage embassy office factory palace
    zoo circus temple stadium university college bookstore court ranch mill gym clinic monastery
    warehouse
""")
"""Places that have a telephone; the first one's number is the memorised one."""

COMMON_WORDS = _words("""
    apple river table stone cloud window music paper bread winter summer horse mountain forest
    king queen bridge road silver gold green yellow purple orange black white red blue tree leaf
    grass rain snow wind fire water earth moon star sun light shadow door wall floor roof
    kitchen chair lamp clock mirror knife spoon plate glass milk butter cheese salt sugar honey
    lemon onion pepper rice corn wheat fish bird dog cat mouse wolf bear lion tiger snake frog
    spider bee ant butterfly shirt shoe glove belt button needle rope chain hammer nail saw
    ladder wheel boat ship train plane truck bus car bike engine map flag drum bell piano guitar
    song dance story poem page pen pencil ink board game card dice coin box bag bottle jar pot
    pan oven north south east west spring autumn morning evening night day week month hour
    minute circle square line point corner edge ring ball cube doctor lawyer farmer baker sailor
    soldier teacher painter singer driver pilot judge nurse clerk hunter
""")
"""Ordinary words, of which random sequences are made."""

DISTRACTORS = (
    "It was a sunny day.",
    "The weather was nice.",
    "Nobody was in a hurry.",
    "The birds were singing.",
    "It had rained in the morning.",
    "The streets were quiet.",
)
"""Sentences that have nothing to do with what follows."""

NAME_DISTRACTORS = (
    "Nobody had seen {C} that day.",
    "It was a good day for {C}.",
    "The day before, {C} had been sick.",
    "That morning, {C} was still asleep.",
)
"""Sentences about a third person, who takes no part in what follows."""
