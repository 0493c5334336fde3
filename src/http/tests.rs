//! The HTTP layer from outside, over real sockets, with operations of the test's own behind it.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

use super::listen::{Drained, Server};
use super::service_routes::Documents;
use super::sockets::{Listeners, bind};
use super::{Answer, Application};
use crate::api::wire::{Authorization, ContentType, Inbound, Outbound, RateLimitHeaders};
use crate::config::Settings;
use crate::health::{Fit, Reason};
use crate::metrics::Metrics;
use crate::otlp::trace::Tracer;
use crate::outside::Outside;

/// The second implementer of [`Application`]: an operation for each behaviour the layer has to cope with.
#[derive(Clone, Default)]
struct Behaviours {
    /// Lets one `test.slow` go on.
    gate: Arc<Notify>,
    begun: Arc<Notify>,
    finished: Arc<AtomicUsize>,
    done: Arc<Notify>,
    dropped: Arc<Notify>,
    metrics: Arc<OnceLock<Metrics>>,
}

/// Says so when it is dropped.
struct Dropped(Arc<Notify>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

#[derive(Clone, Copy)]
enum Behaviour {
    Echo,
    Panic,
    PanicLater,
    Slow,
    Look,
    Limited,
    NoRoom,
}

impl Application for Behaviours {
    type Operation = Behaviour;

    fn find(&self, path: &str) -> Option<Behaviour> {
        Some(match path {
            "/v2/test.echo" => Behaviour::Echo,
            "/v2/test.panic" => Behaviour::Panic,
            "/v2/test.panicLater" => Behaviour::PanicLater,
            "/v2/test.slow" => Behaviour::Slow,
            "/v2/test.look" => Behaviour::Look,
            "/v2/test.limited" => Behaviour::Limited,
            "/v2/test.noRoom" => Behaviour::NoRoom,
            _ => return None,
        })
    }

    fn number(&self, behaviour: Behaviour) -> usize {
        behaviour as usize
    }

    fn degraded(&self) -> Vec<Reason> {
        Vec::new()
    }

    fn fit(&self) -> Fit {
        Fit { reads: true, writes: false }
    }

    fn metrics(&self) -> &Metrics {
        self.metrics.get_or_init(|| Metrics::new(0))
    }

    fn tracer(&self) -> Option<&Arc<Tracer>> {
        None
    }

    fn exposition(&self) -> Pin<Box<dyn Future<Output = String> + Send>> {
        Box::pin(async { "up 1\n".to_owned() })
    }

    fn stops(&self, behaviour: Behaviour) -> bool {
        matches!(behaviour, Behaviour::Look)
    }

    fn respond(&self, behaviour: Behaviour, inbound: Inbound) -> Answer {
        let all = self.clone();
        match behaviour {
            Behaviour::Echo => Box::pin(async move { Outbound::ok(echo(&inbound).to_string()) }),
            Behaviour::Panic => panic!("on purpose, when called"),
            Behaviour::PanicLater => Box::pin(async {
                tokio::task::yield_now().await;
                panic!("on purpose, when polled")
            }),
            Behaviour::Slow => Box::pin(async move {
                all.begun.notify_one();
                all.gate.notified().await;
                all.finished.fetch_add(1, Ordering::SeqCst);
                all.done.notify_one();
                Outbound::ok(echo(&inbound).to_string())
            }),
            Behaviour::Look => Box::pin(async move {
                let _dropped = Dropped(all.dropped);
                all.begun.notify_one();
                all.gate.notified().await;
                Outbound::ok(echo(&inbound).to_string())
            }),
            Behaviour::Limited => Box::pin(async {
                let limit = RateLimitHeaders { limit: 2, remaining: 0, reset_s: Some(7), refused: true };
                Outbound { status: 429, is_problem: true, rate_limit: Some(limit), ..Outbound::ok("{}") }
            }),
            Behaviour::NoRoom => Box::pin(async {
                Outbound { status: 503, is_problem: true, retry_after_s: Some(1), ..Outbound::ok("{}") }
            }),
        }
    }
}

fn echo(inbound: &Inbound) -> Value {
    json!({
        "requestId": inbound.request_id.as_str(),
        "now": inbound.now_ms,
        "deadline": inbound.deadline_ms,
        "testTime": inbound.test_time_ms,
        "authorization": match &inbound.authorization {
            Authorization::Absent => "absent",
            Authorization::One(text) => text,
            Authorization::NotText => "not text",
            Authorization::Several => "several",
        },
        "portalSession": inbound.portal_session,
        "contentType": match &inbound.content_type {
            ContentType::Json => "json",
            ContentType::Absent => "absent",
            ContentType::Other(text) => text,
        },
        "ip": inbound.client_ip.map(|ip| ip.to_string()),
        "userAgent": inbound.user_agent,
        "metricsDisabled": inbound.metrics_disabled,
        "body": String::from_utf8_lossy(&inbound.body),
        "bytes": inbound.body.len(),
    })
}

/// The clock of all requests here.
const NOW_MS: u64 = 1_700_000_000_000;

/// A server with [`Behaviours`] behind it, on a port of its own.
struct World {
    behaviours: Behaviours,
    address: String,
    stop: Option<oneshot::Sender<()>>,
    server: JoinHandle<Drained>,
}

impl World {
    async fn start(change: impl FnOnce(&mut Settings)) -> World {
        let mut settings = Settings::default();
        change(&mut settings);
        let listener = bind("127.0.0.1:0", None).await.expect("a free port");
        let address = listener.tcp_address().expect("bound").to_string();
        let listeners = Listeners { all: vec![listener], handed_over: false };
        let behaviours = Behaviours::default();
        let documents = Documents::new(|| ["openapi: 3.1.0\n", "{}", "<script>1</script>"].map(str::to_owned));
        let server = Server::new(behaviours.clone(), &settings, Outside::fixed(NOW_MS, 1), documents);
        let (stop, stopped) = oneshot::channel();
        let server = tokio::spawn(server.run(listeners, async {
            let _ = stopped.await;
        }));
        World { behaviours, address, stop: Some(stop), server }
    }

    async fn client(&self) -> Client {
        Client(TcpStream::connect(&self.address).await.expect("the server accepts"))
    }

    /// One request on a connection of its own.
    async fn ask(&self, request: &str) -> Reply {
        let mut client = self.client().await;
        client.send(request).await;
        client.reply().await
    }

    fn stop(&mut self) {
        self.stop.take().expect("stopped once").send(()).expect("it runs");
    }
}

struct Client(TcpStream);

impl Client {
    async fn send(&mut self, text: &str) {
        self.send_bytes(text.as_bytes()).await;
    }

    async fn send_bytes(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.expect("sent");
    }

    async fn ask(&mut self, request: &str) -> Reply {
        self.send(request).await;
        self.reply().await
    }

    /// The next reply to anything but HEAD.
    async fn reply(&mut self) -> Reply {
        let mut reply = self.head().await;
        let length = reply.header("content-length").expect("replies are sent whole").parse().expect("a number");
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).await.expect("the body");
        reply.body = String::from_utf8(body).expect("text");
        reply
    }

    async fn head(&mut self) -> Reply {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.0.read_u8().await.expect("a reply, not the end of the connection"));
        }
        let head = String::from_utf8(head).expect("heads are ASCII");
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
        let headers = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        Reply { status: status.expect("a status line"), headers, body: String::new() }
    }

    /// Waits until the server has closed the connection without another byte.
    async fn ended(&mut self) {
        let mut rest = Vec::new();
        // A connection that was cut may also end in a reset.
        let _ = self.0.read_to_end(&mut rest).await;
        assert!(rest.is_empty(), "{:?}", String::from_utf8_lossy(&rest));
    }
}

