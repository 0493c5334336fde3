//! What every operation shares: routes, order of checks, envelope, errors, credentials, root keys, request limits.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::authority::{ROWS, row};
use crate::harness::call::{judge, problem};
use crate::harness::{Ask, Connection, HOUR, MINUTE, Reply, Workspace, members, now};
use crate::things::World;

fn routed(reply: Reply, status: u16) -> Reply {
    judge(&reply);
    problem(reply, status, "unkey/application/invalid_input").unwrap_or_else(|wrong| panic!("{wrong}")).reply
}

/// Unknown paths answer 404 in the envelope, with no redirect of a POST, whatever they look like.
/// COM-RT-03, COM-RT-05, COM-RT-06, COM-ORD-01, COM-ERR-03
#[test]
fn unknown_paths_are_404_in_the_envelope() {
    let workspace = Workspace::new();
    for target in [
        "/",
        "/v2/keys.nothing",
        "/v2/keys.getkey",
        "/v2/KEYS.getKey",
        "/v2/keys.getKey/",
        "/v2/",
        "/v1/keys.getKey",
        "//v2/keys.getKey",
        "/v2/./keys.getKey",
        "/v2/../v2/keys.getKey",
        "/v2/keys.getKey%00",
        "/health",
        "/debug/pprof",
    ] {
        let ask = Ask::new("POST", target).header("Content-Type", "application/json").body("{}");
        routed(workspace.server.exchange(&ask), 404);
        let reply = workspace.server.exchange(&Ask::new("GET", target));
        assert!(reply.status == 404 || (300..309).contains(&reply.status), "GET {target}: {}", reply.status);
    }
}

/// A known path with another method answers 405 and says which are taken; OPTIONS is no exception.
/// COM-RT-01, COM-RT-04, COM-RT-06, COM-RT-08
#[test]
fn other_methods_are_405_with_allow() {
    let workspace = Workspace::new();
    for row in ROWS {
        for method in ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"] {
            let ask = Ask::new(method, &format!("/v2/{}", row.name)).header("Origin", "https://example.com");
            let reply = routed(workspace.server.exchange(&ask), 405);
            assert_eq!(reply.header("allow"), Some("POST"), "{method} {}", row.name);
        }
    }
    for target in [
        "/v2/liveness",
        "/openapi.yaml",
        "/openapi.json",
        "/reference",
        "/health/live",
        "/health/ready",
        "/health/startup",
    ] {
        let reply = routed(workspace.server.exchange(&Ask::new("POST", target).body("{}")), 405);
        let allowed = reply.header("allow").unwrap_or_default().to_owned();
        assert!(allowed.split(", ").any(|method| method == "GET"), "{target}: {allowed}");
        let reply = workspace.server.exchange(&Ask::new("HEAD", target));
        assert_eq!((reply.status, reply.body.len()), (200, 0), "HEAD {target}");
    }
}

/// Liveness, health, the document and the reference page need no key and fetch nothing from elsewhere.
/// COM-RT-02, COM-SYS-01, COM-SYS-02, COM-SYS-03, COM-SYS-04
#[test]
fn service_routes_answer_without_a_key() {
    let workspace = Workspace::new();
    let server = &workspace.server;
    let live = server.get("/v2/liveness");
    judge(&live);
    assert_eq!(live.status, 200);
    assert_eq!(members(&live.json["data"]), ["message"]);
    for target in ["/health/live", "/health/ready", "/health/startup"] {
        let health = server.get(target);
        assert_eq!(health.status, 200, "{target}");
        assert!(health.json["status"].is_string(), "{target}: {}", health.text());
    }
    let yaml = server.get("/openapi.yaml");
    assert_eq!((yaml.status, yaml.media_type()), (200, "application/yaml"));
    assert!(yaml.text().replace(['"', '\'', ' '], "").contains("openapi:3.1.0"), "{:.200}", yaml.text());
    for row in ROWS {
        assert!(yaml.text().contains(&format!("/v2/{}", row.name)), "{} is not in /openapi.yaml", row.name);
    }
    let document = &server.document().json;
    assert_eq!(server.get("/openapi.json").media_type(), "application/json");
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["info"]["version"], "2.0.0");

    let page = server.get("/reference");
    assert_eq!((page.status, page.media_type()), (200, "text/html"));
    let policy = page.header("content-security-policy").expect("COM-SYS-03: a content security policy").to_owned();
    assert!(policy.contains("default-src 'none'") || policy.contains("default-src 'self'"), "{policy}");
    for fetched in ["src=\"http", "src='http", "src=\"//", "<link rel=\"stylesheet\" href=\"http", "@import url(http"] {
        assert!(!page.text().contains(fetched), "the reference page fetches from elsewhere: {fetched}");
    }
    for row in ROWS {
        assert!(page.text().contains(row.name), "{} is not on the reference page", row.name);
    }
}

