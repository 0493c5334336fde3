"""Makes the calls that ../run.py asks for with the published Python client; ../typescript/driver.mjs says how.

The argument is `blocking` or `async`, for the half of the client that makes them.
"""

import asyncio
import inspect
import json
import re
import sys

from unkey.py import Unkey, errors


def snake(name):
    return re.sub(r"(?<=[a-z0-9])([A-Z])", lambda found: "_" + found.group().lower(), name)


def as_written(value):
    """A body as Python's users write it: members in snake case, all but what is the customer's own."""
    if isinstance(value, list):
        return [as_written(item) for item in value]
    if isinstance(value, dict):
        return {snake(name): member if name == "meta" else as_written(member) for name, member in value.items()}
    return value


def plain(answer):
    return json.loads(getattr(answer, "result", answer).model_dump_json(by_alias=True))


CLIENTS = {}


async def call(ask, is_async):
    named = (ask["url"], ask["key"])
    if named not in CLIENTS:
        CLIENTS[named] = Unkey(root_key=ask["key"], server_url=ask["url"])
    client = CLIENTS[named]
    family, procedure = ask["operation"].split(".")
    methods = getattr(client, snake(family), None)
    method = getattr(methods, snake(procedure) + ("_async" if is_async else ""), None)
    if method is None:
        return {"absent": True}
    body = as_written(ask["body"])
    whole = "request" in inspect.signature(method).parameters
    answer = method(request=body) if whole else method(**(body or {}))
    if is_async:
        answer = await answer
    if not ask["pages"]:
        return {"result": plain(answer)}
    pages = []
    while answer is not None:
        pages.append(plain(answer)["data"])
        if len(pages) > 1000:
            raise RuntimeError("the iterator does not end")
        # Also in the async half: its `next` is an ordinary function that makes a blocking call.
        answer = answer.next()
    return {"pages": pages}


def told(error):
    data = getattr(error, "data", None)
    exported = getattr(errors, type(error).__name__, None) is type(error)
    return {
        "class": type(error).__name__ if exported else f"unexported {type(error).__name__}",
        "status": getattr(error, "status_code", None),
        "typed": data.error.type if data is not None else None,
        "text": getattr(error, "body", None) or repr(error),
        "cause": repr(error.__cause__),
    }


def main():
    is_async = sys.argv[1] == "async"
    loop = asyncio.new_event_loop()
    for line in sys.stdin:
        try:
            answer = loop.run_until_complete(call(json.loads(line), is_async))
        except Exception as error:  # whatever the client raises is what is asked about
            answer = {"error": told(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
