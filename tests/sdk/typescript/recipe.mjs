// packaging/docs/clients-without-base-url.md, first recipe: @unkey/hono and @unkey/nextjs, unmodified, in a process that knows
// keyward by the name api.unkey.com alone. Nothing in here says where the server is; recipe.py has set up name and trust.

import assert from "node:assert/strict";
import { createRequire } from "node:module";

const require = createRequire(import.meta.url);
const { Unkey } = require("@unkey/api");
const { unkey } = require("@unkey/hono");
const { withUnkey } = require("@unkey/nextjs");
const { Hono } = require("hono");
const { NextRequest } = require("next/server");

const rootKey = process.env.KEYWARD_ROOT_KEY ?? assert.fail("run ../recipe.py");
const bearer = (key) => ({ headers: { Authorization: `Bearer ${key}` } });

// Without `serverURL` this one calls https://api.unkey.com, too.
const admin = new Unkey({ rootKey });
const { data: api } = await admin.apis.createApi({ name: "behind another's name" });
const { data: key } = await admin.keys.createKey({ apiId: api.apiId, name: "ada", credits: { remaining: 5 } });

const app = new Hono();
app.use("*", unkey({ rootKey }));
app.get("/", (c) => c.json(c.get("unkey").data));
const hono = await (await app.request("/", bearer(key.key))).json();
assert.deepEqual([hono.valid, hono.keyId, hono.credits], [true, key.keyId, 4]);

const route = withUnkey((req) => Response.json(req.unkey.data), { rootKey });
const next = await (await route(new NextRequest("http://localhost/", bearer(key.key)), {})).json();
assert.deepEqual([next.valid, next.keyId, next.credits], [true, key.keyId, 3]);
console.log("the recipe works");