/// Success and failure keep their shape; the request id is new each time, in body and header, and never the caller's.
/// COM-ENV-01, COM-ENV-02, COM-ENV-03, COM-ENV-04, COM-ENV-05, COM-HDR-06, COM-RT-01, KEYS-GEN-20
#[test]
fn the_envelope_keeps_its_shape() {
    let workspace = Workspace::new();
    let world = World::of(&workspace);
    let mut seen = HashSet::new();
    for accept in ["application/json", "application/problem+json", "text/html", "*/*"] {
        for row in ROWS.iter().filter(|row| !row.name.contains("delete")) {
            let call = workspace.call(row.name, (row.body)(&world)).without("Accept").header("Accept", accept);
            let reply = call.header("X-Request-Id", "req_mine").header("X-Whatever", "1").send();
            assert_eq!(reply.status, 200, "{}: {}", row.name, reply.text());
            assert!(seen.insert(reply.json["meta"]["requestId"].as_str().unwrap().to_owned()), "COM-ENV-02: repeated");
        }
    }
    assert!(!seen.contains("req_mine"));
    assert_eq!(workspace.ok("keys.updateKey", json!({"keyId": world.key.id})), json!({}), "COM-ENV-05");
    let queried = Ask {
        target: "/v2/keys.getKey?keyId=key_nowhere".to_owned(),
        ..workspace.call("keys.getKey", json!({"keyId": world.key.id})).ask().clone()
    };
    assert_eq!(workspace.server.exchange(&queried).status, 200, "COM-RT-01: a query string is ignored");
}

/// The error's media type follows Accept, for every kind of error.
/// COM-ERR-05, COM-ERR-06
#[test]
fn the_error_media_type_follows_accept() {
    let workspace = Workspace::new();
    let cases: &[(Option<&str>, &str)] = &[
        (None, "application/json"),
        (Some("application/json"), "application/json"),
        (Some("text/html, image/png"), "application/json"),
        (Some("*/*"), "application/problem+json"),
        (Some("application/problem+json"), "application/problem+json"),
        (Some("application/json, application/problem+json;q=0.1"), "application/problem+json"),
        (Some("text/html, application/* ;q=0.5"), "application/problem+json"),
    ];
    for (accept, wanted) in cases {
        let dress = |call: crate::harness::Call<'_>| {
            let call = call.without("Accept");
            match accept {
                Some(accept) => call.header("Accept", accept),
                None => call,
            }
            .send()
        };
        let absent = json!({"keyId": "key_nowhere"});
        let replies = [
            dress(workspace.call("keys.getKey", json!({}))),
            dress(workspace.call("keys.getKey", absent.clone())),
            dress(workspace.server.call("keys.getKey", absent.clone())),
            dress(workspace.server.call("keys.getKey", absent.clone()).bearer("unkey_nobody")),
            dress(workspace.call("keys.nothing", absent.clone())),
        ];
        for reply in replies {
            assert_eq!(reply.media_type(), *wanted, "Accept {accept:?}: {}", reply.text());
        }
    }
}

