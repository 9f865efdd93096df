//! Results that clients refer to while they drive builds.
//!
//! A reference is lazy: it is built when it is returned or when something of it is asked for, once. Clients are told a definition
//! with it, an LLB graph of one source that only this engine understands, so that they can hand the result to another build as an
//! input (`bake` does for `contexts = { base = "target:other" }`). References outlive their build by a minute, as builds that
//! take them as inputs may be behind.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bollard_buildkit_proto::pb;
use dory_build::{Entitlements, Outcome};
use dory_types::Digest;
use prost::Message;
use tokio::runtime::Handle;
use tokio::sync::OnceCell;

use crate::grpc::{Code, Status};
use crate::session::Session;

/// How the source of a definition begins that stands for one of our results.
const SCHEME: &str = "dory-result://";
/// How long references are known after the end of their build.
const LINGER: Duration = Duration::from_secs(60);

/// A result, built or not.
#[derive(Debug)]
pub struct Reference {
    /// What clients call it.
    pub id: String,
    /// Attributes of the frontend.
    pub attributes: HashMap<String, String>,
    /// Whose build it is.
    pub session: Arc<Session>,
    /// What the build may do.
    pub entitlements: Entitlements,
    /// Results of other builds that it is made of, by the names of the inputs.
    pub inputs: BTreeMap<String, Arc<Reference>>,
    /// What came of it.
    pub outcome: OnceCell<Arc<Outcome>>,
}

/// All references that may be asked about; clones share them.
#[derive(Debug, Clone, Default)]
pub struct References(Arc<Mutex<HashMap<String, Arc<Reference>>>>);

impl References {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Reference>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps `reference` for as long as the answer exists, and a minute more.
    pub fn keep(&self, reference: Arc<Reference>, runtime: Handle) -> KnownReference {
        self.lock().insert(reference.id.clone(), reference.clone());
        KnownReference { reference, references: self.clone(), runtime }
    }

    /// The reference that `definition` stands for.
    ///
    /// # Errors
    /// A definition that is not one of ours, a reference that is known no more.
    pub fn of_definition(&self, name: &str, definition: &pb::Definition) -> Result<Arc<Reference>, Status> {
        let mut sources = definition.def.iter().filter_map(|bytes| source(bytes));
        let id = sources.find_map(|source| Some(source.strip_prefix(SCHEME)?.to_owned()));
        let id =
            id.ok_or_else(|| Status::not_supported(format!("a raw LLB definition as the input `{name}`")))?;
        let found = self.lock().get(&id).cloned();
        found.ok_or_else(|| Status::new(Code::NotFound, format!("no such result: {id}, the input `{name}`")))
    }
}

/// A reference that is found by its id.
#[derive(Debug)]
pub struct KnownReference {
    reference: Arc<Reference>,
    references: References,
    runtime: Handle,
}

impl KnownReference {
    /// The reference.
    pub fn reference(&self) -> &Arc<Reference> {
        &self.reference
    }
}

impl Drop for KnownReference {
    fn drop(&mut self) {
        let (references, id) = (self.references.clone(), self.reference.id.clone());
        self.runtime.spawn(async move {
            tokio::time::sleep(LINGER).await;
            references.lock().remove(&id);
        });
    }
}

/// The source of an operation.
fn source(operation: &[u8]) -> Option<String> {
    match pb::Op::decode(operation).ok()?.op? {
        pb::op::Op::Source(source) => Some(source.identifier),
        _ => None,
    }
}

/// A definition that stands for the result `id`: one source, and the end that every definition has.
pub fn definition(id: &str) -> pb::Definition {
    let source = pb::SourceOp { identifier: format!("{SCHEME}{id}"), ..pb::SourceOp::default() };
    let operation = pb::Op { op: Some(pb::op::Op::Source(source)), ..pb::Op::default() }.encode_to_vec();
    let input = pb::Input { digest: Digest::of(&operation).to_string(), index: 0 };
    let end = pb::Op { inputs: vec![input], ..pb::Op::default() }.encode_to_vec();
    let metadata = [&operation, &end].map(|bytes| (Digest::of(bytes).to_string(), pb::OpMetadata::default()));
    pb::Definition { metadata: metadata.into(), def: vec![operation, end], source: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_are_known_again() {
        let definition = definition("build-0");
        assert_eq!(source(&definition.def[0]).as_deref(), Some("dory-result://build-0"));
        assert_eq!(source(&definition.def[1]), None);
        let end = pb::Op::decode(definition.def[1].as_slice()).unwrap();
        assert!(definition.metadata.contains_key(&end.inputs[0].digest));
    }

    #[test]
    fn foreign_definitions_are_refused() {
        let references = References::default();
        let status = references.of_definition("base", &pb::Definition::default()).unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented);
        let status = references.of_definition("base", &definition("gone")).unwrap_err();
        assert_eq!(status.code(), Code::NotFound);
    }
}
