//! The flags of `dory build`: docker's, as far as they make sense without a daemon.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::{Parser, ValueEnum};
use dory_build::context::DirectoryContext;
use dory_build::{
    Annotation, CacheLocation, Entitlements, NamedContext, NetworkMode, NoCache, Output, Provenance,
    PullPolicy, Request, Secrets, Sink,
};
use dory_types::{ImageReference, Timestamp};

/// How progress is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum ProgressWord {
    /// Drawn on a terminal, lines elsewhere.
    #[default]
    Auto,
    /// Drawn.
    Tty,
    /// Lines.
    Plain,
    /// One JSON object for each event.
    Rawjson,
    /// Nothing.
    Quiet,
}

/// Build an image from a Dockerfile, with no engine.
#[derive(Debug, Parser)]
#[command(name = "dory build", version)]
pub struct Options {
    /// The context: a directory, or `-` for a tar archive from standard input.
    #[arg(default_value = ".")]
    pub context: String,
    /// The Dockerfile; `-` for standard input [default: Dockerfile in the context].
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<String>,
    /// A name for the image; may be given several times.
    #[arg(short, long = "tag", value_name = "NAME")]
    pub tags: Vec<String>,
    /// The stage to build.
    #[arg(long)]
    pub target: Option<String>,
    /// An argument, `NAME=value`, or `NAME` for the value of the environment.
    #[arg(long = "build-arg", value_name = "NAME[=VALUE]")]
    pub build_args: Vec<String>,
    /// A label, `key=value`.
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub labels: Vec<String>,
    /// A note in the manifest, `[LEVEL:]KEY=VALUE`; levels are `manifest` and `index`.
    #[arg(long = "annotation", value_name = "NOTE")]
    pub annotations: Vec<String>,
    /// A named context: a directory, or `docker-image://NAME`.
    #[arg(long = "build-context", value_name = "NAME=PLACE")]
    pub build_contexts: Vec<String>,
    /// For which machine.
    #[arg(long = "platform", value_delimiter = ',')]
    pub platforms: Vec<String>,
    /// Use no cached result.
    #[arg(long)]
    pub no_cache: bool,
    /// Use no cached result of these stages.
    #[arg(long, value_delimiter = ',', value_name = "STAGE")]
    pub no_cache_filter: Vec<String>,
    /// Ask registries for newer base images.
    #[arg(long)]
    pub pull: bool,
    /// Push the image to the registries of its names.
    #[arg(long)]
    pub push: bool,
    /// Where the result goes: `type=local|tar|oci|docker|image[,dest=PATH][,push=true]`, or a directory.
    #[arg(short, long = "output", value_name = "OUTPUT")]
    pub outputs: Vec<String>,
    /// A secret: `id=ID[,src=FILE]` or `id=ID,env=NAME`.
    #[arg(long = "secret", value_name = "SECRET")]
    pub secrets: Vec<String>,
    /// An SSH agent: `default` (SSH_AUTH_SOCK) or `ID=SOCKET`.
    #[arg(long = "ssh", value_name = "AGENT")]
    pub ssh: Vec<String>,
    /// Where else cached results are looked for.
    #[arg(long = "cache-from", value_name = "CACHE")]
    pub cache_from: Vec<String>,
    /// Where cached results are brought to.
    #[arg(long = "cache-to", value_name = "CACHE")]
    pub cache_to: Vec<String>,
    /// Network of the commands: `default`, `none`, `host`.
    #[arg(long, default_value = "default")]
    pub network: String,
    /// A grant: `network.host`, `security.insecure`.
    #[arg(long = "allow", value_name = "ENTITLEMENT")]
    pub allow: Vec<String>,
    /// A line of /etc/hosts, `NAME:ADDRESS`.
    #[arg(long = "add-host", value_name = "HOST")]
    pub add_hosts: Vec<String>,
    /// Write the image's id to a file.
    #[arg(long, value_name = "FILE")]
    pub iidfile: Option<PathBuf>,
    /// Attest what the image was made of (`mode=min`).
    #[arg(long, value_name = "MODE", num_args = 0..=1, require_equals = true, default_missing_value = "mode=min")]
    pub provenance: Option<String>,
    /// Write facts about the result to a file, in JSON.
    #[arg(long, value_name = "FILE")]
    pub metadata_file: Option<PathBuf>,
    /// Show nothing but the image's id.
    #[arg(short, long)]
    pub quiet: bool,
    /// How progress is shown.
    #[arg(long, value_enum, default_value_t)]
    pub progress: ProgressWord,
    /// Where the cache and images are kept [default: the engine's, with `-build` behind it].
    #[arg(long, value_name = "DIR")]
    pub data_root: Option<PathBuf>,
}

