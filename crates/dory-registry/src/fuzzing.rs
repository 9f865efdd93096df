//! Readers that are private, for the fuzz targets.

use crate::auth::Challenge;
use crate::http::Location;

/// Reads the value of a `WWW-Authenticate` header: how many challenges it has, and the longest of what they say.
pub fn challenges(value: &str) -> (usize, usize) {
    let challenges = Challenge::parse(value);
    let lengths = challenges.iter().flat_map(|challenge| {
        ["realm", "service", "scope"].map(|name| challenge.parameter(name).map_or(0, str::len))
    });
    (challenges.len(), lengths.max().unwrap_or(0))
}

/// Follows a `Location` header from `https://registry.example/v2/x`: where it leads, as the request would go out.
pub fn location(reference: &str) -> Option<String> {
    let here = Location::parse("https://registry.example/v2/x")?;
    here.join(reference).and_then(|location| Some(location.uri()?.to_string()))
}
