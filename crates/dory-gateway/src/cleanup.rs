//! The end of a session: what it made goes.

use std::io;

use dory_policy::Kind;
use serde_json::Value;

use crate::resolve::own;
use crate::session::Session;

impl Session {
    /// True where the policy removes with the session what it made.
    pub fn cleans_up(&self) -> bool {
        self.policy.cleanup
    }

    /// Removes everything that carries the session's label: containers with their anonymous volumes, networks, volumes,
    /// images. Goes on after failures.
    ///
    /// # Errors
    /// Every failure, in words.
    pub async fn remove_everything(&self) -> Result<(), Vec<String>> {
        let mut failures = Vec::new();
        for kind in [Kind::Container, Kind::Network, Kind::Volume, Kind::Image] {
            match own(self, kind).await {
                Ok(items) => {
                    for item in &items {
                        if let Err(error) = self.remove(kind, item).await {
                            failures.push(format!("cannot remove a {}: {error}", kind.noun()));
                        }
                    }
                }
                Err(error) => failures.push(format!("cannot list every {}: {error}", kind.noun())),
            }
        }
        if failures.is_empty() { Ok(()) } else { Err(failures) }
    }

    async fn remove(&self, kind: Kind, item: &Value) -> io::Result<()> {
        let field = |name: &str| item.get(name).and_then(Value::as_str).unwrap_or_default();
        let target = match kind {
            Kind::Container => format!("/containers/{}?force=1&v=1", field("Id")),
            Kind::Network => format!("/networks/{}", field("Id")),
            Kind::Volume => format!("/volumes/{}?force=1", field("Name")),
            Kind::Image => format!("/images/{}?force=1", field("Id")),
            Kind::Exec => return Ok(()),
        };
        let (head, body) = self.upstream.ask("DELETE", &target, None).await?;
        match head.status {
            // 409: somebody (`--rm`) is removing it already.
            200..=299 | 404 | 409 => Ok(()),
            status => Err(io::Error::other(format!("{status} {}", String::from_utf8_lossy(&body)))),
        }
    }
}
