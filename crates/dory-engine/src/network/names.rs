//! The names under which a container is known in a network.

use super::is_predefined;
use crate::container::Record;

/// The names by which its neighbours in `network` find the container: its name, its aliases there, its short id, and its
/// host name (moby `daemon.getDNSNames`). The built-in networks have no names.
pub(crate) fn dns_names(record: &Record, network: &str) -> Vec<String> {
    if is_predefined(network) {
        return Vec::new();
    }
    let aliases = record.endpoints.get(network).map(|wish| wish.aliases.to_vec()).unwrap_or_default();
    let name = record.name.as_str().to_owned();
    let all = std::iter::once(name)
        .chain(aliases)
        .chain([record.id.short().to_owned(), record.config.hostname.clone()]);
    let mut names: Vec<String> = Vec::new();
    for name in all {
        if !name.is_empty() && !names.contains(&name) {
            names.push(name);
        }
    }
    names
}
