"""The JSON values of scenarios: references to variables, and what a reply is compared with."""

import json
import re

REFERENCE = re.compile(r"\$([A-Za-z_][A-Za-z0-9_.]*)\Z")
INSIDE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_.]*)\}")
CAPTURE = "$capture:"
MATCHERS = ("$any", "$int", "$string")


class BadScenario(Exception):
    """The scenario file itself is wrong."""


class Mismatch(Exception):
    """Internal: two JSON values differ."""


def _no_duplicates(pairs):
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("duplicate key in object")
    return result


def _no_constants(name):
    raise ValueError("%s is not JSON" % name)


DECODER = json.JSONDecoder(object_pairs_hook=_no_duplicates,
                           parse_constant=_no_constants)


def compact(value, limit=600):
    text = json.dumps(value, ensure_ascii=False, sort_keys=True,
                      separators=(",", ":"))
    return text if len(text) <= limit else text[:limit] + "...(%d chars)" % len(text)


def kind(value):
    """JSON kind of a value; 5 and 5.0 are different kinds on purpose."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "float"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def lookup(name, env):
    if name not in env:
        raise BadScenario("undefined variable %r" % name)
    return env[name]


def interpolate(text, env):
    """Replace every ${name} inside a text."""
    return INSIDE.sub(lambda m: str(lookup(m.group(1), env)), text)


def resolve(value, env):
    """Replace references in a value that is going to be sent."""
    if isinstance(value, str):
        if value.startswith("$$"):
            return value[1:]
        whole = REFERENCE.match(value)
        if whole:
            return lookup(whole.group(1), env)
        return interpolate(value, env)
    if isinstance(value, list):
        return [resolve(item, env) for item in value]
    if isinstance(value, dict):
        if set(value) == {"$repeat", "times"}:
            return interpolate(value["$repeat"], env) * value["times"]
        return {interpolate(key, env): resolve(item, env)
                for key, item in value.items()}
    return value


def match(expected, actual, env, path="reply", unordered=False):
    """Raise Mismatch unless actual is what expected describes.

    Returns env with the captures made on the way added."""
    if isinstance(expected, str):
        if expected == "$any":
            return env
        if expected.startswith(CAPTURE):
            return {**env, expected[len(CAPTURE):]: actual}
        if expected == "$int":
            if kind(actual) != "integer":
                raise Mismatch("%s: wanted an integer, got %s" % (path, compact(actual)))
            return env
        if expected == "$string":
            if kind(actual) != "string":
                raise Mismatch("%s: wanted a string, got %s" % (path, compact(actual)))
            return env
        expected = resolve(expected, env)
        # a reference may stand for any kind of value: fall through
    if isinstance(expected, dict) and set(expected) == {"$repeat", "times"}:
        expected = resolve(expected, env)
    if isinstance(expected, dict) and len(expected) == 1 and "$json" in expected:
        if kind(actual) != "string":
            raise Mismatch("%s: wanted a string holding JSON, got %s" % (path, compact(actual)))
        try:
            inner = DECODER.decode(actual)
        except ValueError:
            raise Mismatch("%s: not JSON text: %s" % (path, compact(actual)))
        return match(expected["$json"], inner, env, path + "(parsed)", unordered)
    if isinstance(expected, dict) and expected and set(expected) <= {"$contains", "$excludes"}:
        if kind(actual) != "array":
            raise Mismatch("%s: wanted an array, got %s" % (path, compact(actual)))
        env = _match_subset(expected.get("$contains", []), list(actual), env, path, unordered)
        for item in expected.get("$excludes", []):
            for got in actual:
                if _matches(item, got, env, unordered):
                    raise Mismatch("%s: must not contain %s" % (path, compact(got)))
        return env
    if kind(expected) != kind(actual):
        raise Mismatch("%s: wanted %s (%s), got %s (%s)"
                       % (path, compact(expected), kind(expected), compact(actual), kind(actual)))
    if isinstance(expected, dict):
        wanted = {interpolate(key, env): item for key, item in expected.items()}
        missing = sorted(set(wanted) - set(actual))
        extra = sorted(set(actual) - set(wanted))
        if missing or extra:
            raise Mismatch("%s: missing keys %s, extra keys %s" % (path, missing, extra))
        for key, item in wanted.items():
            env = match(item, actual[key], env, "%s.%s" % (path, key), unordered)
        return env
    if isinstance(expected, list):
        if len(expected) != len(actual):
            raise Mismatch("%s: wanted %d items, got %d" % (path, len(expected), len(actual)))
        if unordered:
            return _match_subset(expected, list(actual), env, path, unordered)
        for index, (item, got) in enumerate(zip(expected, actual)):
            env = match(item, got, env, "%s[%d]" % (path, index), unordered)
        return env
    if expected != actual:
        raise Mismatch("%s: wanted %s, got %s" % (path, compact(expected), compact(actual)))
    return env


def _matches(expected, actual, env, unordered):
    try:
        match(expected, actual, env, "", unordered)
        return True
    except Mismatch:
        return False


def _match_subset(expected, remaining, env, path, unordered):
    """Find a different element of remaining for every expected item."""
    if not expected:
        return env
    for index, got in enumerate(remaining):
        try:
            inner = match(expected[0], got, env, path, unordered)
            return _match_subset(expected[1:], remaining[:index] + remaining[index + 1:],
                                 inner, path, unordered)
        except Mismatch:
            continue
    raise Mismatch("%s: no element like %s" % (path, compact(expected[0])))