/// The scheme is `Bearer `, spelled so, once, with something behind it; white space round the token does not matter.
/// COM-AUTH-02, COM-AUTH-03, COM-AUTH-04, COM-AUTH-06, COM-AUTH-08, KEYS-GEN-7, APIS-DELETE-9
#[test]
fn the_bearer_header_is_taken_literally() {
    let workspace = Workspace::new();
    let world = World::of(&workspace);
    let sentence = "You must provide a valid root key in the Authorization header in the format 'Bearer ROOT_KEY'.";
    for row in ROWS {
        let bare = || workspace.server.call(row.name, (row.body)(&world));
        for value in
            ["Basic dXNlcjpwYXNz", "Token abc", "bearer abc", "BEARER abc", "Bearerabc", "abc", &workspace.root]
        {
            let problem = bare().authorization(value).expect_problem(400, "unkey/authentication/malformed");
            let problem =
                problem.saying(&format!("{sentence} Your authorization header is missing the 'Bearer ' prefix."));
            assert!(problem.errors.is_empty(), "COM-AUTH-06: {}", problem.body);
        }
        for value in ["Bearer", "Bearer ", "Bearer     "] {
            let problem = bare().authorization(value).expect_problem(400, "unkey/authentication/malformed");
            assert!(problem.errors.is_empty(), "COM-AUTH-06: {}", problem.body);
            problem.mentioning(sentence);
        }
        let twice = bare().header("Authorization", &format!("Bearer {}", workspace.root));
        let twice = twice.header("Authorization", "Bearer unkey_other");
        twice.expect_problem(400, "unkey/authentication/malformed");
        bare().authorization("Bearer    unkey_nobody  ").expect_problem(401, "unkey/authentication/key_not_found");
    }
    let spaced = workspace.server.call("keys.getKey", json!({"keyId": world.key.id}));
    spaced.authorization(&format!("Bearer   {}   ", workspace.root)).expect_ok();
}

/// Missing credential, then content type, then body, then the credential itself; only the first failing stage is told.
/// COM-ORD-03, COM-ORD-07, COM-ORD-08, COM-VAL-01, COM-VAL-05, COM-VAL-06, COM-VAL-07, COM-BODY-01, COM-BODY-08,
/// KEYS-GEN-1, KEYS-GEN-2, KEYS-GEN-4, KEYS-GEN-5, APIS-CREATE-7
#[test]
fn body_faults_are_found_in_order_and_before_a_bad_key() {
    let workspace = Workspace::new();
    let world = World::of(&workspace);
    for row in ROWS {
        let body = (row.body)(&world);
        for authorization in
            [format!("Bearer {}", workspace.root), "Bearer unkey_nobody".to_owned(), "Basic x".to_owned()]
        {
            let call = || workspace.server.call(row.name, body.clone()).authorization(&authorization);
            let invalid = |call: crate::harness::Call<'_>| call.expect_problem(400, "unkey/application/invalid_input");

            for wrong in
                [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("application/jsonp")]
            {
                let call = call().without("Content-Type").raw("{");
                let problem = match wrong {
                    Some(media) => invalid(call.header("Content-Type", media)),
                    None => invalid(call),
                };
                let problem = problem.at("requestBody");
                let entry = &problem.errors[0];
                assert!(
                    entry["fix"].as_str().is_some_and(|fix| fix.contains("application/json")),
                    "COM-VAL-05: {entry}"
                );
                if let Some(media) = wrong {
                    assert!(entry["message"].as_str().unwrap().contains(media), "COM-VAL-05: {entry}");
                }
            }

            let required = &workspace.server.document().operation(row.name)["requestBody"]["required"];
            if *required == true {
                invalid(call().raw("")).at("requestBody").mentioning("empty");
            }
            for broken in ["{", "{\"a\":", "nul", "{} {}", "{}x", "[1,]", "{\"a\":1,}", "\u{feff}{}", "{'a':1}"] {
                let problem = invalid(call().raw(broken)).schema(row.name).at("requestBody");
                assert!(problem.errors[0]["fix"].is_string(), "COM-VAL-07: {broken}");
            }
            invalid(call().raw(b"{\"name\":\"\xff\xfe\"}".to_vec())).schema(row.name);
            for wrong in ["null", "1", "\"text\"", "true"] {
                invalid(call().raw(wrong)).schema(row.name);
            }
        }
        for media in ["application/json; charset=utf-8", "Application/JSON", "APPLICATION/JSON;charset=UTF-8"] {
            let call = workspace.server.call(row.name, body.clone()).bearer("unkey_nobody");
            let call = call.without("Content-Type").header("Content-Type", media);
            call.expect_problem(401, "unkey/authentication/key_not_found");
        }
    }
}

