//! Parcels of events, as HTTP between two nodes.
//!
//! `GET /replication/events?source=N` tells how far the leader is with a follower's events; `POST /replication/events` brings a
//! parcel. Both answer with the header `keyward-marks`, two numbers of batches. 200: the parcel is durable, now or before. 409: a
//! part of it is there. 400: it is no parcel. 503: not now. 421: this node does not lead, and reaches nobody who does. A node in between
//! hands both on as they are, and the leader's answers back.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode, Uri};
use keyward_query::events::{Marks, PARCEL_BYTES_MAX, Taken, Untaken};
use tokio::time::timeout;

use super::bodies::Share;
use super::forward::{HOPS, bare, number, status_of};
use super::link::{Body, Link, LinkError, whole};
use crate::app::Services;
use crate::replication::forward::HOPS_MAX;

/// Where parcels go.
pub const PATH: &str = "/replication/events";
/// How long the leader may take for one.
const TIME_MAX: Duration = Duration::from_secs(60);

/// Bytes of text in an answer that is handed back.
const TEXT_BYTES_MAX: usize = 4096;

const MARKS: HeaderName = HeaderName::from_static("keyward-marks");

/// What became of a parcel that reached the leader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// It is there, and so is everything up to these batches.
    Taken(Marks),
    /// A part of it was there already.
    Overlaps,
    /// The leader did not take it; why.
    Refused(String),
}

