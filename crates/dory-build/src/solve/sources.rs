//! The trees that a build copies from, each opened once: the context, named contexts, images.

use std::collections::HashMap;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use dory_dockerfile::IgnorePatterns;
use dory_registry::Platform;
use dory_store::{Image, LayerLease, View};
use dory_types::{Digest, Timestamp, with_causes};

use super::{Checks, Teller};
use crate::builder::Builder;
use crate::cache::{Exported, Imported};
use crate::cancel::Cancel;
use crate::context::{Context, ContextTree, Need};
use crate::error::StepError;
use crate::images::FoundImage;
use crate::operations::copy::{Identity, Source};
use crate::operations::digests::FileDigests;
use crate::operations::key::Key;
use crate::outcome::Outcome;
use crate::request::{NamedContext, Request};

/// No ignore file or Dockerfile is longer, in bytes.
pub(crate) const FILE_MAX: u64 = 8 << 20;

type Opened = Arc<OnceLock<Result<Arc<OpenContext>, Arc<StepError>>>>;

type Found = Arc<OnceLock<Result<BaseImage, Arc<StepError>>>>;

/// A context that is there.
#[derive(Debug)]
pub(crate) struct OpenContext {
    pub(crate) source: Arc<Source>,
    /// Where its files' digests are remembered.
    remembered: Option<String>,
    _tree: ContextTree,
}

/// An image that is there.
#[derive(Debug, Clone)]
pub(crate) struct BaseImage {
    pub(crate) found: FoundImage,
    pub(crate) image: Arc<Image>,
    pub(crate) layers: Vec<LayerLease>,
}

/// What a build copies from.
#[derive(Debug)]
pub(crate) struct Sources<'a> {
    builder: &'a Builder,
    request: &'a Request,
    teller: &'a Teller,
    cancel: &'a Cancel,
    /// The Dockerfile's name: `NAME.dockerignore` counts before `.dockerignore`.
    dockerfile: Mutex<String>,
    /// Its own ignore file, where it came from a context of its own.
    own_ignore: Mutex<Option<Vec<u8>>>,
    main: Opened,
    named: Mutex<HashMap<String, Opened>>,
    images: Mutex<HashMap<(String, String), Found>>,
    /// The file's warnings, once it was read.
    pub(crate) checks: OnceLock<Checks>,
    /// Cached results from elsewhere.
    pub(crate) imported: Imported,
    /// Those that were used or made.
    exported: Mutex<Vec<Exported>>,
}

impl<'a> Sources<'a> {
    pub(crate) fn new(
        builder: &'a Builder,
        request: &'a Request,
        teller: &'a Teller,
        cancel: &'a Cancel,
    ) -> Self {
        Self {
            builder,
            request,
            teller,
            cancel,
            dockerfile: Mutex::default(),
            own_ignore: Mutex::default(),
            main: Opened::default(),
            named: Mutex::default(),
            images: Mutex::default(),
            checks: OnceLock::new(),
            imported: Imported::default(),
            exported: Mutex::default(),
        }
    }

    /// Notes a result for whoever wants the cache; none where nobody does.
    pub(crate) fn export(&self, result: Exported) {
        if !self.request.cache_to.is_empty() {
            self.exported.lock().unwrap_or_else(PoisonError::into_inner).push(result);
        }
    }

