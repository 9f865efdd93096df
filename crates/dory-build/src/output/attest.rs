//! What is said of how an image came to be: provenance in SLSA's form, and whatever others attest.

use dory_registry::Platform;
use dory_store::View;
use dory_types::{Digest, ImageReference};
use serde_json::{Value, json};

use crate::builder::Builder;
use crate::images::ImagesError;
use crate::outcome::{Outcome, PlatformResult};
use crate::request::Request;

/// in-toto's attestation specification, version 0.1, which BuildKit writes.
const STATEMENT: &str = "https://in-toto.io/Statement/v0.1";
/// slsa.dev/provenance/v0.2.
const PROVENANCE: &str = "https://slsa.dev/provenance/v0.2";
/// What a build of a Dockerfile is called.
const BUILD_TYPE: &str = "https://mobyproject.org/buildkit@v1";

/// How much is said of a build (`--provenance`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provenance {
    /// What it was made of, and how it was asked for, but neither arguments nor the Dockerfile (`mode=min`).
    Min,
}

/// Something said of an image.
#[derive(Debug, Clone, PartialEq)]
pub struct Statement {
    /// Of what kind it is: a URI, such as `https://spdx.dev/Document`.
    pub predicate_type: String,
    /// What is said.
    pub predicate: Value,
}

impl Statement {
    /// The whole, about an image of this manifest.
    pub(super) fn document(&self, name: &str, platform: &Platform, manifest: &Digest) -> Value {
        json!({
            "_type": STATEMENT,
            "predicateType": self.predicate_type,
            "subject": [{"name": package(name, platform), "digest": {"sha256": manifest.hex()}}],
            "predicate": self.predicate,
        })
    }
}

/// A package URL of an image (package-url/purl-spec, type `docker`).
fn package(name: &str, platform: &Platform) -> String {
    let escaped = platform.to_string().replace('/', "%2F");
    match name.parse::<ImageReference>() {
        Ok(reference) => {
            let version = match (reference.tag(), reference.digest()) {
                (Some(tag), _) => format!("@{tag}"),
                (None, Some(digest)) => format!("@{}", digest.to_string().replace(':', "%3A")),
                (None, None) => String::new(),
            };
            format!("pkg:docker/{}{version}?platform={escaped}", reference.repository().familiar())
        }
        Err(_) => format!("pkg:docker/{name}?platform={escaped}"),
    }
}

/// All that is said of `result`.
pub(super) fn statements(
    builder: &Builder,
    request: &Request,
    outcome: &Outcome,
    result: &PlatformResult,
) -> Result<Vec<Statement>, ImagesError> {
    let mut statements = Vec::new();
    if request.provenance.is_some() {
        statements.push(provenance(request, outcome, result));
    }
    if !request.attestors.is_empty() {
        let files = View::of_layers(&builder.store.layer_directories(&result.layers))
            .map_err(|error| ImagesError::Failed(dory_types::with_causes(&error)))?;
        for attestor in &request.attestors {
            statements.extend(attestor.attest(result, &files).map_err(ImagesError::Failed)?);
        }
    }
    Ok(statements)
}

fn provenance(request: &Request, outcome: &Outcome, result: &PlatformResult) -> Statement {
    let materials: Vec<Value> = outcome
        .bases
        .iter()
        .filter_map(|(name, digest)| {
            let uri = package(name, &result.platform);
            digest.map(|digest| json!({"uri": uri, "digest": {"sha256": digest.hex()}}))
        })
        .collect();
    let file = match &request.dockerfile {
        crate::request::DockerfileSource::Inline { name, .. } => name,
        crate::request::DockerfileSource::File { path, .. } => path,
    };
    // With a time of its own, the same build says the same.
    let [started, finished] = match request.source_date_epoch {
        Some(epoch) => [epoch, epoch],
        None => [outcome.started, outcome.finished],
    };
    let predicate = json!({
        "builder": {"id": ""},
        "buildType": BUILD_TYPE,
        "materials": materials,
        "invocation": {
            "configSource": {"entryPoint": file},
            "parameters": {"frontend": "dockerfile.v0", "locals": [{"name": "context"}, {"name": "dockerfile"}]},
            "environment": {"platform": Platform::current().to_string()},
        },
        "metadata": {
            "buildStartedOn": started,
            "buildFinishedOn": finished,
            "completeness": {"parameters": false, "environment": true, "materials": false},
            "reproducible": false,
        },
    });
    Statement { predicate_type: PROVENANCE.to_owned(), predicate }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_named_by_reference() {
        let platform: Platform = "linux/arm64".parse().unwrap();
        for (name, expected) in [
            ("busybox", "pkg:docker/busybox@latest?platform=linux%2Farm64"),
            ("r.example/a/b:1", "pkg:docker/r.example/a/b@1?platform=linux%2Farm64"),
            ("", "pkg:docker/?platform=linux%2Farm64"),
        ] {
            assert_eq!(package(name, &platform), expected);
        }
        let statement = Statement { predicate_type: "type".to_owned(), predicate: json!({"a": 1}) };
        let document = statement.document("x", &platform, &Digest::of(b"m"));
        assert_eq!(document["subject"][0]["digest"]["sha256"], Digest::of(b"m").hex());
        assert_eq!(document["_type"], STATEMENT);
    }
}