/// 10 MiB are taken, one byte more is not, and that is found before anything else. COM-BODY-02, COM-ORD-02, KEYS-GEN-2
#[test]
fn a_body_over_the_limit_is_413_before_all_else() {
    const LIMIT: usize = 10 * 1024 * 1024;
    let workspace = Workspace::new();
    let padded = |length: usize| {
        let mut body = b"{\"name\":\"padded with spaces\"}".to_vec();
        body.resize(length, b' ');
        body
    };
    workspace.call("apis.createApi", json!({})).raw(padded(LIMIT)).expect_ok();
    for call in [
        workspace.call("apis.createApi", json!({})),
        workspace.server.call("apis.createApi", json!({})),
        workspace.server.call("apis.createApi", json!({})).authorization("Basic x").without("Content-Type"),
    ] {
        let call = call.raw(padded(LIMIT + 1));
        call.expect_problem(413, "user/bad_request/request_body_too_large").mentioning("10485760");
    }
    let mut chunked = workspace.call("apis.createApi", json!({})).ask().clone().header("Transfer-Encoding", "chunked");
    chunked.body = format!("{:x}\r\n", LIMIT + 1).into_bytes();
    chunked.body.extend(padded(LIMIT + 1));
    chunked.body.extend(b"\r\n0\r\n\r\n");
    let reply = Connection::open(workspace.server.addr).unwrap().exchange(&chunked).unwrap();
    problem(reply, 413, "user/bad_request/request_body_too_large").unwrap();
    assert_eq!(workspace.server.get("/v2/liveness").status, 200);
}

/// A body that cannot be read is told so; chunked ones are read. COM-BODY-03, COM-RT-07
#[test]
fn a_broken_body_stream_is_400() {
    let workspace = Workspace::new();
    let ask = workspace.call("apis.createApi", json!({})).ask().clone().header("Transfer-Encoding", "chunked");
    let whole = Ask { body: b"8\r\n{\"name\":\r\n9\r\n\"chunked\"\r\n1\r\n}\r\n0\r\n\r\n".to_vec(), ..ask.clone() };
    let mut connection = Connection::open(workspace.server.addr).unwrap();
    assert_eq!(connection.exchange(&whole).unwrap().status, 200);
    let broken = Ask { body: b"8\r\n{\"name\":\r\nzz\r\n".to_vec(), ..ask };
    let reply = connection.exchange(&broken).unwrap();
    judge(&reply);
    problem(reply, 400, "user/bad_request/request_body_unreadable").unwrap();
}

/// An error does not cost the connection; bytes that are no HTTP do not cost the server. COM-RT-07
#[test]
fn errors_keep_the_connection() {
    let workspace = Workspace::new();
    let mut connection = Connection::open(workspace.server.addr).unwrap();
    for (body, status) in [("{}", 400), ("{", 400), ("{\"keyId\":\"key_nowhere\"}", 404)] {
        let ask = workspace.call("keys.getKey", json!({})).raw(body).ask().clone();
        assert_eq!(connection.exchange(&ask).unwrap().status, status);
        assert!(connection.usable(), "closed after {status}");
    }
    assert_eq!(connection.exchange(&Ask::new("PUT", "/v2/nothing").body("x")).unwrap().status, 404);
    assert!(connection.usable());
    let mut garbage = vec![b"\x16\x03\x01\x02\x00\x01\x00".to_vec(), b"GET\r\n\r\n".to_vec()];
    garbage.push(
        format!("GET /v2/liveness HTTP/1.1\r\nHost: x\r\nX-Long: {}\r\n\r\n", "a".repeat(2_000_000)).into_bytes(),
    );
    for bytes in garbage {
        let mut connection = Connection::open(workspace.server.addr).unwrap();
        if let Ok(reply) = connection.exchange_raw(&bytes) {
            assert!((400..500).contains(&reply.status), "{}", reply.status);
        }
    }
    assert_eq!(workspace.server.get("/v2/liveness").status, 200);
}

