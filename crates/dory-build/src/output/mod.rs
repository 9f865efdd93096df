//! Where the result of a build goes.

mod assemble;
mod attest;
pub(crate) mod files;

use std::fmt::Debug;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use dory_store::NewImage;
use dory_types::{Digest, ImageReference};

use crate::builder::Builder;
use crate::cancel::Cancel;
use crate::depot::LayoutDepot;
use crate::error::BuildError;
use crate::outcome::{Outcome, PlatformResult};
use crate::request::Request;
use crate::solve::Teller;
use assemble::Assembly;
pub use assemble::Attestor;
pub use attest::{Provenance, Statement};

/// Takes a stream: a file, standard output, a client.
pub trait Sink: Debug + Send + Sync {
    /// Opens it; called once, when everything is built.
    ///
    /// # Errors
    /// Where it cannot be had.
    fn open(&self) -> io::Result<Box<dyn Write + Send>>;
}

/// Where a result goes (`--output`).
#[derive(Debug, Clone)]
pub enum Output {
    /// An image, in the store, and at a registry where `push` is true.
    Image {
        /// Its names; the request's where the list is empty.
        names: Vec<ImageReference>,
        /// Bring it to the registries of its names.
        push: bool,
        /// These registries may speak plain HTTP, or have any certificate.
        insecure: bool,
    },
    /// The files of the result, in a directory.
    Local {
        /// Made where it is missing; files that are there are replaced.
        directory: PathBuf,
    },
    /// The files of the result, as an archive.
    Tar {
        /// Takes the archive.
        sink: Arc<dyn Sink>,
    },
    /// An OCI image layout, as an archive; the same that `docker` takes.
    Archive {
        /// Names of the image in it; the request's where the list is empty.
        names: Vec<ImageReference>,
        /// Takes the archive.
        sink: Arc<dyn Sink>,
    },
}

/// Refuses what cannot be done before anything is built.
pub(crate) fn check(request: &Request) -> Result<(), BuildError> {
    for location in &request.cache_to {
        crate::cache::check(location).map_err(BuildError::Unsupported)?;
    }
    if request.squash {
        return Err(BuildError::Unsupported(
            "making one layer of a build's (squash) is not supported yet".to_owned(),
        ));
    }
    Ok(())
}

/// Brings the result where it should go.
pub(crate) fn write(
    builder: &Builder,
    request: &Request,
    outcome: &mut Outcome,
    teller: &Teller,
    cancel: &Cancel,
) -> Result<(), BuildError> {
    for output in &request.outputs {
        match output {
            Output::Image { names, push, insecure } => {
                let names = if names.is_empty() { &request.names } else { names };
                image(builder, request, names, (*push, *insecure), outcome, teller, cancel)?;
            }
            Output::Local { directory } => {
                teller.during("exporting to client directory", Vec::new(), |_| {
                    outcome.results.iter().try_for_each(|result| {
                        let place = files::place(directory, result, outcome.results.len() > 1);
                        files::local(&builder.store, result, &place)
                            .map_err(|message| failed(&directory.display().to_string(), message))
                    })
                })?;
            }
            Output::Tar { sink } => teller.during("exporting to client tarball", Vec::new(), |_| {
                let open = || sink.open().map_err(|error| failed("tar", error.to_string()));
                match outcome.results.as_slice() {
                    [result] => files::tar(&builder.store, &result.layers, open()?)
                        .map_err(|message| failed("tar", message)),
                    _ => Err(BuildError::Unsupported(
                        "an archive of several platforms is not supported".to_owned(),
                    )),
                }
            })?,
            Output::Archive { names, sink } => {
                let names = if names.is_empty() { &request.names } else { names };
                teller.during("exporting to docker image format", Vec::new(), |_| {
                    archive(builder, request, names, sink, outcome, cancel)
                })?;
            }
        }
    }
    Ok(())
}

fn failed(output: &str, message: String) -> BuildError {
    BuildError::Output { output: output.to_owned(), message }
}

/// The result that gets names in the store, which has one image of a name: that for this machine.
fn own(outcome: &Outcome) -> Option<&PlatformResult> {
    let current = dory_registry::Platform::current();
    outcome.results.iter().find(|result| current.accepts(&result.platform)).or(outcome.results.first())
}