fn provenance(text: &str) -> Result<Option<Provenance>> {
    match text {
        "true" | "mode=min" | "min" => Ok(Some(Provenance::Min)),
        "false" => Ok(None),
        other => bail!("provenance `{other}` is not supported: mode=min"),
    }
}

impl Options {
    /// What is to be built, without the context.
    pub fn request(&self) -> Result<Request> {
        let epoch = std::env::var("SOURCE_DATE_EPOCH").ok().filter(|epoch| !epoch.is_empty());
        let mut request = Request {
            target: self.target.clone(),
            build_args: self.build_args.iter().map(|arg| build_arg(arg)).collect(),
            labels: self.labels.iter().map(|label| pair(label)).collect(),
            annotations: self.annotations.iter().map(|note| annotation(note)).collect::<Result<_>>()?,
            platforms: self.platforms.iter().map(|text| Ok(text.parse()?)).collect::<Result<_>>()?,
            no_cache: match (self.no_cache, self.no_cache_filter.as_slice()) {
                (true, _) => NoCache::All,
                (false, []) => NoCache::Off,
                (false, stages) => NoCache::Stages(stages.to_vec()),
            },
            pull: if self.pull { PullPolicy::Always } else { PullPolicy::Missing },
            cache_from: self.cache_from.iter().map(|cache| location(cache)).collect(),
            cache_to: self.cache_to.iter().map(|cache| location(cache)).collect(),
            entitlements: self.entitlements()?,
            network: match self.network.as_str() {
                "default" | "bridge" => NetworkMode::Default,
                "none" => NetworkMode::None,
                "host" => NetworkMode::Host,
                other => bail!("no such network: `{other}`"),
            },
            source_date_epoch: epoch.map(|epoch| epoch_of(&epoch)).transpose()?,
            provenance: self.provenance.as_deref().map(provenance).transpose()?.flatten(),
            outputs: self.outputs()?,
            names: self.tags.iter().map(|tag| image_name(tag)).collect::<Result<_>>()?,
            ..Request::default()
        };
        request.limits.extra_hosts.clone_from(&self.add_hosts);
        for context in &self.build_contexts {
            let (name, place) = context.split_once('=').context("a named context is NAME=PLACE")?;
            let place = match place.strip_prefix("docker-image://") {
                Some(image) => NamedContext::Image(image.to_owned()),
                None if place.contains("://") => bail!("the named context `{place}` is not supported yet"),
                None => NamedContext::Files(Arc::new(DirectoryContext::new(place))),
            };
            request.named_contexts.insert(name.to_owned(), place);
        }
        Ok(request)
    }

    fn entitlements(&self) -> Result<Entitlements> {
        let mut entitlements = Entitlements::default();
        for grant in &self.allow {
            match grant.as_str() {
                "network.host" => entitlements.network_host = true,
                "security.insecure" => entitlements.security_insecure = true,
                other => bail!("no such entitlement: `{other}`"),
            }
        }
        Ok(entitlements)
    }

    fn outputs(&self) -> Result<Vec<Output>> {
        let mut outputs = self.outputs.iter().map(|text| output(text)).collect::<Result<Vec<_>>>()?;
        let mut is_image = false;
        for output in &mut outputs {
            if let Output::Image { push, .. } = output {
                (is_image, *push) = (true, *push || self.push);
            }
        }
        if outputs.is_empty() || (self.push && !is_image) {
            outputs.push(Output::Image { names: Vec::new(), push: self.push, insecure: false });
        }
        Ok(outputs)
    }

    /// The secrets, each read when it is asked for.
    pub fn secrets(&self) -> Result<SecretPlaces> {
        let mut secrets = BTreeMap::new();
        for text in &self.secrets {
            let fields = fields(text);
            let get = |name: &str| fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
            let id = get("id").with_context(|| format!("the secret `{text}` has no id"))?;
            let env = get("env").or_else(|| (get("type").as_deref() == Some("env")).then(|| id.clone()));
            let place = match (get("src").or_else(|| get("source")), env) {
                (Some(path), _) => SecretPlace::File(path.into()),
                (None, Some(name)) => SecretPlace::Variable(name),
                // As with docker: a variable of that name counts before a file.
                (None, None) if std::env::var_os(&id).is_some() => SecretPlace::Variable(id.clone()),
                (None, None) => SecretPlace::File(id.clone().into()),
            };
            secrets.insert(id, place);
        }
        Ok(SecretPlaces(secrets))
    }
}

/// Where a secret is.
#[derive(Debug, Clone)]
enum SecretPlace {
    File(PathBuf),
    Variable(String),
}

/// Secrets of this machine, by id.
#[derive(Debug)]
pub struct SecretPlaces(BTreeMap<String, SecretPlace>);