/// A root key stops working with the very next request once it is disabled, expired, revoked or loses a permission.
/// COM-RK-02, COM-RK-04, COM-RK-07, COM-CON-01, KEYS-GEN-7, KEYS-GEN-34, EXT-3
#[test]
fn a_changed_root_key_is_changed_for_the_next_request() {
    let workspace = Workspace::new();
    let world = World::of(&workspace);
    let call = |secret: &str| workspace.server.call("keys.getKey", json!({"keyId": world.key.id})).bearer(secret);

    let root = workspace.root_key(&["api.*.read_key"]);
    call(&root.secret).expect_ok();
    workspace.change_root_key(&root, &["--enabled", "false"]);
    let problem = call(&root.secret).expect_problem(403, "unkey/authorization/key_disabled");
    problem.mentioning("root key is invalid");
    workspace.change_root_key(&root, &["--enabled", "true"]);
    call(&root.secret).expect_ok();
    workspace.change_root_key(&root, &["--permission", "api.*.update_key"]);
    call(&root.secret).expect_problem(403, "unkey/authorization/insufficient_permissions");
    workspace.revoke(&root);
    let problem = call(&root.secret).expect_problem(401, "unkey/authentication/key_not_found");
    problem.saying("The provided root key is invalid. We could not find the requested key.");

    let expires = (now() + HOUR).to_string();
    call(&workspace.root_key_with(&["api.*.read_key"], &["--expires", &expires]).secret).expect_ok();
    let expires = (now() - 1000).to_string();
    let expired = workspace.root_key_with(&["api.*.read_key"], &["--expires", &expires]);
    call(&expired.secret).expect_problem(403, "unkey/authorization/forbidden").mentioning("root key is invalid");
}

/// The instant of expiry follows the test clock: still good at the millisecond, gone after it. COM-RK-02, COM-HDR-05
#[test]
fn a_root_key_expires_after_its_instant() {
    let workspace = Workspace::timed();
    let world = World::of(&workspace);
    let instant = now() + 30 * MINUTE;
    let root = workspace.root_key_with(&["api.*.read_key"], &["--expires", &instant.to_string()]);
    let call = || workspace.server.call("keys.getKey", json!({"keyId": world.key.id})).bearer(&root.secret);
    call().at(instant).expect_ok();
    call().at(instant + 1).expect_problem(403, "unkey/authorization/forbidden");
}

/// A disabled workspace is closed to all its root keys at once, and opens again; a deleted one is gone.
/// COM-RK-02, COM-RK-07, KEYS-GEN-7, KEYS-VERIFY-5, APIS-GET-6, EXT-2
#[test]
fn a_disabled_workspace_is_closed_and_a_deleted_one_gone() {
    let workspace = Workspace::new();
    let world = World::of(&workspace);
    workspace.change(&["--enabled", "false"]);
    for row in ROWS {
        let call = workspace.call(row.name, (row.body)(&world));
        call.expect_problem(403, "unkey/authorization/workspace_disabled");
    }
    workspace.change(&["--enabled", "true"]);
    assert_eq!(workspace.code(&world.key, json!({})), "VALID");
    workspace.server.operate(&["workspace", "delete", "--workspace", &workspace.id, "--yes"]).json();
    for row in ROWS {
        let problem =
            workspace.call(row.name, (row.body)(&world)).expect_problem(404, "unkey/data/workspace_not_found");
        problem.saying("The provided root key is invalid. The requested workspace does not exist.");
    }
}

/// Waits until the current minute has at least this long to run, so that a counted minute is not cut in two.
fn early_in_a_minute(needed: i64) {
    let left = MINUTE - now() % MINUTE;
    if left < needed {
        std::thread::sleep(std::time::Duration::from_millis(u64::try_from(left).unwrap() + 5));
    }
}

fn whole(reply: &Reply, header: &str) -> Option<i64> {
    reply.header(header).map(|value| value.parse().unwrap_or_else(|_| panic!("{header}: {value}")))
}

