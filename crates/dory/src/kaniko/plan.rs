//! What a call of `dory kaniko` asks for.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use dory_build::{CacheLocation, Request};
use dory_registry::RegistryConfig;
use dory_types::{Digest, ImageReference, Timestamp};

use super::flags::Arguments;
use super::location::Location;

/// Kaniko's own default, which its image has as working directory.
const CONTEXT: &str = "/workspace/";

/// What is written about the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DigestFile {
    /// The digest alone.
    Digest,
    /// `NAME@DIGEST`, a line for each destination.
    Name,
    /// `NAME:TAG@DIGEST`, a line for each destination.
    NameAndTag,
}

/// A call, understood. Contexts and outputs are opened by whoever carries it out.
#[derive(Debug)]
pub(super) struct Plan {
    /// Arguments, labels, target, caches, platforms.
    pub(super) request: Request,
    /// Where the context is.
    pub(super) context: Location,
    /// A directory within it.
    pub(super) sub_path: Option<String>,
    /// Path of the Dockerfile, as given.
    pub(super) dockerfile: String,
    /// Names of the image.
    pub(super) destinations: Vec<ImageReference>,
    /// They are pushed.
    pub(super) push: bool,
    /// An archive to write.
    pub(super) archive: Option<PathBuf>,
    /// Files about the image.
    pub(super) digest_files: Vec<(DigestFile, PathBuf)>,
    /// For standard error: what was accepted and changes nothing.
    pub(super) notes: Vec<String>,
}

impl Plan {
    /// Understands `arguments`; `environment` gives the values of build arguments that have only a name.
    ///
    /// # Errors
    /// A flag that cannot be obeyed, by name, or nothing to do with the result.
    pub(super) fn read(arguments: &Arguments, environment: impl Fn(&str) -> Option<String>) -> Result<Self> {
        if let Some((flag, way_out)) = arguments.refused() {
            bail!("--{flag} is not supported: {way_out}");
        }
        let destinations = arguments
            .list("destination")
            .into_iter()
            .map(|name| name.parse().with_context(|| format!("--destination `{name}`")))
            .collect::<Result<Vec<ImageReference>>>()?;
        let push = !arguments.on("no-push");
        let archive = arguments.value("tar-path").or_else(|| arguments.value("tarPath")).map(PathBuf::from);
        ensure!(!push || !destinations.is_empty(), "you must provide --destination, or use --no-push");
        let notes = arguments.ignored().map(|name| format!("--{name} changes nothing here")).collect();
        Ok(Self {
            request: request(arguments, &destinations, environment)?,
            context: Location::parse(arguments.value("context").unwrap_or(CONTEXT), &arguments.list("git"))?,
            sub_path: arguments.value("context-sub-path").filter(|path| !path.is_empty()).map(str::to_owned),
            dockerfile: arguments.value("dockerfile").unwrap_or("Dockerfile").to_owned(),
            destinations,
            push,
            archive,
            digest_files: digest_files(arguments),
            notes,
        })
    }

    /// What `file` says of an image with this digest.
    pub(super) fn digest_text(&self, file: DigestFile, digest: &Digest) -> String {
        let line = |name: &ImageReference| {
            let repository = format!("{}/{}", name.repository().domain(), name.repository().path());
            let tag = name.tag().filter(|_| file == DigestFile::NameAndTag);
            let tag = tag.map_or_else(String::new, |tag| format!(":{}", tag.as_str()));
            format!("{repository}{tag}@{digest}\n")
        };
        match file {
            DigestFile::Digest => digest.to_string(),
            _ => self.destinations.iter().map(line).collect(),
        }
    }
}

