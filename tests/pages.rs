//! Lists whose rows are large: pages stay bounded, and together they are whole.

use serde_json::{Value, json};

use crate::harness::Workspace;

/// A page's rows may make 4 MiB and one row more; a row of these tests is a little above 1 MiB.
const PAGE_BYTES_MAX: usize = (4 + 2) << 20;
const META_BYTES: usize = (1 << 20) - 100;

/// Walks a list as clients do, asking for 100 rows a page: how many rows each page had, and all of them.
fn walk(workspace: &Workspace, operation: &str, members: &Value) -> (Vec<usize>, Vec<Value>) {
    let (mut pages, mut rows) = (Vec::new(), Vec::new());
    let mut body = members.clone();
    body["limit"] = 100.into();
    loop {
        let reply = workspace.call(operation, body.clone()).send();
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert!(reply.body.len() < PAGE_BYTES_MAX, "a page of {} bytes", reply.body.len());
        let page = reply.json["data"].as_array().unwrap().clone();
        assert!(!page.is_empty(), "at least one row, always");
        pages.push(page.len());
        rows.extend(page);
        let pagination = &reply.json["pagination"];
        assert_eq!(pagination["hasMore"].as_bool(), Some(pagination.get("cursor").is_some()), "COM-PAG-02");
        match pagination.get("cursor") {
            Some(cursor) => body["cursor"] = cursor.clone(),
            None => return (pages, rows),
        }
    }
}

/// A page of large rows ends before the number that was asked for; whoever walks on loses none and sees none twice. The
/// same rows are on it whether they are searched for, or come with keys. COM-PAG-02, COM-PAG-05
#[test]
fn pages_of_large_rows_end_early_and_lose_nothing() {
    let workspace = Workspace::new();
    let api = workspace.api();
    let (mut identities, mut keys) = (Vec::new(), Vec::new());
    for number in 0..14 {
        let external_id = format!("tenant_{number}");
        let meta = if number % 2 == 0 { json!({"large": "x".repeat(META_BYTES)}) } else { json!({"small": number}) };
        let made = workspace.ok("identities.createIdentity", json!({"externalId": external_id, "meta": meta}));
        identities.push(made["identityId"].as_str().unwrap().to_owned());
        keys.push(workspace.key(&api, json!({"externalId": external_id})).id);
    }
    identities.sort();
    keys.sort();

    for members in [json!({}), json!({"search": "TENANT"})] {
        let (pages, rows) = walk(&workspace, "identities.listIdentities", &members);
        let ids: Vec<_> = rows.iter().map(|row| row["id"].as_str().unwrap()).collect();
        assert_eq!(ids, identities, "each once, by id");
        assert_eq!(pages.len(), 2, "seven large ones are more than one page and less than three: {pages:?}");
    }
    let (pages, rows) = walk(&workspace, "apis.listKeys", &json!({"apiId": api}));
    let ids: Vec<_> = rows.iter().map(|row| row["keyId"].as_str().unwrap()).collect();
    assert_eq!(ids, keys);
    assert_eq!(pages.len(), 2, "{pages:?}");
    assert!(rows.iter().all(|row| row["identity"]["meta"].is_object()), "as getKey shows them");
}