/// N requests a minute pass, counted over all root keys of the workspace and over failures of the handler; what fails
/// earlier is not counted; a customer's namespace is another counter; the test clock does not matter.
/// COM-WRL-01, COM-WRL-02, COM-WRL-03, COM-WRL-05, COM-WRL-06, COM-WRL-07, COM-WRL-08, COM-WRL-09, COM-ORD-05, COM-ORD-09,
/// RL-USE-02, EXT-2
#[test]
fn the_workspace_limit_counts_requests_that_reach_it() {
    let workspace = Workspace::timed();
    let world = World::of(&workspace);
    let second = workspace.root_key(&["api.*.read_key"]);
    let absent = json!({"keyId": "key_nowhere"});
    let unlimited = workspace.call("keys.getKey", absent.clone()).send();
    assert!(!unlimited.headers.iter().any(|(name, _)| name.starts_with("ratelimit-")), "COM-WRL-01: {unlimited:?}");

    early_in_a_minute(15_000);
    workspace.change(&["--api-requests-per-minute", "3"]);
    for _ in 0..3 {
        workspace.call("keys.getKey", json!({})).expect_invalid();
        workspace.server.call("keys.getKey", absent.clone()).send();
        workspace.server.call("keys.getKey", absent.clone()).bearer("unkey_nobody").send();
        workspace.server.call("keys.getKey", absent.clone()).authorization("Basic x").send();
    }
    let headers = |reply: &Reply, remaining: i64| {
        assert_eq!(whole(reply, "ratelimit-limit"), Some(3), "{reply:?}");
        assert_eq!(whole(reply, "ratelimit-remaining"), Some(remaining), "{reply:?}");
        let reset = whole(reply, "ratelimit-reset").expect("COM-WRL-03: RateLimit-Reset");
        assert!((1..=60).contains(&reset), "COM-WRL-05: {reset}");
        reset
    };
    let limited = json!({"namespace": "workspace", "identifier": &workspace.id, "limit": 1, "duration": 60_000});
    let first = workspace.call("ratelimit.limit", limited).send();
    assert_eq!(first.status, 200);
    headers(&first, 2);
    let missed = workspace.call("keys.getKey", absent.clone()).send();
    assert_eq!(missed.status, 404);
    headers(&missed, 1);
    let body = json!({"keyId": world.key.id});
    let third = workspace.server.call("keys.getKey", body.clone()).bearer(&second.secret).send();
    assert_eq!(third.status, 200);
    headers(&third, 0);
    for call in [
        workspace.call("keys.getKey", body.clone()),
        workspace.call("keys.getKey", body.clone()).at(now() + 10 * MINUTE),
        workspace.server.call("keys.getKey", body.clone()).bearer(&second.secret),
        workspace.call("ratelimit.multiLimit", (row("ratelimit.multiLimit").body)(&world)),
    ] {
        let refused = call.expect_problem(429, "user/too_many_requests/workspace_rate_limited");
        let refused = refused.mentioning("3");
        let reset = headers(&refused.reply, 0);
        assert_eq!(whole(&refused.reply, "retry-after"), Some(reset), "COM-WRL-03");
    }
    let neighbour = workspace.neighbour();
    neighbour.call("keys.getKey", absent.clone()).expect_problem(404, "unkey/data/key_not_found");
    workspace.change(&["--api-requests-per-minute", "none"]);
    workspace.call("keys.getKey", body).expect_ok();
}

/// Two pass and the third is refused; zero refuses the first; both are there for the next request. COM-WRL-04, COM-WRL-07
#[test]
fn a_workspace_limit_of_two_and_of_zero() {
    let workspace = Workspace::new();
    let body = json!({"namespace": "n", "identifier": "i", "limit": 10, "duration": 60_000});
    early_in_a_minute(10_000);
    workspace.change(&["--api-requests-per-minute", "2"]);
    workspace.ok("ratelimit.limit", body.clone());
    workspace.ok("ratelimit.limit", body.clone());
    let over = "user/too_many_requests/workspace_rate_limited";
    workspace.call("ratelimit.limit", body.clone()).expect_problem(429, over);
    workspace.change(&["--api-requests-per-minute", "none"]);
    workspace.ok("ratelimit.limit", body.clone());
    workspace.change(&["--api-requests-per-minute", "0"]);
    let refused = workspace.call("ratelimit.limit", body).expect_problem(429, over).reply;
    assert_eq!(whole(&refused, "ratelimit-limit"), Some(0), "COM-WRL-04");
    assert_eq!(whole(&refused, "ratelimit-remaining"), Some(0), "COM-WRL-04");
    assert_eq!(refused.header("retry-after"), None, "COM-WRL-04");
}

