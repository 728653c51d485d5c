"""The label store in SQL: tables, kinds of events, and the questions that `labels.py` puts to them."""

from svp.sealed import Insert, Verb, only_grows

_TABLES = """
CREATE TABLE classes (
    number   INTEGER PRIMARY KEY,
    name     TEXT NOT NULL UNIQUE,
    event    INTEGER NOT NULL REFERENCES events DEFERRABLE INITIALLY DEFERRED
);
CREATE TABLE questions (
    event    INTEGER PRIMARY KEY REFERENCES events DEFERRABLE INITIALLY DEFERRED,
    round    INTEGER NOT NULL,
    origin   TEXT NOT NULL
);
CREATE TABLE asked (
    question INTEGER NOT NULL REFERENCES questions,
    rank     INTEGER NOT NULL,
    id       INTEGER NOT NULL,
    score    REAL,
    PRIMARY KEY (question, rank),
    UNIQUE (id, question)
) WITHOUT ROWID;
CREATE TABLE answers (
    answer   INTEGER PRIMARY KEY,
    event    INTEGER NOT NULL REFERENCES events DEFERRABLE INITIALLY DEFERRED,
    question INTEGER NOT NULL,
    id       INTEGER NOT NULL,
    who      TEXT NOT NULL,
    kind     TEXT NOT NULL,
    label    INTEGER REFERENCES classes,
    at       TEXT NOT NULL,
    CHECK ((kind = 'label') = (label IS NOT NULL)),
    FOREIGN KEY (id, question) REFERENCES asked (id, question)
);
CREATE INDEX answers_by_event ON answers (event);
""" + only_grows("classes", "questions", "asked", "answers")

_OF_PEOPLE = """
CREATE INDEX answers_by_person ON answers (id, who, answer);
CREATE TABLE undos (
    event    INTEGER PRIMARY KEY REFERENCES events DEFERRABLE INITIALLY DEFERRED,
    undone   INTEGER NOT NULL UNIQUE REFERENCES events
);
CREATE TABLE examples (
    id       INTEGER PRIMARY KEY,
    key      TEXT NOT NULL UNIQUE,
    print    TEXT NOT NULL,
    event    INTEGER NOT NULL REFERENCES events DEFERRABLE INITIALLY DEFERRED
);
CREATE INDEX examples_by_event ON examples (event);
CREATE TABLE states (
    entry    INTEGER PRIMARY KEY,
    id       INTEGER NOT NULL REFERENCES examples,
    state    TEXT NOT NULL,
    event    INTEGER NOT NULL REFERENCES events DEFERRABLE INITIALLY DEFERRED
);
CREATE INDEX states_by_event ON states (event);
""" + only_grows("undos", "examples", "states")

_CLASSES = Verb(
    ("number", "name"),
    "SELECT number, name FROM classes WHERE event = ?1 ORDER BY number",
    (Insert("INSERT INTO classes VALUES (:number, :name, :event)"),),
)
ANSWER = ("question", "id", "who", "kind", "label", "at")


_PUT_ANSWER = Insert("INSERT INTO answers VALUES (NULL, :event, :question, :id, :who, :kind, :label, :at)")
_TELL = Verb(
    ANSWER,
    f"SELECT {', '.join(ANSWER)} FROM answers WHERE event = ?1 ORDER BY answer",
    (_PUT_ANSWER,),
)

_SEEN_LATER = """
CREATE TABLE prints (
    id       INTEGER PRIMARY KEY REFERENCES examples,
    print    TEXT NOT NULL,
    event    INTEGER NOT NULL REFERENCES events DEFERRABLE INITIALLY DEFERRED
);
CREATE INDEX prints_by_event ON prints (event);
CREATE INDEX examples_unread ON examples (id) WHERE print = '';
""" + only_grows("prints")

SCHEMA = {1: _TABLES, 2: _OF_PEOPLE, 3: "", 4: _SEEN_LATER}  # by the format that they came with; 3 has another verb

