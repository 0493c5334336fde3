// @unkey/ratelimit, @unkey/hono and @unkey/nextjs, unmodified, against the keyward of ../run.py (sdk-notes.md sections 6
// and 7). The last two always call https://api.unkey.com; here `fetch` takes such calls to keyward, which is one of the
// two ways for a self-hoster (the other: name and certificate of that host).

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { after, before, beforeEach, test } from "node:test";

const require = createRequire(import.meta.url);
const { Unkey } = require("@unkey/api");
const { Overrides, Ratelimit } = require("@unkey/ratelimit");
const { unkey } = require("@unkey/hono");
const { withUnkey } = require("@unkey/nextjs");
const { Hono } = require("hono");
const { NextRequest } = require("next/server");

const environment = (name) => process.env[name] ?? assert.fail(`${name} is not set: run ../run.py`);
const url = environment("KEYWARD_URL");
const rootKey = environment("KEYWARD_ROOT_KEY");
const limitedKey = environment("KEYWARD_LIMITED_KEY");
const unknownKey = environment("KEYWARD_UNKNOWN_KEY");
const weakKey = environment("KEYWARD_WEAK_KEY");

const realFetch = globalThis.fetch;
// Paths of the calls that left this process since the test began.
let asked = [];

before(() => {
  globalThis.fetch = async (request, init) => {
    const target = new URL(request.url ?? request);
    asked.push(target.pathname);
    if (target.host === "api.unkey.com") {
      return realFetch(new Request(new URL(target.pathname, url), request), init);
    }
    return realFetch(request, init);
  };
});
after(() => {
  globalThis.fetch = realFetch;
});
beforeEach(() => {
  asked = [];
});

const admin = new Unkey({ serverURL: url, rootKey });
const minute = 60_000;
const meta = { plan: "pro", nested: { "ü": [1, 2.5, null] } };

async function issue(members) {
  const { data: api } = await admin.apis.createApi({ name: "for the frameworks" });
  const { data } = await admin.keys.createKey({ apiId: api.apiId, ...members });
  asked = [];
  return data;
}

// @unkey/ratelimit

