//! Two operations for tests of whatever is made from the table.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Credential, Entry, Operation, Page};
use crate::api::call::Call;
use crate::api::problem::{Code, Problem};
use crate::api::shape::{Empty, Ident, Int, List, Meta, Opt, Secret, Slug, Verbatim};

/// With a bit of everything: permissions, codes, bounds, a secret.
pub(in crate::api) struct MakeThing;

/// What to make.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(dead_code)]
pub(in crate::api) struct MakeThingRequest {
    /// The box it goes into: <b>no HTML</b> & "quotes".
    box_id: Ident<3, 255>,
    /// How large.
    #[serde(default)]
    #[schemars(extend("default" = 16))]
    size: Opt<Int<16, 255>>,
    #[serde(default)]
    meta: Opt<Meta>,
    /// What it may do.
    permissions: List<Slug, 1, 1000>,
    /// Its parts.
    #[serde(default)]
    parts: Opt<List<Part, 0, 50>>,
}

#[derive(Deserialize, JsonSchema)]
#[allow(dead_code)]
pub(in crate::api) struct Part {
    colour: Colour,
}

/// A colour.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) enum Colour {
    /// Like fire.
    Red,
    /// Like grass.
    Green,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct MakeThingResponse {
    pub(in crate::api) thing_id: String,
    /// Shown once.
    pub(in crate::api) key: Secret,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::api) meta: Option<Verbatim<String>>,
}

impl Operation for MakeThing {
    const NAME: &'static str = "things.makeThing";
    const SUMMARY: &'static str = "Make a thing";
    const DESCRIPTION: &'static str = "Makes it.\n\nAnd `tells` its <key> once.";
    const ALLOWS: &'static [&'static str] = &["thing.*.make", "unkey:v1:<workspaceId>:boxes/<boxId>#make"];
    const FAILS: &'static [Code] = &[Code::ApiNotFound, Code::PreconditionFailed];
    const AUDITS: &'static [&'static str] = &["thing.make"];
    type Request = MakeThingRequest;
    type Response = MakeThingResponse;

    async fn run(_: Call, ask: MakeThingRequest) -> Result<MakeThingResponse, Problem> {
        Ok(MakeThingResponse { thing_id: ask.box_id.into_string(), key: Secret::new("s"), meta: None })
    }
}

/// A list behind a portal session.
pub(in crate::api) struct ListThings;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct ListThingsRequest {}

impl Operation for ListThings {
    const NAME: &'static str = "things.listThings";
    const SUMMARY: &'static str = "List things";
    const CREDENTIAL: Credential = Credential::PortalSession;
    const ALLOWS: &'static [&'static str] = &[];
    const FAILS: &'static [Code] = &[];
    type Request = ListThingsRequest;
    type Response = Page<Empty>;

    async fn run(_: Call, _: ListThingsRequest) -> Result<Page<Empty>, Problem> {
        Ok(Page::new(Vec::new(), None))
    }
}

pub(in crate::api) static MAKE_THING: Entry = Entry::of::<MakeThing>();
pub(in crate::api) static LIST_THINGS: Entry = Entry::of::<ListThings>();