fn request(
    arguments: &Arguments,
    destinations: &[ImageReference],
    environment: impl Fn(&str) -> Option<String>,
) -> Result<Request> {
    let build_arg = |text: &str| match text.split_once('=') {
        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
        None => (text.to_owned(), environment(text)),
    };
    let label = |text: &str| {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        (name.to_owned(), value.to_owned())
    };
    let platform = arguments.value("custom-platform").or_else(|| arguments.value("customPlatform"));
    let platforms = platform.map(|text| text.parse().with_context(|| format!("--custom-platform `{text}`")));
    let caches = caches(arguments, destinations)?;
    Ok(Request {
        build_args: arguments.list("build-arg").into_iter().map(build_arg).collect(),
        labels: arguments.list("label").into_iter().map(label).collect(),
        target: arguments.value("target").filter(|target| !target.is_empty()).map(str::to_owned),
        platforms: platforms.transpose()?.into_iter().collect(),
        cache_to: if arguments.on("no-push-cache") { Vec::new() } else { caches.clone() },
        cache_from: caches,
        names: destinations.to_vec(),
        source_date_epoch: Timestamp::from_unix(0, 0).filter(|_| arguments.on("reproducible")),
        squash: arguments.on("single-snapshot"),
        ..Request::default()
    })
}

/// The repository of cached layers, where one is wanted.
fn caches(arguments: &Arguments, destinations: &[ImageReference]) -> Result<Vec<CacheLocation>> {
    if !arguments.on("cache") {
        return Ok(Vec::new());
    }
    let repository = match (arguments.value("cache-repo"), destinations.first()) {
        (Some(repository), _) if !repository.is_empty() => repository.to_owned(),
        (_, Some(name)) => format!("{}/{}/cache", name.repository().domain(), name.repository().path()),
        _ => bail!("--cache needs --cache-repo where there is no --destination"),
    };
    let attributes = [("ref".to_owned(), repository), ("mode".to_owned(), "max".to_owned())].into();
    Ok(vec![CacheLocation { kind: "registry".to_owned(), attributes }])
}

fn digest_files(arguments: &Arguments) -> Vec<(DigestFile, PathBuf)> {
    [
        ("digest-file", DigestFile::Digest),
        ("image-name-with-digest-file", DigestFile::Name),
        ("image-name-tag-with-digest-file", DigestFile::NameAndTag),
    ]
    .into_iter()
    .filter_map(|(flag, file)| Some((file, arguments.value(flag).map(Path::new)?.to_owned())))
    .collect()
}

/// What the flags say about registries, added to `config`.
///
/// # Errors
/// A value without `=`, or no pair of certificate and key.
pub(super) fn configure(arguments: &Arguments, config: &mut RegistryConfig) -> Result<()> {
    let pair = |flag: &'static str, text: &str| -> Result<(String, String)> {
        let (host, value) = text.split_once('=').with_context(|| format!("--{flag} `{text}`: no `=`"))?;
        Ok((host.to_owned(), value.to_owned()))
    };
    for flag in ["insecure-registry", "skip-tls-verify-registry"] {
        config.insecure_registries.extend(arguments.list(flag).into_iter().map(str::to_owned));
    }
    if arguments.on("insecure") || arguments.on("skip-tls-verify") {
        // Those of destinations may speak plain HTTP, or have any certificate.
        let names =
            arguments.list("destination").into_iter().filter_map(|name| name.parse::<ImageReference>().ok());
        config.insecure_registries.extend(names.map(|name| name.repository().domain().to_owned()));
    }
    config.registry_mirrors.extend(arguments.list("registry-mirror").into_iter().map(address));
    for text in arguments.list("registry-map") {
        let (host, mirror) = pair("registry-map", text)?;
        config.hosts.entry(host).or_default().mirrors.push(address(&mirror));
    }
    for text in arguments.list("registry-certificate") {
        let (host, path) = pair("registry-certificate", text)?;
        config.hosts.entry(host).or_default().ca = Some(path.into());
    }
    for text in arguments.list("registry-client-cert") {
        let (host, files) = pair("registry-client-cert", text)?;
        let (certificate, key) =
            files.split_once(',').with_context(|| format!("--registry-client-cert `{text}`: no key"))?;
        let entry = config.hosts.entry(host).or_default();
        (entry.client_certificate, entry.client_key) = (Some(certificate.into()), Some(key.into()));
    }
    Ok(())
}