test("a refusal is remembered until its reset, and asked again after it", async () => {
  const limiter = new Ratelimit({ rootKey, baseUrl: url, namespace: "memory", limit: 1, duration: "1s" });
  let last;
  do {
    last = await limiter.limit("ada");
  } while (last.success);
  assert.ok(last.reset > Date.now() - 2000 && last.reset < Date.now() + 1000, "reset is a time in ms: a window's end");
  const before = asked.length;
  while (Date.now() < last.reset) {
    const remembered = await limiter.limit("ada");
    if (Date.now() < last.reset) {
      assert.equal(remembered.success, false);
      assert.equal(asked.length, before, "the server is not asked while the refusal lasts");
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  await limiter.limit("ada");
  assert.ok(asked.length > before, "and is asked once it is over");
});

test("limits count across instances, cost included, and another identifier has its own", async () => {
  const limiter = () => new Ratelimit({ rootKey, baseUrl: url, namespace: "shared", limit: 10, duration: "1h" });
  assert.equal((await limiter().limit("ada", { cost: 4 })).remaining, 6);
  assert.equal((await limiter().limit("ada", { cost: 6 })).remaining, 0);
  assert.equal((await limiter().limit("ada")).success, false);
  assert.equal((await limiter().limit("bob")).remaining, 9);
});

test("whatever goes wrong reaches onError as a plain Error", async () => {
  for (const key of [weakKey, unknownKey, limitedKey]) {
    const seen = [];
    const limiter = new Ratelimit({
      rootKey: key, baseUrl: url, namespace: "never made", limit: 1, duration: minute,
      onError: (error, identifier) => {
        seen.push([error.constructor.name, identifier]);
        return { success: true, limit: 0, remaining: 0, reset: 0 };
      },
    });
    assert.equal((await limiter.limit("ada")).success, true);
    assert.deepEqual(seen, [["Error", "ada"]]);
  }
});

test("overrides are set, found by pattern, listed, obeyed, deleted", async () => {
  const settings = { rootKey, baseUrl: url };
  const limiter = new Ratelimit({ ...settings, namespace: "overridden", limit: 100, duration: minute });
  await limiter.limit("ada@example.com");
  const all = new Overrides(settings);
  const namespace = "overridden";
  const set = await all.setOverride({ namespace, identifier: "*@example.com", limit: 1, duration: minute });
  const got = await all.getOverride({ namespace, identifier: "bob@example.com" });
  const { overrideId } = set.data;
  assert.deepEqual(got.data, { overrideId, identifier: "*@example.com", limit: 1, duration: minute });
  const listed = await all.listOverrides({ namespace });
  assert.deepEqual((listed.result ?? listed).data.map((entry) => entry.overrideId), [overrideId]);
  assert.equal((await limiter.limit("bob@example.com")).limit, 1);
  assert.deepEqual((await all.deleteOverride({ namespace, identifier: "*@example.com" })).data, {});
  assert.equal((await limiter.limit("eve@example.com")).limit, 100);
});

// @unkey/hono

function app(config) {
  const app = new Hono();
  app.use("*", unkey({ rootKey, ...config }));
  app.get("/", (c) => c.json(c.get("unkey").data));
  return app;
}
const bearer = (key) => ({ headers: { Authorization: `Bearer ${key}` } });

test("hono: a handler sees the whole verification", async () => {
  const { key, keyId } = await issue({
    name: "hono", meta, externalId: "ada", permissions: ["a.b"], credits: { remaining: 5 },
    ratelimits: [{ name: "requests", limit: 9, duration: minute, autoApply: true }],
  });
  const reply = await app({ permissions: "a.b", tags: ["hono"] }).request("/", bearer(key));
  assert.equal(reply.status, 200);
  const data = await reply.json();
  assert.equal(data.valid, true);
  assert.deepEqual([data.keyId, data.name, data.meta, data.credits], [keyId, "hono", meta, 4]);
  assert.deepEqual(data.permissions, ["a.b"]);
  assert.equal(data.identity.externalId, "ada");
  assert.deepEqual([data.ratelimits[0].remaining, data.ratelimits[0].exceeded], [8, false]);
});

test("hono: a bad key reaches the handler with its code, or handleInvalidKey where there is one", async () => {
  const code = async (reply) => (await reply.json()).code;
  assert.equal(await code(await app({}).request("/", bearer("nobody_has_this"))), "NOT_FOUND");
  const { key } = await issue({ enabled: false });
  assert.equal(await code(await app({}).request("/", bearer(key))), "DISABLED");
  const handled = app({ handleInvalidKey: (c, result) => c.json({ refused: result.data.code }, 403) });
  const reply = await handled.request("/", bearer(key));
  assert.deepEqual([reply.status, await reply.json()], [403, { refused: "DISABLED" }]);
  assert.equal((await app({}).request("/")).status, 401);
});

test("hono: nothing is remembered: a key that is disabled is refused at the next request", async () => {
  const { key, keyId } = await issue({});
  const one = app({ handleInvalidKey: (c) => c.text("no", 401) });
  assert.equal((await one.request("/", bearer(key))).status, 200);
  await admin.keys.updateKey({ keyId, enabled: false });
  assert.equal((await one.request("/", bearer(key))).status, 401);
  await admin.keys.updateKey({ keyId, enabled: true });
  assert.equal((await one.request("/", bearer(key))).status, 200);
});

test("hono: only a generic error reaches onError; a typed one becomes a 500", async () => {
  const onError = (c, error) => c.json({ status: error.statusCode }, 503);
  const limited = await app({ rootKey: limitedKey, onError }).request("/", bearer("any_key"));
  assert.deepEqual([limited.status, await limited.json()], [503, { status: 429 }]);
  const silenced = console.error;
  console.error = () => {};
  try {
    assert.equal((await app({ rootKey: unknownKey, onError }).request("/", bearer("any_key"))).status, 500);
  } finally {
    console.error = silenced;
  }
  assert.deepEqual(asked, ["/v2/keys.verifyKey", "/v2/keys.verifyKey"], "4xx are not tried again");
});

// @unkey/nextjs

const request = (key) => new NextRequest("http://localhost/api", key && bearer(key));
const route = (config) => withUnkey((req) => Response.json(req.unkey.data), { rootKey, ...config });

test("nextjs: a handler sees the whole verification", async () => {
  const { key, keyId } = await issue({ name: "next", meta, credits: { remaining: 5 } });
  const reply = await route({ tags: ["next"] })(request(key), {});
  assert.equal(reply.status, 200);
  const data = await reply.json();
  assert.deepEqual([data.valid, data.code, data.keyId, data.meta, data.credits], [true, "VALID", keyId, meta, 4]);
});

test("nextjs: a bad key is 401, or what handleInvalidKey makes of it", async () => {
  assert.equal((await route({})(request(), {})).status, 401);
  assert.equal((await route({})(request("nobody_has_this"), {})).status, 401);
  const { key } = await issue({ credits: { remaining: 0 } });
  const handled = route({ handleInvalidKey: (_, result) => Response.json(result.data.code, { status: 402 }) });
  const reply = await handled(request(key), {});
  assert.deepEqual([reply.status, await reply.json()], [402, "USAGE_EXCEEDED"]);
});

test("nextjs: only a generic error reaches onError; a typed one is thrown", async () => {
  const onError = (_, error) => Response.json(error.statusCode, { status: 503 });
  assert.equal(await (await route({ rootKey: limitedKey, onError })(request("any_key"), {})).json(), 429);
  const unknown = route({ rootKey: unknownKey, onError })(request("any_key"), {});
  await assert.rejects(unknown, (error) => error.statusCode === 401);
});
