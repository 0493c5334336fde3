//! What strangers and odd clients send: nothing of it costs more than its own answer.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::authority::ROWS;
use crate::harness::{Connection, Dice, Workspace};
use crate::things::World;

/// Values that somebody will send some day, as JSON text.
fn odd(dice: &mut Dice) -> String {
    const ODD: &[&str] = &[
        "null",
        "true",
        "0",
        "1",
        "-1",
        "1000",
        "16",
        "9223372036854775807",
        "-9223372036854775808",
        "18446744073709551615",
        "1e308",
        "-0.0",
        "\"\"",
        "\"x\"",
        "\"abc\"",
        "\"\\u0000\"",
        "\"\\ud83d\\ude00\"",
        "\"\\ud800\"",
        "\"daily\"",
        "\"set\"",
        "\"a OR\"",
        "\"../../etc/passwd\"",
        "\"'; DROP TABLE keys; --\"",
        "[]",
        "{}",
        "[[]]",
        "[null]",
        "[\"abc\"]",
        "[{}]",
        "[{\"name\":\"abc\"}]",
        "{\"remaining\":1}",
        "{\"cost\":0}",
        "[{\"name\":\"abc\",\"limit\":9223372036854775807,\"duration\":9223372036854775807,\"autoApply\":true,\"cost\":9223372036854775807}]",
        "{\"remaining\":null,\"refill\":{\"interval\":\"monthly\",\"amount\":9223372036854775807,\"refillDay\":31}}",
        "{\"remaining\":9223372036854775807,\"refill\":{\"interval\":\"daily\",\"amount\":9223372036854775807}}",
    ];
    match dice.below(20) {
        0 => format!("\"{}\"", "y".repeat(1 << dice.below(17))),
        1 => format!("{}1{}", "[".repeat(50), "]".repeat(50)),
        _ => ODD[usize::try_from(dice.below(ODD.len() as u64)).unwrap()].to_owned(),
    }
}

/// The body with one to three members set to odd values, or with some of its bytes changed.
fn mangled(body: &Value, names: &[String], dice: &mut Dice) -> Vec<u8> {
    let mut members: Vec<(String, String)> = match body {
        Value::Array(entries) => entries[0].as_object().unwrap().iter(),
        object => object.as_object().unwrap().iter(),
    }
    .map(|(name, value)| (name.clone(), value.to_string()))
    .collect();
    for _ in 0..=dice.below(6) / 5 {
        let name = &names[usize::try_from(dice.below(names.len() as u64)).unwrap()];
        members.retain(|(have, _)| have != name);
        members.push((name.clone(), odd(dice)));
    }
    let inner: Vec<String> = members.iter().map(|(name, value)| format!("{}:{value}", json!(name))).collect();
    let object = format!("{{{}}}", inner.join(","));
    let mut text = if body.is_array() { format!("[{object}]") } else { object }.into_bytes();
    if dice.below(4) == 0 {
        for _ in 0..=dice.below(3) {
            let at = usize::try_from(dice.below(text.len() as u64)).unwrap();
            text[at] = u8::try_from(dice.below(256)).unwrap();
        }
    }
    text
}

/// Thousands of mangled bodies: each answer is enveloped, declared by the document, of its shape, and never a 5xx; the
/// server lives and its records are whole. COM-ERR-07, COM-ERR-10, COM-BODY-08, KEYS-RL-9, RL-ALG-11
#[test]
fn no_body_gets_a_500() {
    let workspace = Workspace::new();
    let world = World::of(&workspace);
    let document = workspace.server.document();
    let mut dice = Dice::new(0x6675_7a7a);
    let mut passed = 0;
    for row in ROWS.iter().filter(|row| !row.name.contains("delete")) {
        let request = document.request(row.name);
        let object = if request["items"].is_object() { document.resolve(&request["items"]) } else { request };
        let members = object["properties"].as_object().into_iter().flatten();
        let mut names: Vec<String> = members.map(|(name, _)| name.clone()).collect();
        if names.is_empty() {
            names.push("surprise".to_owned());
        }
        for _ in 0..300 {
            let body = mangled(&(row.body)(&world), &names, &mut dice);
            passed += usize::from(workspace.call(row.name, json!({})).raw(body).send().status == 200);
        }
    }
    println!("{passed} mangled bodies were fine");
    assert!(passed > 50, "too few got through to the handlers: {passed}");
    workspace.get(&world.key);
    workspace.api();
}

