//! What the fuzzers of `fuzz/` call: the readers of requests, without a server around them.

use dory_engine::CreateContainer;

use crate::query::Query;
use crate::routes::container::create;

/// Reads the body of a create as API version 1.`minor` does; `None` where it is refused.
pub fn create_body(body: &[u8], minor: u8) -> Option<CreateContainer> {
    let (version, _) = crate::version::negotiate(&format!("/v1.{minor}/x")).ok()?;
    create::read(serde_json::from_slice(body).ok()?, version).ok()
}

/// Reads every kind of parameter out of a query.
pub fn query(text: &str) {
    let Ok(uri) = format!("/x?{text}").parse() else { return };
    let query = Query::parse(&uri);
    let _ = (query.filters().is_ok(), query.time("since").is_ok(), query.time("until").is_ok());
    let _ = (query.console_size().is_ok(), query.integer("limit").is_ok(), query.boolean("size"));
    let _ = query.all("t").count();
}