impl Secrets for SecretPlaces {
    fn secret(&self, id: &str) -> io::Result<Option<Vec<u8>>> {
        match self.0.get(id) {
            None => Ok(None),
            Some(SecretPlace::File(path)) => std::fs::read(path).map(Some),
            Some(SecretPlace::Variable(name)) => Ok(std::env::var(name).ok().map(String::into_bytes)),
        }
    }
}

fn build_arg(text: &str) -> (String, Option<String>) {
    match text.split_once('=') {
        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
        None => (text.to_owned(), std::env::var(text).ok()),
    }
}

fn pair(text: &str) -> (String, String) {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    (key.to_owned(), value.to_owned())
}

fn annotation(text: &str) -> Result<Annotation> {
    let (key, value) =
        text.split_once('=').with_context(|| format!("the annotation `{text}` has no value"))?;
    let (level, key) = match key.split_once(':') {
        Some((level @ ("manifest" | "index" | "manifest-descriptor" | "index-descriptor"), key)) => {
            (level, key)
        }
        _ => ("manifest", key),
    };
    Ok(Annotation { level: level.to_owned(), key: key.to_owned(), value: value.to_owned() })
}

fn image_name(text: &str) -> Result<ImageReference> {
    text.parse().with_context(|| format!("`{text}` is no name of an image"))
}

fn epoch_of(text: &str) -> Result<Timestamp> {
    let seconds = text.parse().with_context(|| format!("SOURCE_DATE_EPOCH is no number: `{text}`"))?;
    Timestamp::from_unix(seconds, 0).with_context(|| format!("SOURCE_DATE_EPOCH is no time: `{text}`"))
}

fn fields(text: &str) -> Vec<(String, String)> {
    let field = |field: &str| {
        let (key, value) = field.split_once('=').unwrap_or((field, "true"));
        (key.trim().to_ascii_lowercase(), value.trim().to_owned())
    };
    text.split(',').map(field).collect()
}

/// `type=registry,ref=NAME`, or a name alone.
fn location(text: &str) -> CacheLocation {
    if !text.contains('=') {
        let attributes = BTreeMap::from([("ref".to_owned(), text.to_owned())]);
        return CacheLocation { kind: "registry".to_owned(), attributes };
    }
    let mut attributes: BTreeMap<String, String> = fields(text).into_iter().collect();
    let kind = attributes.remove("type").unwrap_or_else(|| "registry".to_owned());
    CacheLocation { kind, attributes }
}

/// A file, or standard output.
#[derive(Debug)]
struct FileSink(Option<PathBuf>);

impl Sink for FileSink {
    fn open(&self) -> io::Result<Box<dyn Write + Send>> {
        match &self.0 {
            None => Ok(Box::new(io::stdout())),
            Some(path) => Ok(Box::new(std::fs::File::create(path)?)),
        }
    }
}

fn output(text: &str) -> Result<Output> {
    if text == "-" {
        return Ok(Output::Tar { sink: Arc::new(FileSink(None)) });
    }
    if !text.contains('=') {
        return Ok(Output::Local { directory: text.into() });
    }
    let fields = fields(text);
    let get = |name: &str| fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let dest = get("dest").or_else(|| get("path"));
    let sink = || Arc::new(FileSink(dest.filter(|dest| *dest != "-").map(PathBuf::from)));
    let names =
        || get("name").into_iter().flat_map(|names| names.split('|')).map(image_name).collect::<Result<_>>();
    let is_pushed = get("push") == Some("true");
    Ok(match get("type").unwrap_or("local") {
        "local" => Output::Local { directory: dest.context("type=local needs a dest")?.into() },
        "tar" => Output::Tar { sink: sink() },
        "oci" | "docker" => Output::Archive { names: names()?, sink: sink() },
        "image" => Output::Image { names: names()?, push: is_pushed, insecure: false },
        "registry" => Output::Image { names: names()?, push: true, insecure: false },
        other => bail!("no such output: type={other}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_outputs_and_caches() {
        let words = ["build", "-o", "out", "--push", "-t", "a/b", "--cache-from", "x", "."];
        let request = Options::parse_from(words).request().unwrap();
        assert!(matches!(&request.outputs[0], Output::Local { directory } if directory.ends_with("out")));
        assert!(matches!(&request.outputs[1], Output::Image { push: true, .. }));
        assert_eq!(request.cache_from[0].attributes["ref"], "x");
        assert!(output("type=nothing").is_err());
        let note = annotation("index:org.x=a=b").unwrap();
        assert_eq!((note.level.as_str(), note.key.as_str(), note.value.as_str()), ("index", "org.x", "a=b"));
        assert_eq!(annotation("a:b=c").unwrap().key, "a:b");
        assert!(matches!(output("type=docker,dest=-").unwrap(), Output::Archive { .. }));
    }
}