/// Kaniko's mirrors are hosts without a scheme.
fn address(mirror: &str) -> String {
    if mirror.contains("://") { mirror.to_owned() } else { format!("https://{mirror}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(words: &str) -> Arguments {
        let words: Vec<_> = ["kaniko"].into_iter().chain(words.split_whitespace()).map(Into::into).collect();
        Arguments::parse(&words).unwrap()
    }

    fn plan(words: &str) -> Result<Plan> {
        Plan::read(&arguments(words), |name| (name == "SET").then(|| "outside".to_owned()))
    }

    #[test]
    fn understands_a_pipeline() {
        let plan = plan(
            "--context /builds/project --dockerfile /builds/project/Dockerfile --destination registry.test/a/b:1 \
             --destination=registry.test/a/b:latest --build-arg A=b=c --build-arg SET --build-arg UNSET --label x=y \
             --cache=true --cache-ttl=24h --target last --snapshot-mode redo --snapshotMode=time --single-snapshot \
             --reproducible --digest-file /d --image-name-with-digest-file=/n --insecure -v debug",
        )
        .unwrap();
        assert_eq!(plan.context, Location::Directory("/builds/project".into()));
        assert_eq!(plan.dockerfile, "/builds/project/Dockerfile");
        assert_eq!(plan.destinations.len(), 2);
        assert!(plan.push && plan.request.squash && plan.request.source_date_epoch.is_some());
        let given: Vec<_> = plan.request.build_args.into_iter().collect();
        let expected = [("A", Some("b=c")), ("SET", Some("outside")), ("UNSET", None)]
            .map(|(name, value): (&str, Option<&str>)| (name.to_owned(), value.map(str::to_owned)));
        assert_eq!(given, expected);
        assert_eq!(plan.request.target.as_deref(), Some("last"));
        assert_eq!(plan.request.cache_from[0].attributes["ref"], "registry.test/a/b/cache");
        assert_eq!(plan.request.cache_to, plan.request.cache_from);
        assert_eq!(plan.digest_files.len(), 2);
        assert_eq!(plan.notes.len(), 4, "{:?}", plan.notes);
    }

    #[test]
    fn says_what_is_missing_or_refused() {
        for (words, message) in [
            ("", "you must provide --destination, or use --no-push"),
            ("--no-push --cache", "--cache needs --cache-repo where there is no --destination"),
            ("--no-push --context s3://b/x", "contexts at `s3://` are not fetched"),
            ("--no-push --insecure-pull", "--insecure-pull is not supported"),
            ("--no-push --oci-layout-path=/x", "--oci-layout-path is not supported"),
        ] {
            let error = plan(words).unwrap_err().to_string();
            assert!(error.starts_with(message), "{words}: {error}");
        }
        assert!(plan("--no-push --insecure-pull=false").is_ok());
    }

    #[test]
    fn writes_digests() {
        let plan = plan("-d registry.test/a:1 -d registry.test/b").unwrap();
        let digest: Digest = format!("sha256:{}", "ab".repeat(32)).parse().unwrap();
        assert_eq!(plan.digest_text(DigestFile::Digest, &digest), digest.to_string());
        let names = format!("registry.test/a@{digest}\nregistry.test/b@{digest}\n");
        assert_eq!(plan.digest_text(DigestFile::Name, &digest), names);
        let tagged = format!("registry.test/a:1@{digest}\nregistry.test/b:latest@{digest}\n");
        assert_eq!(plan.digest_text(DigestFile::NameAndTag, &digest), tagged);
    }

    #[test]
    fn configures_registries() {
        let arguments = arguments(
            "--registry-mirror mirror.test --registry-map quay.io=m.test --insecure-registry plain.test \
             --registry-certificate own.test=/ca.pem --registry-client-cert own.test=/c.pem,/k.pem",
        );
        let mut config = RegistryConfig::default();
        configure(&arguments, &mut config).unwrap();
        assert_eq!(config.registry_mirrors, ["https://mirror.test"]);
        assert_eq!(config.insecure_registries, ["plain.test"]);
        assert_eq!(config.hosts["quay.io"].mirrors, ["https://m.test"]);
        assert_eq!(config.hosts["own.test"].client_key.as_deref(), Some(Path::new("/k.pem")));
        assert!(config.validate().is_ok());
    }
}
