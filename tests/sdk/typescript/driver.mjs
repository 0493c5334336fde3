// Makes the calls that ../run.py asks for, one JSON object a line, with the published client as its users do.
//
//     {"operation": "keys.getKey", "body": {…}, "url": "http://…", "key": "unkey_…" or null, "pages": false}
//
// The answer is {"result": …}, {"pages": [[…], …]}, {"absent": true} or {"error": {"class", "status", "typed", "text"}},
// where "typed" is the error's type as read from the decoded error object, null where the class has none.
//
// The first argument names the package to import: the client that @unkey/ratelimit carries inside itself is another one.

import { createInterface } from "node:readline";
import { createRequire } from "node:module";

const [folder] = process.argv.slice(2);
const require = createRequire(new URL(folder, import.meta.url));
const { Unkey } = require("@unkey/api");
const errors = require("@unkey/api/models/errors");

const plain = (page) => page.result ?? page;

async function call({ operation, body, url, key, pages }) {
  const unkey = new Unkey(key === null ? { serverURL: url } : { serverURL: url, rootKey: key });
  const [family, procedure] = operation.split(".");
  if (typeof unkey[family]?.[procedure] !== "function") {
    return { absent: true };
  }
  const first = await unkey[family][procedure](body);
  if (!pages) {
    return { result: plain(first) };
  }
  if (!first[Symbol.asyncIterator]) {
    return { absent: true };
  }
  const seen = [];
  for await (const page of first) {
    seen.push(plain(page).data);
    if (seen.length > 1000) {
      throw new Error("the iterator does not end");
    }
  }
  return { pages: seen };
}

function told(error) {
  const name = error?.constructor?.name ?? "nothing";
  const exported = errors[name];
  return {
    class: exported && error instanceof exported && error instanceof errors.UnkeyError ? name : `unexported ${name}`,
    status: error?.statusCode ?? null,
    typed: error?.error?.type ?? null,
    text: error?.body ?? String(error),
    cause: String(error?.cause ?? ""),
  };
}

for await (const line of createInterface({ input: process.stdin })) {
  let answer;
  try {
    answer = await call(JSON.parse(line));
  } catch (error) {
    answer = { error: told(error) };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