VERBS = {
    "create": _CLASSES,
    "classes": _CLASSES,
    "ask": Verb(
        ("round", "origin", "id", "score"),
        "SELECT round, origin, id, score FROM questions JOIN asked ON question = event WHERE event = ?1 ORDER BY rank",
        (
            Insert("INSERT OR IGNORE INTO questions VALUES (:event, :round, :origin)"),
            Insert("INSERT INTO asked VALUES (:event, :rank, :id, :score)"),
        ),
    ),
    "tell": _TELL,
    "pull": _TELL,
    "undo": Verb(
        ("undone", *ANSWER),
        f"""SELECT undone, {", ".join(ANSWER)} FROM undos LEFT JOIN answers ON answers.event = ?1
            WHERE undos.event = ?1 ORDER BY answer""",
        (
            Insert("INSERT OR IGNORE INTO undos VALUES (:event, :undone)"),
            Insert(_PUT_ANSWER.statement, lambda row: row["id"] is not None),  # else nobody had said anything before
        ),
    ),
    "pool": Verb(
        ("state", "id", "key", "print"),
        """SELECT 'new' AS state, id, key, print FROM examples WHERE event = ?1
           UNION ALL SELECT state, id, NULL, NULL FROM states WHERE event = ?1 ORDER BY id, state""",
        (
            Insert("INSERT INTO examples VALUES (:id, :key, :print, :event)", lambda row: row["state"] == "new"),
            Insert("INSERT INTO states VALUES (NULL, :id, :state, :event)", lambda row: row["state"] != "new"),
        ),
    ),
    "read": Verb(
        ("id", "print"),
        "SELECT id, print FROM prints WHERE event = ?1 ORDER BY id",
        (Insert("INSERT INTO prints VALUES (:id, :print, :event)"),),
    ),
}

# --- questions ----------------------------------------------------------------------------------------------------

# An answer row that still holds: of that person about that example none came later, and it was not withdrawn.
_HOLDS = """EXISTS (SELECT 1 FROM answers AS a WHERE a.id = asked.id AND a.kind <> 'withdrawn' {since} AND NOT EXISTS (
    SELECT 1 FROM answers AS b WHERE b.id = a.id AND b.who = a.who AND b.answer > a.answer))"""
_ANSWERED = _HOLDS.format(since="")
_ANSWERED_SINCE = _HOLDS.format(since="AND a.question >= asked.question")

EARLIER = f"SELECT round, {_ANSWERED} FROM asked JOIN questions ON event = question WHERE id = ? LIMIT 1"

SAID = "SELECT kind, label, question FROM answers WHERE id = ? AND who = ? ORDER BY answer DESC LIMIT 1"

STATES = "SELECT id, state FROM (SELECT id, state, max(entry) FROM states GROUP BY id)"

# Who cannot be looked at cannot be labelled.
_HERE = f"id NOT IN (SELECT id FROM ({STATES}) WHERE state <> 'here')"

OPEN = f"""
SELECT round, origin, id, score, at FROM asked JOIN questions ON questions.event = question JOIN events USING (event)
WHERE question = (SELECT question FROM asked WHERE NOT {_ANSWERED} AND {_HERE} ORDER BY question LIMIT 1)
AND NOT {_ANSWERED_SINCE} AND {_HERE} ORDER BY rank"""

UNASKED = f"SELECT id FROM examples WHERE id NOT IN (SELECT id FROM asked) AND {_HERE} ORDER BY id"

# What remains of one question.
LEFT = f"""
SELECT round, origin, id, score, at FROM asked JOIN questions ON questions.event = question JOIN events USING (event)
WHERE round = ? AND NOT {_ANSWERED_SINCE} AND {_HERE} ORDER BY rank"""

# The last question with an example; where a round is given, that of this round.
LAST_ASKED = """
SELECT question, at FROM asked JOIN questions ON questions.event = question JOIN events USING (event)
WHERE id = ?1 AND (?2 IS NULL OR round = ?2) ORDER BY question DESC LIMIT 1"""

TIMES_ASKED = "SELECT count(*) FROM asked JOIN questions ON event = question WHERE id = ? AND origin <> ?"

LAST_TELL = """
SELECT event, at FROM events WHERE verb IN ('tell', 'pull') AND event NOT IN (SELECT undone FROM undos)
AND (?1 IS NULL OR EXISTS (SELECT 1 FROM answers WHERE answers.event = events.event AND who = ?1))
ORDER BY event DESC LIMIT 1"""

# Who answered what in a tell.
TOLD = "SELECT question, id, who FROM answers WHERE event = ? GROUP BY id, who ORDER BY max(answer)"

# What a person said before an event and to which question, as far as it was not taken back.
SAID_BEFORE = """
SELECT question, kind, label FROM answers JOIN events USING (event) WHERE id = ? AND who = ? AND event < ?
AND verb IN ('tell', 'pull') AND event NOT IN (SELECT undone FROM undos) ORDER BY answer DESC LIMIT 1"""