/// Why the leader did not say.
#[derive(Debug, thiserror::Error)]
pub enum Undelivered {
    /// There was no reply.
    #[error("the leader did not reply: {0}")]
    Link(#[from] LinkError),
    /// It did not come in time.
    #[error("the leader did not reply within {} s", TIME_MAX.as_secs())]
    Late,
    /// It says something that this version does not understand.
    #[error("the leader answered with status {0}")]
    Strange(StatusCode),
}

/// Asks the leader how far it is with a source's events.
///
/// # Errors
/// It did not say.
pub async fn ask_marks(link: &Link, source: u32) -> Result<Marks, Undelivered> {
    let mut request = Request::new(whole(bytes::Bytes::new()));
    *request.uri_mut() =
        Uri::try_from(format!("{PATH}?source={source}")).expect("a path with a number in its query is a URI");
    let reply = timeout(TIME_MAX, link.request(request)).await.map_err(|_| Undelivered::Late)??;
    marks_of(reply.headers()).ok_or(Undelivered::Strange(reply.status()))
}

/// Brings the leader a parcel.
///
/// # Errors
/// It did not say what became of it.
pub async fn deliver(link: &Link, parcel: Vec<u8>) -> Result<Delivery, Undelivered> {
    let mut request = Request::new(whole(parcel));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::from_static(PATH);
    let reply = timeout(TIME_MAX, link.request(request)).await.map_err(|_| Undelivered::Late)??;
    let (status, marks) = (reply.status(), marks_of(reply.headers()));
    match (status, marks) {
        (StatusCode::OK, Some(marks)) => Ok(Delivery::Taken(marks)),
        (StatusCode::CONFLICT, _) => Ok(Delivery::Overlaps),
        (StatusCode::BAD_REQUEST | StatusCode::SERVICE_UNAVAILABLE | StatusCode::MISDIRECTED_REQUEST, _) => {
            let said = reply.into_body().collect().await.map(|said| said.to_bytes()).unwrap_or_default();
            let said: String = String::from_utf8_lossy(&said).chars().take(200).collect();
            Ok(Delivery::Refused(format!("{status}: {said}")))
        }
        _ => Err(Undelivered::Strange(status)),
    }
}

fn marks_of(headers: &HeaderMap) -> Option<Marks> {
    let (verifications, ratelimits) = headers.get(MARKS)?.to_str().ok()?.split_once(' ')?;
    Some(Marks { verifications: verifications.parse().ok()?, ratelimits: ratelimits.parse().ok()? })
}

/// Answers another node that asks for its marks, or brings a parcel.
pub async fn answer(services: &Arc<Services>, share: &Share, request: Request<Incoming>) -> Response<Body> {
    let (head, mut body) = request.into_parts();
    if !services.node.is_leader() {
        return relay(services, share, head, body).await;
    }
    let Some(events) = services.events.clone() else {
        return said(StatusCode::MISDIRECTED_REQUEST, None, "this node keeps no events");
    };
    if head.method == Method::GET {
        let source = head.uri.query().and_then(|query| query.strip_prefix("source=")?.parse().ok());
        let Some(source) = source else { return bare(StatusCode::BAD_REQUEST) };
        return match tokio::task::spawn_blocking(move || events.marks(source)).await {
            Ok(Ok(marks)) => said(StatusCode::OK, Some(marks), ""),
            Ok(Err(_)) | Err(_) => said(StatusCode::SERVICE_UNAVAILABLE, None, "the store of events has stopped"),
        };
    }
    let (parcel, _held) = match share.gather(&mut body, PARCEL_BYTES_MAX).await {
        Ok(read) => read,
        Err(unread) => return bare(status_of(&unread)),
    };
    let taking = Arc::clone(services);
    let taken = tokio::task::spawn_blocking(move || {
        let taken = events.take_parcel(&parcel);
        if let Ok(Taken { uses, .. }) = &taken {
            match taking.known_uses(uses.clone()) {
                Ok(uses) => taking.storage.note_uses(uses),
                Err(error) => tracing::warn!(%error, "last uses of keys from another node were not noted"),
            }
        }
        taken
    });
    match taken.await {
        Ok(Ok(Taken { marks, .. })) => said(StatusCode::OK, Some(marks), ""),
        Ok(Err(Untaken::Overlaps(marks))) => said(StatusCode::CONFLICT, Some(marks), "a part of it is here"),
        Ok(Err(error @ Untaken::Malformed(_))) => {
            tracing::error!(%error, "another node's events were refused; is its version the same?");
            said(StatusCode::BAD_REQUEST, None, &error.to_string())
        }
        Ok(Err(error @ Untaken::Later)) => said(StatusCode::SERVICE_UNAVAILABLE, None, &error.to_string()),
        Err(_) => said(StatusCode::SERVICE_UNAVAILABLE, None, "taking it ended by a bug"),
    }
}

/// Hands a question, or a parcel, on to the node that this one follows.
async fn relay(services: &Arc<Services>, share: &Share, head: Parts, mut body: Incoming) -> Response<Body> {
    let away = |text: &str| said(StatusCode::MISDIRECTED_REQUEST, None, text);
    let hops = number(&head.headers, &HOPS).unwrap_or(0) + 1;
    if hops > u64::from(HOPS_MAX) {
        return away("it came through more nodes than can be in one chain: do they follow each other in a circle?");
    }
    let Some(link) = services.node.link().filter(|link| link.is_up()) else {
        return away("this node does not lead, and reaches nobody who does");
    };
    let (parcel, _held) = match share.gather(&mut body, PARCEL_BYTES_MAX).await {
        Ok(read) => read,
        Err(unread) => return bare(status_of(&unread)),
    };
    let mut request = Request::new(whole(parcel));
    (*request.method_mut(), *request.uri_mut()) = (head.method, head.uri);
    request.headers_mut().insert(HOPS, HeaderValue::from(hops));
    match timeout(TIME_MAX, link.request(request)).await {
        Ok(Ok(reply)) => {
            let (status, marks) = (reply.status(), marks_of(reply.headers()));
            let text = Limited::new(reply.into_body(), TEXT_BYTES_MAX).collect().await;
            let text = text.map(|text| text.to_bytes()).unwrap_or_default();
            said(status, marks, &String::from_utf8_lossy(&text))
        }
        // Whether it arrived is not known: whoever brought it asks, and brings it again.
        Ok(Err(_)) | Err(_) => said(StatusCode::SERVICE_UNAVAILABLE, None, "the leader did not reply"),
    }
}

fn said(status: StatusCode, marks: Option<Marks>, text: &str) -> Response<Body> {
    let mut response = Response::new(whole(text.to_owned()));
    *response.status_mut() = status;
    if let Some(Marks { verifications, ratelimits }) = marks
        && let Ok(value) = HeaderValue::try_from(format!("{verifications} {ratelimits}"))
    {
        response.headers_mut().insert(MARKS, value);
    }
    response
}
