//! `image copy`: between registries, layouts, archives and engines.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use dory_registry::{
    Access, CopyDestination, CopyEvent, CopyOptions, CopySource, DockerConfig, Place, Registries, Remote,
    copy,
};
use dory_types::ImageReference;
use http_body_util::{BodyExt, StreamBody};
use tokio::io::AsyncWriteExt;

use crate::client::{ConnectionLost, Path};
use crate::command::{Arity, Command, Invocation};
use crate::failure::ExitStatus;
use crate::flags::{FlagsEnd, long_list, long_value, switch};
use crate::print;

/// How much of an archive is sent at once, in bytes.
const PIECE: usize = 256 << 10;

/// `dory image copy`.
pub(crate) const COPY: Command = Command {
    usage: "[OPTIONS] SOURCE DESTINATION",
    about: "Copy an image: docker://NAME, oci:DIR[:TAG], oci-archive:FILE[:TAG], docker-archive:FILE[:NAME], dory:NAME",
    flags: &[&[
        switch("all", 'a', "Copy the images of all platforms, and their index"),
        long_list("insecure-registry", "Registry whose certificate is not checked"),
        long_value("platform", "string", "Platform of the image"),
        switch("quiet", 'q', "Do not show progress"),
    ]],
    arity: Arity::Exactly(2),
    flags_end: FlagsEnd::DoubleDash,
    run: |invocation| Box::pin(run(invocation)),
};

async fn run(invocation: &Invocation<'_>) -> Result<ExitStatus> {
    let arguments = &invocation.arguments;
    let [source, destination] = arguments.positional() else { unreachable!("exactly two arguments") };
    let (source, destination): (Place, Place) = (source.parse()?, destination.parse()?);
    let platform = arguments.value("platform").map(str::parse).transpose()?;
    let options = CopyOptions { all: arguments.on("all"), platform };
    let mut registry_config = (invocation.registries)()?;
    registry_config.insecure_registries.extend(arguments.list("insecure-registry").iter().cloned());
    let registries = Arc::new(Registries::new(registry_config)?);
    let staging = Staging::new();
    let opened = match &source {
        Place::Registry(reference) => {
            let remote = remote(invocation, &registries, reference, Access::Pull)?;
            CopySource::registry(remote, reference.clone())
        }
        Place::Engine(name) => {
            let file = staging.path("source.tar")?;
            save(invocation, name, &file).await?;
            CopySource::local(&Place::DockerArchive { file, reference: None })?
        }
        local => CopySource::local(local)?,
    };
    let target = match &destination {
        Place::Registry(reference) => {
            let remote = remote(invocation, &registries, reference, Access::Push)?;
            CopyDestination::registry(remote, reference.clone())
        }
        Place::Engine(name) => {
            let reference: ImageReference = name.parse()?;
            let file = staging.path("destination.tar")?;
            CopyDestination::local(&Place::DockerArchive { file, reference: Some(reference) })?
        }
        local => CopyDestination::local(local)?,
    };
    let quiet = arguments.on("quiet");
    let copied = copy(&opened, &target, &options, &|event| tell(quiet, &event)).await?;
    if let Place::Engine(_) = &destination {
        load(invocation, &staging.path("destination.tar")?).await?;
    }
    print(&format!("{}\n", copied.digest))
}

fn tell(quiet: bool, event: &CopyEvent<'_>) {
    let (what, blob) = match event {
        CopyEvent::Blob(blob) => ("Copying blob", blob),
        CopyEvent::Present(blob) => ("Already there: blob", blob),
        CopyEvent::Manifest(manifest) => ("Writing manifest", manifest),
    };
    if !quiet {
        eprintln!("{what} {} ({})", blob.digest, crate::units::short_size(blob.size as f64));
    }
}

fn remote(
    invocation: &Invocation<'_>,
    registries: &Arc<Registries>,
    reference: &ImageReference,
    access: Access,
) -> Result<Remote> {
    let repository = reference.repository().clone();
    let config = DockerConfig::load(&invocation.docker_config)?;
    let credentials = config.credentials(repository.domain())?;
    Ok(registries.remote(repository, access, credentials))
}

/// Has the engine write an image to `file`.
async fn save(invocation: &Invocation<'_>, name: &str, file: &std::path::Path) -> Result<()> {
    let context = || format!("cannot write `{}`", file.display());
    let path = Path::new(&["images", name, "get"]);
    let mut body = invocation.client.get_stream(path.as_str()).await?.into_body();
    let mut output = tokio::fs::File::create(file).await.with_context(context)?;
    while let Some(frame) = body.frame().await {
        if let Ok(bytes) = frame.context(ConnectionLost)?.into_data() {
            output.write_all(&bytes).await.with_context(context)?;
        }
    }
    output.flush().await.with_context(context)
}

/// Has the engine take the images of `file` in.
async fn load(invocation: &Invocation<'_>, file: &std::path::Path) -> Result<()> {
    let input =
        tokio::fs::File::open(file).await.with_context(|| format!("cannot read `{}`", file.display()))?;
    let pieces = futures_util::stream::try_unfold(input, async |mut input| {
        let mut piece = vec![0; PIECE];
        let length = tokio::io::AsyncReadExt::read(&mut input, &mut piece).await?;
        piece.truncate(length);
        Ok((length > 0).then(|| (hyper::body::Frame::data(bytes::Bytes::from(piece)), input)))
    });
    let body = StreamBody::new(pieces).boxed_unsync();
    let response = invocation
        .client
        .post_stream(Path::new(&["images", "load"]).query("quiet", 1).as_str(), body)
        .await?;
    super::progress::show(response, super::Progress::Quiet).await
}

/// A directory for archives on their way from or to an engine; made when first needed, gone with this.
#[derive(Default)]
struct Staging(std::cell::OnceCell<PathBuf>);

impl Staging {
    fn new() -> Self {
        Self::default()
    }

    fn path(&self, name: &str) -> Result<PathBuf> {
        if let Some(directory) = self.0.get() {
            return Ok(directory.join(name));
        }
        let directory = std::env::temp_dir().join(format!("dory-copy-{}", std::process::id()));
        std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o700)
            .create(&directory)
            .with_context(|| format!("cannot make `{}`", directory.display()))?;
        Ok(self.0.get_or_init(|| directory).join(name))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if let Some(directory) = self.0.get() {
            // A temporary directory that stays is only clutter.
            let _ = std::fs::remove_dir_all(directory);
        }
    }
}
