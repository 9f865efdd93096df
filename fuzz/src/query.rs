use dory_engine::Filters;

/// The query of a request, and its `filters` parameter.
///
/// Nothing panics, and filters that are accepted are the same when they are read in the list form that clients of
/// today send.
pub fn query(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    dory_api::fuzzing::query(text);
    if let Ok(filters) = Filters::parse(text) {
        let names = ["label", "status", "name", "id", "before", "until", "dangling"];
        let lists: serde_json::Map<_, _> =
            names.iter().map(|name| ((*name).to_owned(), filters.get(name).to_vec().into())).collect();
        let again = Filters::parse(&serde_json::Value::Object(lists).to_string());
        let again = again.expect("the list form is always accepted");
        for name in names {
            assert_eq!(filters.get(name), again.get(name));
        }
    }
}