/// What the official clients send besides the body changes nothing. SDK section 1, COM-SDK-01, COM-HDR-03, COM-HDR-06
#[test]
fn the_official_clients_habits_are_fine() {
    let workspace = Workspace::new();
    let world = World::of(&workspace);
    for agent in
        ["speakeasy-sdk/typescript 2.5.1 2.0 2.0.0 @unkey/api", "speakeasy-sdk/python 3.2.2 2.0 2.0.0 unkey.py", ""]
    {
        for row in ROWS.iter().filter(|row| !row.name.contains("delete")) {
            let call = workspace.call(row.name, (row.body)(&world)).header("User-Agent", agent).header("cookie", "");
            let call = call.header("accept-language", "*").header("sec-fetch-mode", "cors");
            call.header("accept-encoding", "gzip, deflate").expect_ok();
        }
    }
    let escaped = r#"{"name":"\u00fc\ud83d\udd11 and \/"}"#;
    let api = workspace.call("apis.createApi", json!({})).raw(escaped).expect_ok();
    assert_eq!(workspace.ok("apis.getApi", json!({"apiId": api["apiId"]}))["name"], "ü\u{1f511} and /");
}

/// The published schema caps limits and durations lower than requests do: the true values come back.
/// COM-SDK-03, COM-SDK-02, KEYS-OBJ-5, KEYS-CREATE-2, SDK section 2
#[test]
fn values_above_the_published_caps_come_back_true() {
    let workspace = Workspace::new();
    let (limit, duration) = (9_000_000_000_000_i64, 31_536_000_000_i64);
    let limits = json!([{"name": "yearly", "limit": limit, "duration": duration, "autoApply": true}]);
    let members = json!({"ratelimits": limits, "byteLength": 16, "enabled": true, "recoverable": false});
    let key = workspace.key(&workspace.api(), members);
    let verified = workspace.verify(&key, json!({"ratelimits": [{"name": "yearly", "cost": 1_000_000_000_000_i64}]}));
    for shown in [&workspace.get(&key)["ratelimits"][0], &verified["ratelimits"][0]] {
        assert_eq!((shown["limit"].as_i64(), shown["duration"].as_i64()), (Some(limit), Some(duration)));
    }
    assert_eq!(verified["ratelimits"][0]["remaining"], 8_000_000_000_000_i64);
}

/// Hundreds of clients at once, each on a connection of its own, are all answered. COM-RT-07, KEYS-VERIFY-10
#[test]
fn hundreds_of_connections_are_served() {
    let workspace = Workspace::new();
    let world = World::of(&workspace);
    let ask = workspace.call("keys.verifyKey", json!({"key": world.key.secret, "credits": {"cost": 0}})).ask().clone();
    let mut connections: Vec<Connection> = (0..300).map(|_| Connection::open(workspace.server.addr).unwrap()).collect();
    for _ in 0..3 {
        for connection in &mut connections {
            let reply = connection.exchange(&ask).unwrap();
            assert_eq!((reply.status, &reply.json["data"]["code"]), (200, &json!("VALID")));
        }
    }
}