/// Keeps what this machine can use as an image of the store.
fn keep(builder: &Builder, names: &[ImageReference], outcome: &mut Outcome) -> Result<(), BuildError> {
    let Some(result) = own(outcome) else { return Ok(()) };
    let layers = result.layers.clone();
    builder.store.add_image(NewImage {
        config: &result.config_bytes,
        layers,
        references: names,
        parent: None,
    })?;
    let digest = format!("sha256:{}", result.id);
    outcome.metadata.insert("containerimage.config.digest".to_owned(), digest.into());
    Ok(())
}

/// Writes the image as an archive. It is an image of the store for that, and gets the names there.
fn archive(
    builder: &Builder,
    request: &Request,
    names: &[ImageReference],
    sink: &Arc<dyn Sink>,
    outcome: &mut Outcome,
    cancel: &Cancel,
) -> Result<(), BuildError> {
    let error = |error: &dyn std::fmt::Display| failed("archive", error.to_string());
    keep(builder, names, outcome)?;
    if !assemble::is_wanted(request) {
        let Some(result) = own(outcome) else { return Ok(()) };
        let saved: Vec<String> = match names {
            [] => vec![result.id.to_string()],
            names => names.iter().map(ToString::to_string).collect(),
        };
        let mut sink = sink.open().map_err(|source| error(&source))?;
        builder.store.save(&saved, &mut sink)?;
        return sink.flush().map_err(|source| error(&source));
    }
    let scratch = builder.store.build_scratch()?;
    let name = names.first().map(ToString::to_string).unwrap_or_else(|| "latest".to_owned());
    let depot = LayoutDepot::open(Arc::clone(&builder.store), &scratch.path(), name.clone(), true);
    let depot = depot.map_err(|source| error(&source))?;
    let assembly =
        Assembly { builder, request, outcome, name, depot: &depot, progress: &|_, _, _, _| {}, cancel };
    let digest = assembly.write().map_err(|source| error(&source))?;
    stated(outcome, digest);
    let mut sink = sink.open().map_err(|source| error(&source))?;
    depot.pack(&mut sink).and_then(|()| sink.flush()).map_err(|source| error(&source))
}

fn stated(outcome: &mut Outcome, digest: Digest) {
    outcome.digest = Some(digest);
    outcome.metadata.insert("containerimage.digest".to_owned(), digest.to_string().into());
}

/// Keeps the result as an image of the store, and brings it to registries.
fn image(
    builder: &Builder,
    request: &Request,
    names: &[ImageReference],
    (push, insecure): (bool, bool),
    outcome: &mut Outcome,
    teller: &Teller,
    cancel: &Cancel,
) -> Result<(), BuildError> {
    let images = request.images.as_ref().unwrap_or(&builder.images);
    teller.during("exporting to image", Vec::new(), |vertex| {
        keep(builder, names, outcome)?;
        for result in &outcome.results {
            teller.status(vertex, &format!("writing image sha256:{}", result.id), 0, 0, true);
        }
        let joined: Vec<String> = names.iter().map(ToString::to_string).collect();
        for name in &joined {
            teller.status(vertex, &format!("naming to {name}"), 0, 0, true);
        }
        if !joined.is_empty() {
            outcome.metadata.insert("image.name".to_owned(), joined.join(",").into());
        }
        for name in names.iter().filter(|_| push) {
            let progress = |id: &str, current, total, done| teller.status(vertex, id, current, total, done);
            let pushed = match assemble::is_wanted(request) && !insecure {
                false => images.push(name, insecure, &progress, cancel),
                true => images.depot(name, true).and_then(|depot| {
                    let (depot, progress) = (depot.as_ref(), &progress);
                    let name = name.to_string();
                    Assembly { builder, request, outcome, name, depot, progress, cancel }.write()
                }),
            };
            let digest = pushed.map_err(|error| failed(&name.to_string(), error.to_string()))?;
            stated(outcome, digest);
        }
        Ok::<(), BuildError>(())
    })
}
