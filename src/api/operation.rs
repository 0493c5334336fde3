//! What an operation is, and what the table of operations knows of it.
//!
//! An operation is declared once, in its own file, as a type that implements [`Operation`]. [`Entry::of`] turns it into
//! a row of the table: plain values and functions, from which the route, the document, the reference page and the
//! command line are made.
//!
//! A row's `serve` is the whole road of a request for that operation, compiled for its types (`super::serve`): one future,
//! allocated once.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::call::Call;
use super::problem::{Code, Problem};
use super::wire::{Inbound, Outbound, RequestId};
use super::{shape, validate};
use crate::app::Services;

/// One operation of the API: what it takes, answers, asks for, and may go wrong with.
pub trait Operation: Send + 'static {
    /// `<family>.<procedure>`, `keys.createKey` for instance; its path is `/v2/<name>`.
    const NAME: &'static str;
    /// What it does, in one line.
    const SUMMARY: &'static str;
    /// What one should know before calling it: paragraphs, separated by empty lines.
    const DESCRIPTION: &'static str = "";
    /// Who calls it.
    const CREDENTIAL: Credential = Credential::RootKey;
    /// Whether it can be called without a body.
    const BODY: Body = Body::Required;
    /// How long it may take, and what becomes of it when nobody waits any more.
    const PACE: Pace = Pace::Finishes;
    /// How a node answers it that follows another one.
    const ON_FOLLOWER: OnFollower = OnFollower::Leader;
    /// The permissions that open it, as people grant them: `api.*.create_key`, `api.<apiId>.create_key`,
    /// `unkey:v1:<workspaceId>:keyspaces/<keyspaceId>#create_key`. Any of them will do, where the description does not
    /// say otherwise; what is needed together is joined by ` & `. This is documentation; the handler asks.
    const ALLOWS: &'static [&'static str];
    /// The codes it may answer with, beside [`COMMON_FAILURES`].
    const FAILS: &'static [Code];
    /// The audit events it may write.
    const AUDITS: &'static [&'static str] = &[];

    /// The body.
    type Request: DeserializeOwned + JsonSchema + Send + 'static;
    /// The answer.
    type Response: Reply;

    /// The handler. Its future is run to its end even when the client hangs up, but for [`Pace::Stops`].
    fn run(call: Call, ask: Self::Request) -> impl Future<Output = Result<Self::Response, Problem>> + Send;
}

/// What an operation's caller proves itself with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credential {
    /// A root key as bearer (COM-AUTH).
    RootKey,
    /// The cookie of a portal session (PT-AUTH).
    PortalSession,
    /// Nothing but what is in the body.
    None,
}

/// Whether a request has a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// Always (COM-BODY-01).
    Required,
    /// Where there is none it is read as `{}`, and no content type is asked for: some clients send neither for an operation
    /// without parameters.
    Optional,
}

/// How long an operation may take, and what becomes of it when its client has hung up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// The server's deadline holds. It runs to its end in any case: what it began to change is changed.
    Finishes,
    /// It changes nothing, and bounds its own time. It stops when nobody waits for it.
    Stops,
}

/// How a node that follows another one answers an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFollower {
    /// By itself, out of the records that it has. Where it comes to a change after all, the leader answers instead.
    Local,
    /// A verification of a key: by itself unless credits or rate limits come into it. Those are the leader's to count; while it
    /// is away they are counted here.
    Verify,
    /// A limit: the leader counts; while it is away, this node.
    Limit,
    /// The leader alone: it changes something, or needs what only the leader has.
    Leader,
}

impl OnFollower {
    /// Whether it is answered here while the leader is away, although the leader should.
    pub fn goes_on_alone(self) -> bool {
        matches!(self, OnFollower::Verify | OnFollower::Limit)
    }
}

/// Codes that any operation may answer with: they come from the steps before the handler, from storage, or from bugs.
pub const COMMON_FAILURES: &[Code] = &[
    Code::InvalidInput,
    Code::CredentialMissing,
    Code::CredentialMalformed,
    Code::RootKeyNotFound,
    Code::WorkspaceNotFound,
    Code::WorkspaceDisabled,
    Code::KeyDisabled,
    Code::Forbidden,
    Code::InsufficientPermissions,
    Code::WorkspaceRateLimited,
    Code::RequestBodyTooLarge,
    Code::RequestBodyUnreadable,
    Code::RequestTimeout,
    Code::ClientClosedRequest,
    Code::UnexpectedError,
    Code::ServiceUnavailable,
    Code::AssertionFailed,
];

