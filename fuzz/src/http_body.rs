//! Bodies of requests, read as every operation's.

use keyward::api::OPERATIONS;
use keyward::api::operation::{Body, Entry};
use keyward::api::problem::{Code, Problem};
use keyward::api::validate::ERRORS_MAX;
use serde::de::IgnoredAny;

use crate::Verdict;

/// See [`crate::Target`].
pub const DICTIONARY: &[&[u8]] = &[
    b"\"apiId\":\"api_1234567890abcdef\",",
    b"\"keyId\":\"key_1234567890abcdef\",",
    b"\"key\":\"k\",",
    b"\"meta\":{},",
    b"\"credits\":{\"remaining\":1},",
    b"\"ratelimits\":[],",
    b"null",
    b"9223372036854775807",
    b"-1",
    b"1.0",
    b"1e309",
    b"\\u0000",
    b"\\ud800",
    b"{\"a\":",
    b"[[[[[[[[[[[[[[[[",
    b"\",\"",
];

/// Reads a body as every operation would. Accepted: one of them takes it.
///
/// # Panics
///
/// When a refusal is anything but a 400 with reasons (COM-VAL-02, COM-VAL-07, COM-ERR-10), when decoding and schema
/// disagree, when what is accepted is no JSON, or when white space around a body changes what becomes of it.
pub fn run(data: &[u8]) -> Verdict {
    let padded = [b" \n", data, b"\t\r"].concat();
    let mut verdict = Verdict::Refused;
    for operation in OPERATIONS {
        // No body at all is none of the JSON that is looked at here: white space makes it one.
        if data.is_empty() && operation.body == Body::Optional {
            assert!((operation.check)(data).is_ok(), "{operation:?} may go without a body");
            continue;
        }
        match (operation.check)(data) {
            Ok(_) => {
                assert!(serde_json::from_slice::<IgnoredAny>(data).is_ok(), "{operation:?} took what is no JSON");
                assert!((operation.check)(&padded).is_ok(), "{operation:?} minds white space");
                verdict = Verdict::Accepted;
            }
            Err(problem) => {
                check(operation, &problem);
                assert!((operation.check)(&padded).is_err(), "{operation:?} wants white space");
            }
        }
    }
    verdict
}

fn check(operation: &Entry, problem: &Problem) {
    assert_eq!((problem.status(), problem.code()), (400, Code::InvalidInput), "{operation:?}");
    assert!(problem.detail().contains(operation.path), "{operation:?}: the detail names the path");
    let count = problem.errors().len();
    assert!((1..=ERRORS_MAX).contains(&count), "{operation:?}: a refusal with {count} reasons");
    for error in problem.errors() {
        // An empty location is how validate.rs reports that a type and its schema disagree.
        assert!(!error.location.is_empty(), "{operation:?}: refused by its type and not by its schema: {error:?}");
        assert!(!error.message.is_empty(), "{operation:?}: a reason without words");
    }
    let reply = problem.body("req_fuzz");
    assert!(serde_json::from_slice::<IgnoredAny>(&reply).is_ok(), "{operation:?}: a refusal that is no JSON");
}
