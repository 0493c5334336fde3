//! What HTTP answers besides operations: liveness, health, the OpenAPI document and its reference page (COM-SYS), the
//! documentation and the error pages.
//!
//! None of these needs a credential, and none is recorded.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};
use sha2::{Digest, Sha256};

use crate::api::problem::JSON;
use crate::api::wire::RequestId;
use crate::health::{Fit, Reason};
use crate::help;
use crate::metrics::CONTENT_TYPE;

/// Where metrics are.
pub(super) const METRICS_PATH: &str = "/metrics";

/// The documents of the API, made when the first of them is asked for: most servers are never asked, and making them takes
/// several times the memory of what is made.
pub struct Documents(LazyLock<Made, Box<dyn FnOnce() -> Made + Send>>);

struct Made {
    openapi_yaml: Bytes,
    openapi_json: Bytes,
    reference: Bytes,
    reference_policy: HeaderValue,
}

impl Documents {
    /// `make` gives the OpenAPI document as YAML and as JSON, and the reference page.
    pub fn new(make: impl FnOnce() -> [String; 3] + Send + 'static) -> Documents {
        Documents(LazyLock::new(Box::new(move || {
            let [openapi_yaml, openapi_json, reference_html] = make();
            let policy = content_security_policy(&reference_html);
            Made {
                openapi_yaml: Bytes::from(openapi_yaml),
                openapi_json: Bytes::from(openapi_json),
                reference_policy: HeaderValue::try_from(policy).expect("a policy is made of ASCII words and base64"),
                reference: Bytes::from(reference_html),
            }
        })))
    }
}

/// A GET route that is no operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Page {
    Liveness,
    HealthLive,
    HealthReady,
    HealthReadyForWrites,
    HealthStartup,
    OpenapiYaml,
    OpenapiJson,
    Reference,
    Metrics,
    Help(help::Page),
}

/// How far the server is, as health tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Starting,
    Ready,
    Draining,
}

/// What the health pages tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Health {
    pub(super) stage: Stage,
    /// Why the server does not keep all that it promises.
    pub(super) degraded: Vec<Reason>,
    pub(super) fit: Fit,
}

/// The page at a path; paths are case-sensitive and have no other spelling (COM-RT-05).
pub(super) fn find(path: &str) -> Option<Page> {
    Some(match path {
        "/v2/liveness" => Page::Liveness,
        "/health/live" => Page::HealthLive,
        "/health/ready" => Page::HealthReady,
        "/health/ready/writes" => Page::HealthReadyForWrites,
        "/health/startup" => Page::HealthStartup,
        "/openapi.yaml" => Page::OpenapiYaml,
        "/openapi.json" => Page::OpenapiJson,
        "/reference" => Page::Reference,
        METRICS_PATH => Page::Metrics,
        _ => return help::find(path).map(Page::Help),
    })
}

/// The page as a reply, but for metrics, which are asked for elsewhere; whoever sends it adds the request id.
pub(super) fn reply(page: Page, at: &Health, documents: &Documents, request_id: RequestId) -> Response<Bytes> {
    match page {
        Page::Liveness => {
            let body = format!(r#"{{"meta":{{"requestId":"{request_id}"}},"data":{{"message":"keyward is alive"}}}}"#);
            document(JSON, Bytes::from(body))
        }
        // A process that is draining is alive: restarting it would cut what it is finishing.
        Page::HealthLive | Page::HealthStartup => health(at.stage != Stage::Starting, at),
        Page::HealthReady => health(at.stage == Stage::Ready && at.fit.reads, at),
        Page::HealthReadyForWrites => health(at.stage == Stage::Ready && at.fit.writes, at),
        Page::OpenapiYaml => document("application/yaml", documents.0.openapi_yaml.clone()),
        Page::OpenapiJson => document(JSON, documents.0.openapi_json.clone()),
        Page::Reference => {
            page_of("text/html; charset=utf-8", documents.0.reference.clone(), documents.0.reference_policy.clone())
        }
        Page::Help(page) => {
            let (content_type, text) = page.render();
            let policy = HeaderValue::try_from(content_security_policy(&text)).expect("a policy is ASCII");
            page_of(content_type, Bytes::from(text), policy)
        }
        Page::Metrics => metrics(String::new()),
    }
}

/// A scrape's answer.
pub(super) fn metrics(exposition: String) -> Response<Bytes> {
    let mut response = document(CONTENT_TYPE, Bytes::from(exposition));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A document that a browser shows, under a policy that lets nothing else in.
fn page_of(content_type: &'static str, body: Bytes, policy: HeaderValue) -> Response<Bytes> {
    let mut response = document(content_type, body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

fn health(good: bool, at: &Health) -> Response<Bytes> {
    let status = match at.stage {
        // Still 200: whoever takes a server out of service for it would lose more than events.
        _ if good && !at.degraded.is_empty() => {
            let reasons: Vec<String> = at.degraded.iter().map(|reason| format!("\"{}\"", reason.word())).collect();
            Bytes::from(format!(r#"{{"status":"degraded","reasons":[{}]}}"#, reasons.join(",")))
        }
        _ if good => Bytes::from_static(br#"{"status":"ok"}"#),
        Stage::Starting => Bytes::from_static(br#"{"status":"not started"}"#),
        Stage::Draining => Bytes::from_static(br#"{"status":"shutting down"}"#),
        // A follower before it has its leader's records, or for changes a node that reaches nobody who takes them.
        Stage::Ready if !at.fit.reads => Bytes::from_static(br#"{"status":"no records yet"}"#),
        Stage::Ready => Bytes::from_static(br#"{"status":"changes are not taken"}"#),
    };
    let mut response = document(JSON, status);
    if !good {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn document(content_type: &'static str, body: Bytes) -> Response<Bytes> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Allows exactly the scripts and styles that stand in the page, by their hashes, and nothing from elsewhere
/// (COM-SYS-03; Content Security Policy level 2, section 4.2.5). The page may fetch documents of this server.
fn content_security_policy(html: &str) -> String {
    let hashes = |element: &str| {
        let sources: Vec<String> = inline_texts(html, element)
            .map(|text| format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text))))
            .collect();
        if sources.is_empty() { "'none'".to_owned() } else { sources.join(" ") }
    };
    format!(
        "default-src 'none'; script-src {}; style-src {}; img-src 'self' data:; connect-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
        hashes("script"),
        hashes("style"),
    )
}

/// The texts between `<element …>` and `</element>` in a page of our own making, lower case and well-formed.
fn inline_texts<'a>(html: &'a str, element: &str) -> impl Iterator<Item = &'a str> {
    let (open, close) = (format!("<{element}"), format!("</{element}>"));
    let mut rest = html;
    std::iter::from_fn(move || {
        let tag = &rest[rest.find(&open)?..];
        let text = &tag[tag.find('>')? + 1..];
        let end = text.find(&close)?;
        rest = &text[end + close.len()..];
        Some(&text[..end])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// COM-SYS-03: the reference page's own script and style run, nobody else's. The hash of the empty text is well
    /// known.
    #[test]
    fn the_policy_names_what_stands_in_the_page() {
        let policy = content_security_policy("<style>a{}</style><script type=\"module\"></script><script>x</script>");
        assert!(
            policy.contains("script-src 'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=' 'sha256-"),
            "{policy}"
        );
        assert!(policy.contains("style-src 'sha256-"), "{policy}");
        assert!(!policy.contains("unsafe") && policy.starts_with("default-src 'none'"), "{policy}");
        assert!(content_security_policy("<p>no script</p>").contains("script-src 'none'"));
    }
}