/// A row of the table of operations.
pub struct Entry {
    /// [`Operation::NAME`].
    pub name: &'static str,
    /// `/v2/<name>`.
    pub path: &'static str,
    /// What comes before the dot of the name.
    pub family: &'static str,
    /// What comes after it.
    pub procedure: &'static str,
    /// [`Operation::SUMMARY`].
    pub summary: &'static str,
    /// [`Operation::DESCRIPTION`].
    pub description: &'static str,
    /// [`Operation::CREDENTIAL`].
    pub credential: Credential,
    /// [`Operation::BODY`].
    pub body: Body,
    /// [`Operation::PACE`].
    pub pace: Pace,
    /// [`Operation::ON_FOLLOWER`].
    pub on_follower: OnFollower,
    /// [`Operation::ALLOWS`].
    pub allows: &'static [&'static str],
    /// [`Operation::FAILS`].
    pub fails: &'static [Code],
    /// [`Operation::AUDITS`].
    pub audits: &'static [&'static str],
    /// The schema of the body.
    pub request_schema: fn() -> Value,
    /// The schemas of the answer's members beside `meta`.
    pub reply_schema: fn() -> ReplySchema,
    /// Says what is wrong with a body, if anything (COM-VAL).
    pub check: fn(&[u8]) -> Result<(), Problem>,
    /// Answers a request.
    pub serve: Serve,
}

impl Entry {
    /// The row of an operation.
    pub const fn of<O: Operation>() -> Entry {
        let (family, procedure) = Name::<O>::PARTS;
        Entry {
            name: O::NAME,
            path: Name::<O>::PATH,
            family,
            procedure,
            summary: O::SUMMARY,
            description: O::DESCRIPTION,
            credential: O::CREDENTIAL,
            body: O::BODY,
            pace: O::PACE,
            on_follower: O::ON_FOLLOWER,
            allows: O::ALLOWS,
            fails: O::FAILS,
            audits: O::AUDITS,
            request_schema: shape::request_schema::<O::Request>,
            reply_schema: O::Response::schema,
            check: |body| decode::<O>(body).map(drop),
            serve: super::serve::<O>,
        }
    }

    /// An operation's path.
    pub(super) const fn path_of<O: Operation>() -> &'static str {
        Name::<O>::PATH
    }

    /// Whether the operation says that it may answer with this code.
    pub fn declares(&self, code: Code) -> bool {
        COMMON_FAILURES.contains(&code) || self.fails.contains(&code)
    }
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Entry").field(&self.name).finish()
    }
}

/// An answer in the making.
pub type Serving = Pin<Box<dyn Future<Output = Outbound> + Send>>;

/// From a request to its answer.
pub type Serve = fn(Arc<Services>, Inbound) -> Serving;

/// Takes an operation's name apart, while compiling.
struct Name<O>(std::marker::PhantomData<O>);

impl<O: Operation> Name<O> {
    const PREFIX: &'static [u8] = b"/v2/";

    /// Longest path that fits; a longer name does not compile.
    const PATH_BYTES: [u8; 96] = {
        let (mut path, mut at) = ([0; 96], 0);
        while at < Self::PREFIX.len() {
            path[at] = Self::PREFIX[at];
            at += 1;
        }
        while at < Self::PREFIX.len() + O::NAME.len() {
            path[at] = O::NAME.as_bytes()[at - Self::PREFIX.len()];
            at += 1;
        }
        path
    };

    const PATH: &'static str = match str::from_utf8(Self::PATH_BYTES.split_at(Self::PREFIX.len() + O::NAME.len()).0) {
        Ok(path) => path,
        Err(_) => panic!("an operation's name is a string, and so is its path"),
    };

    /// Family and procedure.
    const PARTS: (&'static str, &'static str) = {
        let mut dot = 0;
        while O::NAME.as_bytes()[dot] != b'.' {
            dot += 1;
        }
        let (family, rest) = O::NAME.split_at(dot);
        (family, rest.split_at(1).1)
    };
}

/// Reads a body, or says what is wrong with it (COM-VAL).
pub(super) fn decode<O: Operation>(body: &[u8]) -> Result<O::Request, Problem> {
    let body = if body.is_empty() && O::BODY == Body::Optional { b"{}" } else { body };
    validate::decode::<O::Request>(Name::<O>::PATH, body)
}