#[derive(Debug)]
struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

impl Reply {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {:?}", self.body))
    }

    /// An error envelope with this status and code, and the request id of the header.
    fn assert_problem(&self, status: u16, code: &str) {
        let body = self.json();
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(body["error"]["status"], status);
        assert_eq!(body["error"]["type"], format!("https://unkey.com/docs/errors/{code}"));
        assert_eq!(body["meta"]["requestId"], self.header("x-request-id").expect("every reply has an id"));
    }
}

fn post(path: &str, headers: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len())
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")
}

/// COM-RT-01 to COM-RT-08 with their BETTERs: exact paths, methods, JSON for what is not there, no redirect of a POST,
/// no CORS; and no refusal costs the connection.
#[tokio::test]
async fn routes_are_exact_and_refusals_are_envelopes() {
    let world = World::start(|_| {}).await;
    let mut client = world.client().await;
    for path in
        ["/v2/test.Echo", "/v2/test.echo/", "/v2//test.echo", "/v2/./test.echo", "/", "/v2/nothing", "/v2/test.echo%20"]
    {
        let reply = client.ask(&post(path, "", "{}")).await;
        reply.assert_problem(404, "unkey/application/invalid_input");
        assert_eq!(reply.json()["error"]["title"], "Not Found");
        assert!(reply.json()["error"].get("errors").is_none(), "COM-ERR-03");
    }
    for (request, allowed) in [
        (get("/v2/test.echo"), "POST"),
        (post("/health/live", "", "{}"), "GET, HEAD"),
        ("OPTIONS /v2/test.echo HTTP/1.1\r\nHost: x\r\nOrigin: http://a\r\nAccess-Control-Request-Method: POST\r\n\r\n".into(), "POST"),
        ("DELETE /openapi.yaml HTTP/1.1\r\nHost: x\r\n\r\n".into(), "GET, HEAD"),
    ] {
        let reply = client.ask(&request).await;
        reply.assert_problem(405, "unkey/application/invalid_input");
        assert_eq!(reply.header("allow"), Some(allowed));
        assert!(!reply.headers.iter().any(|(name, _)| name.starts_with("access-control")), "{reply:?}");
    }
    let reply = client.ask(&post("/v2/test.echo?a=b&Authorization=Bearer%20x", "", "{}")).await;
    assert_eq!((reply.status, &reply.json()["authorization"]), (200, &json!("absent")), "a query string is ignored");
    let reply = client.ask(&get("/health//./live")).await;
    assert_eq!((reply.status, reply.header("location")), (308, Some("/health/live")));
}