/// No time of the test clock, however absurd, breaks anything. RL-TIME-02, RL-TIME-03, COM-ERR-10, KEYS-GEN-10
#[test]
fn absurd_test_clocks_break_nothing() {
    let workspace = Workspace::timed();
    let limits = json!([{"name": "calls", "limit": 5, "duration": 60_000, "autoApply": true}]);
    let credits = json!({"remaining": 5, "refill": {"interval": "monthly", "amount": 10, "refillDay": 31}});
    let world = World::of(&workspace);
    let key =
        workspace.key(&world.api, json!({"ratelimits": limits, "credits": credits, "expires": 4_102_444_800_000_i64}));
    for time in [
        "0",
        "1",
        "-1",
        "-9223372036854775808",
        "253402300799999",
        "253402300800000",
        "9223372036854775807",
        "18446744073709551615",
        "99999999999999999999999",
        "+5",
        "007",
    ] {
        for row in ROWS.iter().filter(|row| !row.name.contains("delete")) {
            let call = workspace.call(row.name, (row.body)(&World { key: key.clone(), ..World::of(&workspace) }));
            call.header("X-Test-Time", time).send();
        }
        let made = workspace.call("keys.createKey", json!({"apiId": world.api, "credits": credits}));
        let made = made.header("X-Test-Time", time).send();
        assert_eq!(made.status, 200, "{time}: {}", made.text());
        let got = workspace.call("keys.getKey", json!({"keyId": made.json["data"]["keyId"]}));
        assert_eq!(got.header("X-Test-Time", time).send().status, 200, "{time}");
    }
    assert_eq!(workspace.get(&key)["keyId"], key.id.as_str());
}

/// Requests sent before their predecessors were answered are answered in order, on one connection. COM-RT-07
#[test]
fn pipelined_requests_are_answered_in_order() {
    let workspace = Workspace::new();
    let one = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut stream = TcpStream::connect(workspace.server.addr).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let last = "GET /v2/liveness HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(format!("{}{}{last}", one("/v2/liveness"), one("/v2/nothing")).as_bytes()).unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    let statuses: Vec<&str> = said.match_indices("HTTP/1.1 ").map(|(at, _)| &said[at + 9..at + 12]).collect();
    assert_eq!(statuses, ["200", "404", "200"], "{said}");
}

/// A client that waits for `100 Continue` gets it, and its answer. COM-RT-07, COM-BODY-02
#[test]
fn expect_continue_is_answered() {
    let workspace = Workspace::new();
    let body = json!({"name": "after a pause"}).to_string();
    let mut stream = TcpStream::connect(workspace.server.addr).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let head = format!(
        "POST /v2/apis.createApi HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n",
        workspace.root,
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut interim = [0; 21];
    stream.read_exact(&mut interim).unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue");
    stream.write_all(body.as_bytes()).unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    assert!(said.contains("HTTP/1.1 200 OK"), "{said}");
}

/// Hanging up in the middle of everything costs nobody else anything, and loses only the answer. COM-BODY-09, COM-RT-07
#[test]
fn hanging_up_costs_nobody_else() {
    let workspace = Workspace::new();
    let world = World::of(&workspace);
    let mut dice = Dice::new(0x6279_6500);
    for _ in 0..200 {
        let ask = workspace.call("keys.updateKey", json!({"keyId": world.key.id, "name": "cut"})).ask().clone();
        let text = format!(
            "POST {} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAuthorization: Bearer {}\r\nContent-Length: {}\r\n\r\n{}",
            ask.target,
            workspace.root,
            ask.body.len(),
            String::from_utf8_lossy(&ask.body)
        );
        let cut = usize::try_from(dice.below(text.len() as u64 + 1)).unwrap();
        let mut stream = TcpStream::connect(workspace.server.addr).unwrap();
        stream.write_all(&text.as_bytes()[..cut]).unwrap();
    }
    let mut connection = Connection::open(workspace.server.addr).unwrap();
    let ask = workspace.call("keys.getKey", json!({"keyId": world.key.id})).ask().clone();
    assert_eq!(connection.exchange(&ask).unwrap().status, 200);
}