/// Turns what the handler said into a reply's body.
pub(super) fn finish<O: Operation>(
    answer: Result<O::Response, Problem>,
    request_id: RequestId,
) -> Result<Vec<u8>, Problem> {
    match answer {
        Ok(reply) => envelope(&reply, request_id),
        Err(problem) => {
            let declared = COMMON_FAILURES.contains(&problem.code()) || O::FAILS.contains(&problem.code());
            if !declared {
                tracing::error!(operation = O::NAME, code = problem.code().path(), "a code that was not declared");
            }
            debug_assert!(declared, "{} answers with {:?}, which it does not declare", O::NAME, problem.code());
            Err(problem)
        }
    }
}

/// The body of an operation's success, where it always says the same: nothing.
pub(super) fn only_reply<O: Operation>(request_id: RequestId) -> Result<Option<Vec<u8>>, Problem> {
    let ReplySchema { data, paged, more } = O::Response::schema();
    let is_empty = |data: &Value| {
        data.get("properties").is_none_or(|members| members.as_object().is_some_and(serde_json::Map::is_empty))
            && data["type"] == "object"
            && data["additionalProperties"] == false
    };
    match &data {
        _ if paged || !more.is_empty() => Ok(None),
        None => envelope(&NoData, request_id).map(Some),
        Some(data) if is_empty(data) => envelope(&shape::Empty {}, request_id).map(Some),
        Some(_) => Ok(None),
    }
}