# Everything that is asked and waits for an answer, question by question; where nobody has to answer anything for the first time,
# what the last question asks again.
WAITING = f"""
SELECT asked.id, round, origin, {_ANSWERED} FROM asked JOIN questions ON questions.event = question
WHERE question >= coalesce(
    (SELECT question FROM asked WHERE NOT {_ANSWERED} AND {_HERE} ORDER BY question LIMIT 1), (SELECT max(question) FROM asked))
AND NOT {_ANSWERED_SINCE} AND {_HERE} ORDER BY question, rank"""

# Each person's answer about each example: SQLite takes the other columns from the row of the maximum. {of}: which examples.
ALL_SAID = """
SELECT * FROM (SELECT id, who, kind, label, at, max(answer) AS answer FROM answers {of} GROUP BY id, who)
WHERE kind <> 'withdrawn' ORDER BY id, answer"""

# The row in which a person said what they say now: after an undo not the undo's own, but the one that it brought back.
_FIRST_SAID = """(SELECT max(b.answer) FROM answers AS b JOIN events USING (event) WHERE b.id = said.id AND b.who = said.who
    AND verb <> 'undo' AND b.event NOT IN (SELECT undone FROM undos))"""

# Whose answers about what hold that came by a pull.
PULLED = f"""
SELECT said.id, said.who FROM ({ALL_SAID.format(of="")}) AS said JOIN answers AS first ON first.answer = {_FIRST_SAID}
JOIN events ON events.event = first.event WHERE events.verb = 'pull'"""

# What each rule takes the label of the most of.
WEIGHT = {"majority": "count(*)", "latest": f"max({_FIRST_SAID})"}

STANDINGS = f"""
WITH said AS (
    SELECT id, who, CASE WHEN kind IN ('skip', 'unsure') THEN 'open' ELSE kind END AS kind, label FROM ({ALL_SAID})),
votes AS (
    SELECT id, kind, label, CASE kind WHEN 'open' THEN 0 ELSE {{weight}} END AS weight,
        CASE kind WHEN 'open' THEN 0 ELSE count(*) END AS people
    FROM said GROUP BY id, kind, label),
ranked AS (
    SELECT id, kind, label, weight, max(weight) OVER here AS best, sum(people) OVER here AS people
    FROM votes WINDOW here AS (PARTITION BY id))
SELECT id, CASE WHEN count(*) > 1 THEN 'tie' ELSE kind END, CASE WHEN count(*) = 1 THEN label END, people
FROM ranked WHERE weight = best GROUP BY id ORDER BY id"""

UP_TO = "SELECT DISTINCT id FROM asked JOIN questions ON event = question WHERE round <= ?"

# When each answer was given; an undo is no answer.
TIMES = "SELECT who, answers.at FROM answers JOIN events USING (event) WHERE verb <> 'undo' ORDER BY answer"

ROUNDS = f"""
WITH firsts AS (
    SELECT question, CASE WHEN {_ANSWERED_SINCE} THEN (
        SELECT min(event) FROM answers
        WHERE answers.id = asked.id AND answers.event > asked.question AND kind <> 'withdrawn') END AS first
    FROM asked),
counts AS (
    SELECT question, count(*) AS asked, count(first) AS answered, max(first) AS last FROM firsts GROUP BY question)
SELECT round, asked, answered, origin, began.at, CASE WHEN asked = answered THEN ended.at END
FROM counts JOIN questions ON questions.event = question JOIN events AS began ON began.event = question
LEFT JOIN events AS ended ON ended.event = last ORDER BY question"""

# The fingerprint of each example: of one that was only listed at first, from when it was read.
_PRINTS = """
SELECT examples.id, key, coalesce(prints.print, examples.print) AS print FROM examples LEFT JOIN prints USING (id)"""

PRINT = f"SELECT print FROM ({_PRINTS}) WHERE id = ?"

WITH_PRINTS = f"SELECT print, min(id) FROM ({_PRINTS}) WHERE print IN (SELECT value FROM json_each(?)) GROUP BY print"

EXAMPLES = f"""
SELECT seen.id, key, print, coalesce(state, 'here') FROM ({_PRINTS}) AS seen LEFT JOIN ({STATES}) AS now USING (id)
ORDER BY seen.id"""

UNREAD = f"SELECT EXISTS (SELECT 1 FROM examples WHERE print = '' AND id NOT IN (SELECT id FROM prints) AND {_HERE})"
