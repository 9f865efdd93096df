//! Where the result of a build goes.

pub(crate) mod files;

use std::fmt::Debug;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use dory_store::NewImage;
use dory_types::ImageReference;

use crate::builder::Builder;
use crate::cancel::Cancel;
use crate::error::BuildError;
use crate::images::Images;
use crate::outcome::Outcome;
use crate::request::Request;
use crate::solve::Teller;

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
    let images = request
        .outputs
        .iter()
        .filter(|output| matches!(output, Output::Image { .. } | Output::Archive { .. }));
    if request.platforms.len() > 1 && images.count() > 0 {
        return Err(BuildError::Unsupported("images of several platforms are not supported yet".to_owned()));
    }
    for location in &request.cache_to {
        crate::cache::check(location).map_err(BuildError::Unsupported)?;
    }
    if request.squash {
        return Err(BuildError::Unsupported(
            "making one layer of a build's (squash) is not supported yet".to_owned(),
        ));
    }
    if let Some(annotation) = request.annotations.first() {
        return Err(BuildError::Unsupported(format!(
            "an annotation ({}) is not supported yet",
            annotation.key
        )));
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
                let images = request.images.as_ref().unwrap_or(&builder.images);
                image(builder, images, names, *push, *insecure, outcome, teller, cancel)?;
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
                    archive(builder, names, sink, outcome)
                })?;
            }
        }
    }
    Ok(())
}

fn failed(output: &str, message: String) -> BuildError {
    BuildError::Output { output: output.to_owned(), message }
}

/// Writes the image as an archive. It is an image of the store for that, and gets the names there.
fn archive(
    builder: &Builder,
    names: &[ImageReference],
    sink: &Arc<dyn Sink>,
    outcome: &mut Outcome,
) -> Result<(), BuildError> {
    for result in &outcome.results {
        let layers = result.layers.clone();
        let new = NewImage { config: &result.config_bytes, layers, references: names, parent: None };
        builder.store.add_image(new)?;
        let saved: Vec<String> = match names {
            [] => vec![result.id.to_string()],
            names => names.iter().map(ToString::to_string).collect(),
        };
        let mut sink = sink.open().map_err(|error| failed("archive", error.to_string()))?;
        builder.store.save(&saved, &mut sink)?;
        sink.flush().map_err(|error| failed("archive", error.to_string()))?;
        let digest = format!("sha256:{}", result.id);
        outcome.metadata.insert("containerimage.config.digest".to_owned(), digest.into());
    }
    Ok(())
}

/// Keeps the result as an image of the store.
#[expect(clippy::too_many_arguments, reason = "the fields of one variant, and what every output gets")]
fn image(
    builder: &Builder,
    images: &Arc<dyn Images>,
    names: &[ImageReference],
    push: bool,
    insecure: bool,
    outcome: &mut Outcome,
    teller: &Teller,
    cancel: &Cancel,
) -> Result<(), BuildError> {
    teller.during("exporting to image", Vec::new(), |vertex| {
        for result in &outcome.results {
            let new = NewImage {
                config: &result.config_bytes,
                layers: result.layers.clone(),
                references: names,
                parent: None,
            };
            builder.store.add_image(new)?;
            teller.status(vertex, &format!("writing image sha256:{}", result.id), 0, 0, true);
            outcome
                .metadata
                .insert("containerimage.config.digest".to_owned(), format!("sha256:{}", result.id).into());
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
            let pushed = images.push(name, insecure, &progress, cancel);
            let digest = pushed.map_err(|error| BuildError::Output {
                output: name.to_string(),
                message: error.to_string(),
            })?;
            outcome.digest = Some(digest);
            outcome.metadata.insert("containerimage.digest".to_owned(), digest.to_string().into());
        }
        Ok::<(), BuildError>(())
    })
}