/// Writes `{"meta":{"requestId":…},…}` (COM-ENV-01, COM-ENV-02) straight into one buffer.
pub fn envelope<R: Reply>(reply: &R, request_id: RequestId) -> Result<Vec<u8>, Problem> {
    /// Most answers fit; a page of a list grows the buffer.
    const CAPACITY: usize = 512;
    let mut body = Vec::with_capacity(CAPACITY);
    // A request id has no character that JSON escapes.
    body.extend_from_slice(br#"{"meta":{"requestId":""#);
    body.extend_from_slice(request_id.as_str().as_bytes());
    body.extend_from_slice(br#""}"#);
    reply.write(&mut body).map_err(Problem::unexpected)?;
    body.push(b'}');
    Ok(body)
}

/// An answer: the members of a success reply beside `meta`.
///
/// Whatever serializes is one, as `data`. A list is a [`Page`]; an answer without data is [`NoData`]. An operation
/// whose reply has other members implements this for its own type.
pub trait Reply: Send {
    /// Appends `,"<member>":<value>` for each member.
    ///
    /// # Errors
    /// What serializing says; for a stored text that is no JSON, for instance.
    fn write(&self, out: &mut Vec<u8>) -> serde_json::Result<()>;

    /// The members' schemas.
    fn schema() -> ReplySchema;
}

/// The schemas of a [`Reply`]'s members.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplySchema {
    /// The schema of `data`; `None` where the reply has none.
    pub data: Option<Value>,
    /// Whether there is a `pagination`.
    pub paged: bool,
    /// Other members, by name.
    pub more: Vec<(&'static str, Value)>,
}

impl<T: Serialize + JsonSchema + Send> Reply for T {
    fn write(&self, out: &mut Vec<u8>) -> serde_json::Result<()> {
        out.extend_from_slice(br#","data":"#);
        serde_json::to_writer(out, self)
    }

    fn schema() -> ReplySchema {
        ReplySchema { data: Some(shape::response_schema::<T>()), paged: false, more: Vec::new() }
    }
}

/// A page of a list (COM-PAG): its rows as `data`, and whether more follow.
#[derive(Debug, Clone)]
pub struct Page<T> {
    rows: Vec<T>,
    cursor: Option<String>,
}

impl<T> Page<T> {
    /// A page, and where the next one begins; `None` on the last.
    pub fn new(rows: Vec<T>, cursor: Option<String>) -> Page<T> {
        Page { rows, cursor }
    }
}

/// `pagination`. A cursor is there exactly when more follows: clients go on for ever while there is one (COM-PAG-02).
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Pagination<'a> {
    has_more: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<&'a str>,
}

impl<T: Serialize + JsonSchema + Send> Reply for Page<T> {
    fn write(&self, out: &mut Vec<u8>) -> serde_json::Result<()> {
        out.extend_from_slice(br#","data":"#);
        serde_json::to_writer(&mut *out, &self.rows)?;
        out.extend_from_slice(br#","pagination":"#);
        let cursor = self.cursor.as_deref();
        serde_json::to_writer(out, &Pagination { has_more: cursor.is_some(), cursor })
    }

    fn schema() -> ReplySchema {
        ReplySchema { data: Some(shape::response_schema::<Vec<T>>()), paged: true, more: Vec::new() }
    }
}

/// An answer without a `data` member (COM-ENV-05: `identities.deleteIdentity` only).
#[derive(Debug, Clone, Copy)]
pub struct NoData;

impl Reply for NoData {
    fn write(&self, _: &mut Vec<u8>) -> serde_json::Result<()> {
        Ok(())
    }

    fn schema() -> ReplySchema {
        ReplySchema { data: None, paged: false, more: Vec::new() }
    }
}

#[cfg(test)]
pub(in crate::api) mod testing;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::testing::{MAKE_THING, MakeThing, MakeThingResponse};
    use super::*;
    use crate::api::shape::{Empty, Secret, Verbatim};
    use crate::outside::Entropy;

    fn id() -> RequestId {
        RequestId::draw(&Entropy::seeded(1), 0)
    }

    fn parsed(body: &[u8]) -> Value {
        serde_json::from_slice(body).expect("a reply is JSON")
    }

    /// A row's names are taken from the operation's, while compiling.
    #[test]
    fn a_row_knows_its_names() {
        assert_eq!((MAKE_THING.name, MAKE_THING.path), ("things.makeThing", "/v2/things.makeThing"));
        assert_eq!((MAKE_THING.family, MAKE_THING.procedure), ("things", "makeThing"));
    }

    /// COM-VAL-02: a row decodes with its own path in the refusal.
    #[test]
    fn a_row_decodes_its_own_requests() {
        assert!((MAKE_THING.check)(br#"{"boxId":"box_1","permissions":["a.b"]}"#).is_ok());
        let Err(problem) = (MAKE_THING.check)(b"{}") else { panic!("an empty object is not enough") };
        assert_eq!(problem.detail(), "POST request body for '/v2/things.makeThing' failed to validate schema");
    }

    /// COM-ENV-01, COM-ENV-02: the envelope, and `data` as it is.
    #[test]
    fn data_stands_in_its_envelope() {
        let meta = Some(Verbatim(r#"{"n":9007199254740993}"#.to_owned()));
        let reply = MakeThingResponse { thing_id: "t".into(), key: Secret::new("k"), meta };
        let body = finish::<MakeThing>(Ok(reply), id()).expect("it serializes");
        let text = format!(
            r#"{{"meta":{{"requestId":"{}"}},"data":{{"thingId":"t","key":"k","meta":{{"n":9007199254740993}}}}}}"#,
            id()
        );
        assert_eq!(String::from_utf8(body).expect("JSON is text"), text);
        let empty = parsed(&envelope(&Empty {}, id()).expect("it serializes"));
        assert_eq!(empty["data"], json!({}), "COM-ENV-05");
        let none = parsed(&envelope(&NoData, id()).expect("it serializes"));
        assert_eq!(none, json!({"meta": {"requestId": id().as_str()}}), "COM-ENV-05");
    }

    /// COM-PAG-02: a cursor exactly when more follows.
    #[test]
    fn a_page_says_whether_more_follows() {
        for (cursor, pagination) in
            [(Some("row 3"), json!({"hasMore": true, "cursor": "row 3"})), (None, json!({"hasMore": false}))]
        {
            let page = Page::new(vec![1, 2], cursor.map(str::to_owned));
            let body = parsed(&envelope(&page, id()).expect("it serializes"));
            assert_eq!((&body["data"], &body["pagination"]), (&json!([1, 2]), &pagination));
        }
    }

    /// COM-ERR-07: a row that does not serialize is an error of ours, and the reply is whole.
    #[test]
    fn a_broken_row_is_an_error_and_not_a_broken_reply() {
        let reply =
            MakeThingResponse { thing_id: "t".into(), key: Secret::new("k"), meta: Some(Verbatim("{,".into())) };
        let problem = finish::<MakeThing>(Ok(reply), id()).expect_err("it does not serialize");
        assert_eq!(problem.code(), Code::UnexpectedError);
    }

    /// An operation answers with the codes that it declares, and with those that all share.
    #[test]
    fn declared_codes_pass() {
        for code in [Code::ApiNotFound, Code::UnexpectedError] {
            let answer = finish::<MakeThing>(Err(Problem::new(code, "x")), id());
            assert_eq!(answer.expect_err("a problem stays one").code(), code);
        }
        assert!(MAKE_THING.declares(Code::ApiNotFound) && !MAKE_THING.declares(Code::RoleNotFound));
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "which it does not declare")]
    fn undeclared_codes_do_not() {
        let _ = finish::<MakeThing>(Err(Problem::new(Code::RoleNotFound, "x")), id());
    }
}