/// COM-SYS-01 to COM-SYS-04, COM-RT-04 (HEAD): liveness, health and the documents, each with its content type and an
/// id.
#[tokio::test]
async fn service_routes_answer_without_a_credential() {
    let world = World::start(|_| {}).await;
    let mut client = world.client().await;
    let reply = client.ask(&get("/v2/liveness")).await;
    assert_eq!(reply.json()["meta"]["requestId"], reply.header("x-request-id").expect("an id"));
    assert!(reply.json()["data"]["message"].is_string());
    for (path, content_type, body) in [
        ("/health/live", "application/json", r#"{"status":"ok"}"#),
        ("/health/ready", "application/json", r#"{"status":"ok"}"#),
        ("/health/startup", "application/json", r#"{"status":"ok"}"#),
        ("/openapi.yaml", "application/yaml", "openapi: 3.1.0\n"),
        ("/openapi.json", "application/json", "{}"),
        ("/reference", "text/html; charset=utf-8", "<script>1</script>"),
    ] {
        let reply = client.ask(&get(path)).await;
        assert_eq!(
            (reply.status, reply.header("content-type"), &*reply.body),
            (200, Some(content_type), body),
            "{path}"
        );
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(reply.header("content-security-policy").is_some(), path == "/reference");
        client.send(&get(path).replacen("GET", "HEAD", 1)).await;
        let head = client.head().await;
        let length = body.len().to_string();
        assert_eq!((head.status, head.header("content-length")), (200, Some(length.as_str())), "{path}");
    }
}

/// COM-ERR-02, COM-RT-06: a refusal's header leads to a page of this very server that explains its code; so does the path of
/// `error.type`. Both are there for a browser, under a policy that lets nothing else in, and as text.
#[tokio::test]
async fn a_refusal_leads_to_its_page() {
    let world = World::start(|_| {}).await;
    let mut client = world.client().await;
    let reply = client.ask(&get("/v2/nothing.here")).await;
    let link = reply.header("link").expect("every problem has one");
    let path = link.strip_prefix('<').and_then(|link| link.strip_suffix(">; rel=\"help\"")).expect(link).to_owned();
    let of_type = reply.json()["error"]["type"].as_str().expect("a type").replace("https://unkey.com", "");
    for path in [path, of_type] {
        let page = client.ask(&get(&path)).await;
        assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")), "{path}");
        let policy = page.header("content-security-policy").expect("a policy");
        assert!(policy.starts_with("default-src 'none'") && policy.contains("script-src 'none'"), "{policy}");
        assert!(page.body.contains("unkey/application/invalid_input") && page.body.contains("What to do."));
        let text = client.ask(&get(&format!("{path}.md"))).await;
        assert_eq!(text.header("content-type"), Some("text/markdown; charset=utf-8"));
    }
    for path in ["/docs", "/docs/install", "/errors"] {
        assert_eq!(client.ask(&get(path)).await.status, 200, "{path}");
    }
    assert_eq!(client.ask(&get("/docs//install")).await.header("location"), Some("/docs/install"));
    assert_eq!(client.ask(&get("/errors/no/such/code")).await.status, 404);
}

/// COM-ENV-03, COM-ENV-04, COM-ERR-05, COM-WRL-03, COM-CODE-02: what the layer adds to a reply.
#[tokio::test]
async fn replies_carry_their_headers() {
    let world = World::start(|_| {}).await;
    let mut client = world.client().await;
    let reply = client.ask(&post("/v2/test.echo", "X-Request-Id: req_forged\r\nAccept: text/html\r\n", "")).await;
    assert_eq!(reply.header("content-type"), Some("application/json"), "success is JSON whatever was asked for");
    let id = reply.header("x-request-id").expect("every reply has an id");
    assert_eq!(reply.json()["requestId"], id);
    assert!(
        id != "req_forged" && id.len() >= 4 + 16 && id[4..].bytes().all(|byte| byte.is_ascii_alphanumeric()),
        "{id}"
    );
    assert!(reply.header("date").is_some());

    for (accept, content_type) in [
        ("", "application/json"),
        ("Accept: application/json\r\n", "application/json"),
        ("Accept: */*\r\n", "application/problem+json"),
        ("Accept: text/html, Application/*;q=0.5\r\n", "application/problem+json"),
        ("Accept: text/html\r\nAccept: application/problem+json\r\n", "application/problem+json"),
    ] {
        for path in ["/v2/test.limited", "/v2/nothing"] {
            let reply = client.ask(&post(path, accept, "")).await;
            assert_eq!(reply.header("content-type"), Some(content_type), "{path} {accept:?}");
        }
    }
    let reply = client.ask(&post("/v2/test.limited", "", "")).await;
    let headers =
        ["ratelimit-limit", "ratelimit-remaining", "ratelimit-reset", "retry-after"].map(|name| reply.header(name));
    assert_eq!((reply.status, headers), (429, [Some("2"), Some("0"), Some("7"), Some("7")]));
    let reply = client.ask(&post("/v2/test.noRoom", "", "")).await;
    assert_eq!((reply.status, reply.header("retry-after"), reply.header("ratelimit-limit")), (503, Some("1"), None));
}

/// COM-HDR-01 to COM-HDR-05, COM-AUTH-08, COM-AUTH-11, COM-BODY-01: what the layer reads from a request.
#[tokio::test]
async fn headers_arrive_understood() {
    let world = World::start(|settings| settings.test_mode = true).await;
    let mut client = world.client().await;
    let mut echoed = async |headers: &str| client.ask(&post("/v2/test.echo", headers, "{}")).await.json();

    let plain = echoed("").await;
    for (name, value) in [
        ("now", json!(NOW_MS)),
        ("deadline", json!(NOW_MS + 20_000)),
        ("testTime", json!(null)),
        ("authorization", json!("absent")),
        ("portalSession", json!(null)),
        ("contentType", json!("absent")),
        ("ip", json!("127.0.0.1")),
        ("userAgent", json!(null)),
        ("metricsDisabled", json!(false)),
        ("body", json!("{}")),
    ] {
        assert_eq!(plain[name], value, "{name}");
    }
    for (headers, name, value) in [
        ("Authorization: Bearer  x \r\n", "authorization", "Bearer  x"),
        ("Authorization:\r\n", "authorization", ""),
        ("Authorization: Bearer a\r\nauthorization: Bearer b\r\n", "authorization", "several"),
        ("Cookie:\r\n", "portalSession", ""),
        ("Cookie: a=b; portal_session=abc\r\n", "portalSession", "abc"),
        ("Content-Type: Application/JSON; charset=utf-8\r\n", "contentType", "json"),
        ("Content-Type: text/plain\r\n", "contentType", "text/plain"),
        ("Content-Type: application/jsonp\r\n", "contentType", "application/jsonp"),
        ("Content-Type:\r\n", "contentType", "absent"),
        ("X-Forwarded-For: 1.1.1.1, 198.51.100.7\r\n", "ip", "198.51.100.7"),
        ("User-Agent: speakeasy-sdk/go\r\n", "userAgent", "speakeasy-sdk/go"),
    ] {
        assert_eq!(echoed(headers).await[name].as_str().unwrap_or_default(), value, "{headers:?}");
    }
    assert_eq!(echoed("X-Unkey-Metrics: disabled\r\n").await["metricsDisabled"], true);
    assert_eq!(echoed("X-Unkey-Metrics: Disabled\r\n").await["metricsDisabled"], false);
    assert_eq!(echoed("X-Test-Time: -5\r\n").await["testTime"], -5);
    assert_eq!(echoed("X-Test-Time: soon\r\n").await["testTime"], json!(null), "what is no number is ignored");

    let mut not_text = post("/v2/test.echo", "Authorization: Bearer ?\r\n", "{}").into_bytes();
    let place = not_text.iter().position(|byte| *byte == b'?').expect("it is there");
    not_text[place] = 0xff;
    client.send_bytes(&not_text).await;
    assert_eq!(client.reply().await.json()["authorization"], "not text");

    let strict = World::start(|settings| settings.http.trusted_proxies.clear()).await;
    let reply =
        strict.ask(&post("/v2/test.echo", "X-Test-Time: 5\r\nX-Forwarded-For: 198.51.100.7\r\n", "")).await.json();
    assert_eq!((&reply["testTime"], &reply["ip"]), (&json!(null), &json!("127.0.0.1")), "neither mode nor proxy");
}

/// COM-BODY-02, COM-BODY-03: bodies arrive whole in any framing; too large is 413 however it is sent, and is said to a
/// client that sends all of it before it listens; a broken one is 400.
#[tokio::test]
async fn bodies_are_whole_or_refused() {
    const LIMIT: usize = 100_000;
    let world = World::start(|settings| settings.http.max_body_bytes = LIMIT).await;
    let mut client = world.client().await;
    for size in [0, 1, 5_000, 70_000, LIMIT] {
        let reply = client.ask(&post("/v2/test.echo", "", &"a".repeat(size))).await;
        assert_eq!(reply.json()["bytes"], size);
    }
    let chunked = |chunks: &[&str]| {
        let chunks: String = chunks.iter().map(|chunk| format!("{:x}\r\n{chunk}\r\n", chunk.len())).collect();
        format!("POST /v2/test.echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}")
    };
    let reply = client.ask(&(chunked(&["one ", &"a".repeat(70_000), " two"]) + "0\r\n\r\n")).await;
    assert_eq!(reply.json()["bytes"], 70_008);

    let too_large = "a".repeat(LIMIT + 1);
    for request in [post("/v2/test.echo", "", &too_large), chunked(&[&too_large, "b"]) + "0\r\n\r\n"] {
        let reply = client.ask(&request).await;
        reply.assert_problem(413, "user/bad_request/request_body_too_large");
        assert!(reply.json()["error"]["detail"].as_str().is_some_and(|detail| detail.contains("100000")));
        assert_eq!(reply.json()["error"]["errors"], json!([]));
    }
    // Who asks first hears it before sending anything.
    let mut asking = world.client().await;
    let request = post("/v2/test.echo", "Expect: 100-continue\r\n", &too_large);
    let head = request.split_inclusive("\r\n\r\n").next().expect("a head");
    asking.ask(head).await.assert_problem(413, "user/bad_request/request_body_too_large");

    let mut broken = world.client().await;
    let reply = broken.ask(&(chunked(&["{}"]) + "zz\r\n")).await;
    reply.assert_problem(400, "user/bad_request/request_body_unreadable");
    assert_eq!(reply.json()["error"]["errors"], json!([]));

    assert_eq!(client.ask(&post("/v2/test.echo", "", "{}")).await.status, 200, "COM-RT-07: the connection was kept");
}

/// COM-ERR-07: a bug in one request is one 500 without its text, and nothing else ends.
#[tokio::test]
async fn a_panic_is_one_500() {
    let world = World::start(|_| {}).await;
    let mut client = world.client().await;
    for path in ["/v2/test.panic", "/v2/test.panicLater"] {
        let reply = client.ask(&post(path, "", "{}")).await;
        reply.assert_problem(500, "unkey/application/unexpected_error");
        assert!(!reply.body.contains("purpose"));
    }
    assert_eq!(client.ask(&post("/v2/test.echo", "", "{}")).await.status, 200);
}

/// COM-BODY-09: past the deadline the answer is 408 and the connection stays; a client that goes away hears nothing. In
/// both cases what the operation began comes to its end.
#[tokio::test]
async fn only_the_reply_is_lost() {
    let world = World::start(|settings| settings.http.request_deadline = Duration::from_millis(50)).await;
    let mut client = world.client().await;
    let reply = client.ask(&post("/v2/test.slow", "", "{}")).await;
    reply.assert_problem(408, "user/bad_request/request_timeout");
    assert_eq!(reply.json()["error"]["errors"], json!([]));
    assert_eq!(world.behaviours.finished.load(Ordering::SeqCst), 0);
    world.behaviours.begun.notified().await;
    world.behaviours.gate.notify_one();
    world.behaviours.done.notified().await;
    assert_eq!(client.ask(&post("/v2/test.echo", "", "{}")).await.status, 200);

    // A body that does not come is under the same deadline.
    let mut silent = world.client().await;
    silent.send("POST /v2/test.echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{").await;
    silent.reply().await.assert_problem(408, "user/bad_request/request_timeout");

    let patient = World::start(|_| {}).await;
    let mut client = patient.client().await;
    client.send(&post("/v2/test.slow", "", "{}")).await;
    patient.behaviours.begun.notified().await;
    drop(client);
    // A later request proves that the server has gone on; it does not prove that it has noticed. Both orders are fine.
    assert_eq!(patient.ask(&post("/v2/test.echo", "", "{}")).await.status, 200);
    patient.behaviours.gate.notify_one();
    patient.behaviours.done.notified().await;
    assert_eq!(patient.behaviours.finished.load(Ordering::SeqCst), 1);
}

/// COM-BODY-09, AN-RES-01: what only looks something up bounds its own time and stops when its client has gone; the reading
/// of its body is under the deadline all the same.
#[tokio::test]
async fn what_only_looks_stops_with_its_client() {
    let world = World::start(|settings| settings.http.request_deadline = Duration::from_millis(50)).await;
    let mut client = world.client().await;
    client.send(&post("/v2/test.look", "", "{}")).await;
    world.behaviours.begun.notified().await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    world.behaviours.gate.notify_one();
    assert_eq!(client.reply().await.status, 200, "long after the deadline");
    world.behaviours.dropped.notified().await;

    client.send(&post("/v2/test.look", "", "{}")).await;
    world.behaviours.begun.notified().await;
    drop(client);
    world.behaviours.dropped.notified().await;

    let mut silent = world.client().await;
    silent.send("POST /v2/test.look HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{").await;
    silent.reply().await.assert_problem(408, "user/bad_request/request_timeout");
}

/// Abandoned operations are bounded: a connection that gives up one after the other is told to wait, with a status that
/// promises that nothing was done (COM-CODE-02), until they end.
#[tokio::test]
async fn giving_up_has_a_bound() {
    let world = World::start(|settings| settings.http.request_deadline = Duration::from_millis(1)).await;
    let mut client = world.client().await;
    let mut given_up = 0;
    let refusal = loop {
        let reply = client.ask(&post("/v2/test.slow", "", "{}")).await;
        if reply.status != 408 {
            break reply;
        }
        given_up += 1;
    };
    refusal.assert_problem(503, "unkey/application/service_unavailable");
    assert_eq!((given_up, refusal.header("retry-after")), (64, Some("1")));
    for finished in 1..=given_up {
        while world.behaviours.finished.load(Ordering::SeqCst) < finished {
            world.behaviours.gate.notify_waiters();
            tokio::task::yield_now().await;
        }
    }
    // The count goes down when a task is dropped, a moment after its last line.
    while client.ask(&post("/v2/test.echo", "", "{}")).await.status != 200 {}
}

/// COM-RT-10: asked to stop, the server takes no new connection, says so to health, lets idle ones go and finishes
/// what runs.
#[tokio::test]
async fn a_stop_finishes_what_runs() {
    let mut world = World::start(|_| {}).await;
    let mut idle = world.client().await;
    assert_eq!(idle.ask(&post("/v2/test.echo", "", "{}")).await.status, 200);
    let mut running = world.client().await;
    running.send(&post("/v2/test.slow", "", "{}")).await;
    // Answered in order on the same connection, after the stop.
    world.behaviours.begun.notified().await;
    world.stop();
    idle.ended().await;
    assert!(TcpStream::connect(&world.address).await.is_err(), "nothing new is accepted");
    world.behaviours.gate.notify_one();
    assert_eq!(running.reply().await.status, 200);
    running.ended().await;
    assert_eq!(world.server.await.expect("no bug"), Drained::All);
}

/// The drain's deadline: a request that does not end is cut off, and the server's end does not wait for it.
#[tokio::test]
async fn a_stop_has_a_deadline() {
    let mut world = World::start(|settings| settings.http.shutdown_deadline = Duration::from_millis(20)).await;
    let mut running = world.client().await;
    running.send(&post("/v2/test.slow", "", "{}")).await;
    world.behaviours.begun.notified().await;
    world.stop();
    running.ended().await;
    assert_eq!(world.server.await.expect("no bug"), Drained::Cut);
}

/// Connections are bounded: at the limit the next waits until one closes, and is then served.
#[tokio::test]
async fn connections_wait_for_a_place() {
    let world = World::start(|settings| settings.http.max_connections = 1).await;
    let mut first = world.client().await;
    assert_eq!(first.ask(&post("/v2/test.echo", "", "{}")).await.status, 200);
    let mut second = world.client().await;
    second.send(&post("/v2/test.echo", "", "{}")).await;
    assert_eq!(first.ask(&post("/v2/test.echo", "", "{}")).await.status, 200, "the first still has the only place");
    assert!(second.0.try_read(&mut [0; 1]).is_err(), "and the second has no answer");
    drop(first);
    assert_eq!(second.reply().await.status, 200);
}

/// A head that does not end, a head that is too large, a connection that is never used again, one that never says
/// anything: each is closed by the server.
#[tokio::test]
async fn nobody_holds_a_place_for_nothing() {
    let strict = World::start(|settings| settings.http.header_read_timeout = Duration::from_millis(500)).await;
    let mut unfinished = strict.client().await;
    unfinished.send("POST /v2/test.echo HT").await;
    let mut silent = strict.client().await;
    let mut second = strict.client().await;
    assert_eq!(second.ask(&post("/v2/test.echo", "", "{}")).await.status, 200);
    second.send("PO").await;
    unfinished.ended().await;
    silent.ended().await;
    second.ended().await;

    let hasty = World::start(|settings| settings.http.idle_timeout = Duration::from_millis(50)).await;
    let mut unused = hasty.client().await;
    assert_eq!(unused.ask(&post("/v2/test.echo", "", "{}")).await.status, 200);
    unused.ended().await;

    let roomy = World::start(|_| {}).await;
    let mut large = roomy.client().await;
    large.send(&format!("GET /health/live HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\n", "a".repeat(20_000))).await;
    assert_eq!(large.head().await.status, 431);
    let mut many = roomy.client().await;
    many.send(&format!("GET /health/live HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: b\r\n".repeat(150))).await;
    assert_eq!(many.head().await.status, 431);
}

/// An HTTP/2 connection's first bytes: settings, and one request to `test.echo` with this body, frame by frame.
fn http2_echo(settings: &[u8], body: &[&[u8]]) -> Vec<u8> {
    let frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        let length = u32::try_from(payload.len()).expect("small").to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    };
    // Static table: `:method POST`, `:scheme http`; then `:path` and `:authority` as literals.
    let path = "/v2/test.echo";
    let fields = [&[0x83, 0x86, 0x04, path.len() as u8], path.as_bytes(), &[0x01, 1, b'x']].concat();
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend([frame(4, 0, 0, settings), frame(1, 4, 1, &fields)].concat());
    for (number, piece) in body.iter().enumerate() {
        bytes.extend(frame(0, u8::from(number + 1 == body.len()), 1, piece));
    }
    bytes
}

/// Who does not read a reply loses the connection, and the memory is free again: over HTTP/1.1 by leaving the socket
/// full, over HTTP/2 by granting no window while the socket is empty. Who reads gets all of it, however large.
#[tokio::test]
async fn a_reply_that_is_not_read_is_not_kept() {
    const LARGE: usize = 9 * 1024 * 1024;
    let patient = World::start(|_| {}).await;
    let reply = patient.ask(&post("/v2/test.echo", "", &"x".repeat(LARGE))).await;
    assert_eq!((reply.status, reply.json()["bytes"].as_u64()), (200, Some(LARGE as u64)));

    // Neither the idle timeout nor the drain's deadline would end these in time: the server ends with nothing cut.
    let mut world = World::start(|settings| settings.http.reply_stall_timeout = Duration::from_millis(50)).await;
    let mut deaf = world.client().await;
    deaf.send(&post("/v2/test.echo", "", &"x".repeat(LARGE))).await;
    assert_eq!(deaf.head().await.status, 200);

    let mut windowless = world.client().await;
    // SETTINGS_INITIAL_WINDOW_SIZE is 0; what is echoed is twice as long, since a quotation mark is escaped.
    let quotes = vec![b'"'; 10_000];
    windowless.send_bytes(&http2_echo(&[0, 4, 0, 0, 0, 0], &[&*quotes; 4])).await;
    let mut frames = Vec::new();
    let _ = windowless.0.read_to_end(&mut frames).await;
    assert!(!frames.is_empty() && frames.len() < 4_096, "a head, and no body: {} bytes", frames.len());

    world.stop();
    assert_eq!(world.server.await.expect("no bug"), Drained::All);
    let mut rest = Vec::new();
    let _ = deaf.0.read_to_end(&mut rest).await;
    assert!(rest.len() < LARGE, "it was cut off");
}

/// COM-RT-07: HTTP/2 without TLS, by its preface (RFC 9113, RFC 7541): one request, frame by frame.
#[tokio::test]
async fn http2_is_understood() {
    let world = World::start(|_| {}).await;
    let mut client = world.client().await;
    client.send_bytes(&http2_echo(&[], &[b"{}"])).await;
    let (mut status, mut body) = (None, Vec::new());
    loop {
        let mut head = [0; 9];
        client.0.read_exact(&mut head).await.expect("a frame");
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        client.0.read_exact(&mut payload).await.expect("its payload");
        match head[3] {
            0 => body.extend(payload),
            1 => status = payload.first().copied(),
            _ => {}
        }
        if head[3] <= 1 && head[4] & 1 == 1 {
            break;
        }
    }
    assert_eq!(status, Some(0x88), "`:status 200` of the static table");
    let echoed: Value = serde_json::from_slice(&Bytes::from(body)).expect("JSON");
    assert_eq!(echoed["body"], "{}");
}