    /// The results that were noted.
    pub(crate) fn exported(&self) -> Vec<Exported> {
        self.exported.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The images that were taken, by name.
    pub(crate) fn bases(&self) -> Vec<(String, Option<Digest>)> {
        let images = self.images.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bases: Vec<(String, Option<Digest>)> = images
            .iter()
            .filter_map(|((name, _), found)| match found.get() {
                Some(Ok(base)) => Some((name.clone(), base.found.digest)),
                _ => None,
            })
            .collect();
        bases.sort();
        bases.dedup();
        bases
    }

    pub(crate) fn set_dockerfile(&self, name: &str) {
        name.clone_into(&mut self.dockerfile.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The build context.
    pub(crate) fn main(&self) -> Result<Arc<Source>, StepError> {
        let context = self
            .request
            .context
            .as_ref()
            .ok_or_else(|| StepError::Invalid("there is no build context to copy from".to_owned()))?;
        let opened = self.main.get_or_init(|| self.open(context, "build context").map_err(Arc::new));
        match opened {
            Ok(context) => Ok(Arc::clone(&context.source)),
            Err(error) => Err(StepError::Input(Arc::clone(error))),
        }
    }

    /// The named context `name`, where there is one of files.
    pub(crate) fn named(&self, name: &str) -> Option<Result<Arc<Source>, StepError>> {
        let NamedContext::Files(context) = self.request.named_contexts.get(name)? else { return None };
        let opened = {
            let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(named.entry(name.to_owned()).or_default())
        };
        let result = opened.get_or_init(|| self.open(context, name).map_err(Arc::new));
        Some(match result {
            Ok(context) => Ok(Arc::clone(&context.source)),
            Err(error) => Err(StepError::Input(Arc::clone(error))),
        })
    }

    /// The Dockerfile `path` of the build context; `dockerfile` where there is none of the default name.
    pub(crate) fn dockerfile_in_context(&self, path: &str) -> Result<Option<(String, Vec<u8>)>, StepError> {
        read_dockerfile(&self.main()?.view, path)
    }

    /// The same of a context of its own.
    pub(crate) fn dockerfile_from(
        &self,
        context: &Arc<dyn Context>,
        path: &str,
        cancel: &Cancel,
    ) -> Result<Option<(String, Vec<u8>)>, StepError> {
        let need = Need {
            paths: vec![path.to_owned(), format!("{path}.dockerignore"), path.to_lowercase()],
            ignore: Vec::new(),
        };
        let tree = context.open(&need, &|_, _, _, _| {}, cancel)?;
        let view = View::of_directory(tree.root)
            .map_err(|error| StepError::Copy { path: path.to_owned(), message: with_causes(&error) })?;
        let own = read_file(&view, &format!("{path}.dockerignore"))?;
        *self.own_ignore.lock().unwrap_or_else(PoisonError::into_inner) = own;
        read_dockerfile(&view, path)
    }

    /// The image that `name` means, under its named context where there is one.
    pub(crate) fn image(&self, name: &str, platform: &Platform) -> Result<BaseImage, StepError> {
        let reference = match self.request.named_contexts.get(name) {
            Some(NamedContext::Image(reference)) => reference.clone(),
            Some(NamedContext::Result(outcome)) => return result_of(outcome, name, platform),
            _ => name.to_owned(),
        };
        let cell = {
            let mut images = self.images.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(images.entry((reference.clone(), platform.to_string())).or_default())
        };
        let found = cell.get_or_init(|| self.find_image(&reference, platform).map_err(Arc::new));
        found.clone().map_err(StepError::Input)
    }

    fn find_image(&self, reference: &str, platform: &Platform) -> Result<BaseImage, StepError> {
        let name = format!("[internal] load metadata for {}", familiar(reference));
        self.teller.during(&name, Vec::new(), |vertex| {
            let progress =
                |id: &str, current, total, done| self.teller.status(vertex, id, current, total, done);
            let images = self.request.images.as_ref().unwrap_or(&self.builder.images);
            let found = images.find(reference, platform, self.request.pull, &progress, self.cancel)?;
            let image = Arc::new(self.builder.store.image(found.id.as_str())?);
            let layers = self.builder.store.lease_layers(&found.id)?;
            Ok(BaseImage { found, image, layers })
        })
    }

    fn open(&self, context: &Arc<dyn Context>, name: &str) -> Result<Arc<OpenContext>, StepError> {
        let label = format!("[internal] load {}", context.name());
        let label =
            if name == "build context" { label } else { format!("[context {name}] load from client") };
        self.teller.during(&label, Vec::new(), |vertex| {
            let progress =
                |id: &str, current, total, done| self.teller.status(vertex, id, current, total, done);
            let tree = context.open(&Need::default(), &progress, self.cancel)?;
            self.opened(tree, name == "build context", context.has_ignore_file())
        })
    }

    fn opened(
        &self,
        tree: ContextTree,
        has_dockerfile: bool,
        has_ignore_file: bool,
    ) -> Result<Arc<OpenContext>, StepError> {
        let failed = |error: &dyn std::error::Error| StepError::Copy {
            path: "the build context".to_owned(),
            message: with_causes(error),
        };
        let root: OwnedFd = tree.root.try_clone().map_err(|error| failed(&error))?;
        let view = View::of_directory(root).map_err(|error| failed(&error))?;
        let ignore = match has_ignore_file {
            true => self.ignore_file(&view, has_dockerfile)?,
            false => None,
        };
        let remembered = tree.identity.as_ref().map(|identity| Digest::of(identity.as_bytes()).hex());
        let digests = match &remembered {
            Some(name) => FileDigests::read(&self.files()?, name),
            None => FileDigests::default(),
        };
        let identity = Identity::Files(Box::new(Mutex::new(digests)));
        let source = Arc::new(Source { view, ignore, identity });
        Ok(Arc::new(OpenContext { source, remembered, _tree: tree }))
    }

    fn ignore_file(&self, view: &View, has_dockerfile: bool) -> Result<Option<IgnorePatterns>, StepError> {
        let dockerfile = self.dockerfile.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let given = self.own_ignore.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(text) = given.filter(|_| has_dockerfile) {
            return patterns(&dockerfile, &text);
        }
        let own = (has_dockerfile && !dockerfile.is_empty()).then(|| format!("{dockerfile}.dockerignore"));
        for name in own.into_iter().chain([".dockerignore".to_owned()]) {
            if let Some(text) = read_file(view, &name)? {
                return patterns(&name, &text);
            }
        }
        Ok(None)
    }

    fn files(&self) -> Result<OwnedFd, StepError> {
        let failed = |source: rustix::io::Errno| StepError::Copy {
            path: "build/files".to_owned(),
            message: source.to_string(),
        };
        let build = self.builder.store.build_directory()?;
        dory_store::make_and_open(&build, "files", 0o700).map_err(failed)
    }

    /// Remembers what became known of files.
    pub(crate) fn remember(&self) {
        let named: Vec<Opened> =
            self.named.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        for opened in named.iter().chain([&self.main]) {
            let Some(Ok(context)) = opened.get() else { continue };
            let (Some(name), Identity::Files(digests)) = (&context.remembered, &context.source.identity)
            else {
                continue;
            };
            let digests = digests.lock().unwrap_or_else(PoisonError::into_inner);
            let written = self.files().and_then(|directory| {
                digests.write(&directory, name).map_err(|error| StepError::Invalid(error.to_string()))
            });
            if let Err(error) = written {
                // The next build reads the files again, and that is all.
                tracing::warn!(%error, "Cannot remember the digests of a context's files");
            }
        }
    }
}

/// What another build made for `platform`, as an image.
fn result_of(outcome: &Outcome, name: &str, platform: &Platform) -> Result<BaseImage, StepError> {
    let result = outcome.results.iter().find(|result| result.platform == *platform);
    let result = result.ok_or_else(|| {
        StepError::Invalid(format!("the named context {name} was not built for {platform}"))
    })?;
    let image = Image {
        id: result.id.clone(),
        config: Arc::new(result.config.clone()),
        references: Vec::new(),
        size: 0,
        last_tagged: Timestamp::ZERO,
        parent: None,
    };
    let found = FoundImage { id: result.id.clone(), digest: None };
    Ok(BaseImage { found, image: Arc::new(image), layers: result.layers.clone() })
}

fn patterns(name: &str, text: &[u8]) -> Result<Option<IgnorePatterns>, StepError> {
    let patterns = IgnorePatterns::parse(&String::from_utf8_lossy(text));
    let patterns = patterns.map_err(|error| StepError::Invalid(format!("{name}: {error}")))?;
    Ok(Some(patterns).filter(|patterns| !patterns.is_empty()))
}

fn read_dockerfile(view: &View, path: &str) -> Result<Option<(String, Vec<u8>)>, StepError> {
    if let Some(content) = read_file(view, path)? {
        return Ok(Some((path.to_owned(), content)));
    }
    let other = "dockerfile";
    if path != "Dockerfile" {
        return Ok(None);
    }
    Ok(read_file(view, other)?.map(|content| (other.to_owned(), content)))
}

/// A file of a context, links followed; `None` where there is none.
pub(crate) fn read_file(view: &View, name: &str) -> Result<Option<Vec<u8>>, StepError> {
    let failed = |message: String| StepError::Copy { path: name.to_owned(), message };
    let node = view.find(name.as_bytes(), true).map_err(|error| failed(with_causes(&error)))?;
    let Some(node) = node.filter(|node| node.kind() == rustix::fs::FileType::RegularFile) else {
        return Ok(None);
    };
    let mut bytes = Vec::new();
    let file = node.open().map_err(|error| failed(with_causes(&error)))?;
    file.take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(|error| failed(error.to_string()))?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(failed(format!("it is longer than {FILE_MAX} bytes")));
    }
    Ok(Some(bytes))
}

/// A reference in full, as progress shows it.
pub(crate) fn familiar(reference: &str) -> String {
    match reference.parse::<dory_types::ImageReference>() {
        Ok(parsed) => parsed.to_string(),
        Err(_) => reference.to_owned(),
    }
}

/// A tree made of layers.
pub(crate) fn layered(builder: &Builder, layers: &[LayerLease]) -> Result<Source, StepError> {
    let mut key = Key::new("layers");
    for layer in layers {
        key.content(&layer.diff_id());
    }
    let view = View::of_layers(&builder.store.layer_directories(layers));
    let view =
        view.map_err(|error| StepError::Copy { path: "/".to_owned(), message: with_causes(&error) })?;
    Ok(Source { view, ignore: None, identity: Identity::Layers(key.digest()) })
}