/// The workspace limit stands before every operation's own checks, and after the body's and the credential's.
/// COM-ORD-05, COM-ORD-06, COM-WRL-02, KEYS-GEN-2
#[test]
fn the_workspace_limit_stands_before_every_handler() {
    let workspace = Workspace::new();
    let world = World::of(&workspace);
    let weak = workspace.root_key(&[]);
    workspace.change(&["--api-requests-per-minute", "0"]);
    let absent = World::nowhere();
    for row in ROWS {
        let over = "user/too_many_requests/workspace_rate_limited";
        workspace.call(row.name, (row.body)(&world)).expect_problem(429, over);
        workspace.call(row.name, (row.body)(&absent)).expect_problem(429, over);
        workspace.server.call(row.name, (row.body)(&world)).bearer(&weak.secret).expect_problem(429, over);
        workspace.call(row.name, json!("wrong")).expect_invalid();
        let unknown = workspace.server.call(row.name, (row.body)(&world)).bearer("unkey_nobody");
        unknown.expect_problem(401, "unkey/authentication/key_not_found");
    }
}

/// Without test mode nobody moves the clock. COM-HDR-05, RL-TIME-02, COM-SYS-05, EXT-1
#[test]
fn outside_test_mode_the_test_clock_is_ignored() {
    let workspace = Workspace::new();
    let api = workspace.api();
    let key = workspace.key(&api, json!({"expires": now() + HOUR}));
    assert_eq!(workspace.verify_at(&key, json!({}), now() + 2 * HOUR)["code"], "VALID");
    let body = json!({"namespace": "n", "identifier": "i", "limit": 10, "duration": 60_000});
    let reset = workspace.call("ratelimit.limit", body).at(1000).expect_ok()["reset"].as_i64().unwrap();
    assert!(reset > now() - MINUTE, "{reset}");
}

/// The document marks the members that hold secrets, and says who they are. COM-LOG-03, COM-LOG-06, COM-SYS-02
#[test]
fn secrets_are_marked_in_the_document() {
    let workspace = Workspace::new();
    let document = workspace.server.document();
    let marked = |schema: &Value, path: &[&str]| {
        let mut schema = schema;
        for name in path {
            schema = document.member(schema, name).unwrap_or_else(|| panic!("no {path:?}"));
        }
        assert_eq!(schema["x-unkey-redact"], true, "{path:?} is not marked: {schema}");
    };
    marked(document.request("keys.verifyKey"), &["key"]);
    marked(document.request("keys.whoami"), &["key"]);
    for operation in ["keys.createKey", "keys.rerollKey", "rootKeys.createKey", "rootKeys.rerollKey"] {
        marked(document.answer(operation, 200), &["data", "key"]);
    }
    let mut unmarked = Vec::new();
    unmarked_secrets(&document.json, "", &mut unmarked);
    assert!(unmarked.is_empty(), "COM-LOG-06: these hold secrets and are not marked: {unmarked:?}");
}

/// Collects the string members anywhere in the document that are named like a secret and not marked as one.
fn unmarked_secrets(part: &Value, at: &str, unmarked: &mut Vec<String>) {
    for name in ["key", "hash", "plaintext", "accessToken", "secret", "token", "password"] {
        let member = &part["properties"][name];
        if member["type"] == "string" && member["x-unkey-redact"] != true {
            unmarked.push(format!("{at}/properties/{name}"));
        }
    }
    match part {
        Value::Object(members) => {
            members.iter().for_each(|(name, part)| unmarked_secrets(part, &format!("{at}/{name}"), unmarked));
        }
        Value::Array(items) => items.iter().for_each(|part| unmarked_secrets(part, at, unmarked)),
        _ => {}
    }
}

/// No secret and no body ever reaches the operational log. COM-LOG-07, EXT-1
#[test]
fn the_log_holds_no_secret() {
    let workspace = Workspace::new();
    let world = World::of(&workspace);
    workspace.verify(&world.key, json!({}));
    workspace.call("keys.getKey", json!({"keyId": "key_nowhere"})).send();
    workspace.call("keys.whoami", json!({"key": "a_secret_nobody_made"})).send();
    workspace.server.call("keys.getKey", json!({"keyId": "key_1"})).bearer("unkey_a_wrong_guess").send();
    let log = workspace.server.log();
    for secret in [&workspace.root, &world.key.secret, "a_secret_nobody_made", "unkey_a_wrong_guess"] {
        assert!(!log.contains(secret), "the log holds {secret}");
    }
}
