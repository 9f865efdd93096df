//! Who builds: two engines with two builders each, and `dory build` without an engine.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::recipe::Recipe;
use crate::engine::Engine;
use crate::transcript::EngineKind;

/// One way to get an image from a Dockerfile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Builder {
    /// dockerd, asked as clients before BuildKit do.
    DockerdClassic,
    /// The BuildKit within dockerd.
    DockerdBuildkit,
    /// Dory, asked as clients before BuildKit do.
    DoryClassic,
    /// Dory, asked in BuildKit's protocol.
    DoryBuildkit,
    /// `dory build`, with no engine.
    DoryAlone,
}

impl Builder {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::DockerdClassic, Self::DockerdBuildkit, Self::DoryClassic, Self::DoryBuildkit, Self::DoryAlone];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::DockerdClassic => "dockerd-classic",
            Self::DockerdBuildkit => "dockerd-buildkit",
            Self::DoryClassic => "dory-classic",
            Self::DoryBuildkit => "dory-buildkit",
            Self::DoryAlone => "dory-alone",
        }
    }

    /// Which of dockerd's two builders it should be equal to.
    pub fn kind(self) -> &'static str {
        match self {
            Self::DockerdClassic | Self::DoryClassic => "classic",
            Self::DockerdBuildkit | Self::DoryBuildkit | Self::DoryAlone => "buildkit",
        }
    }

    /// Whose it is.
    pub fn is_dockerd(self) -> bool {
        matches!(self, Self::DockerdClassic | Self::DockerdBuildkit)
    }

    /// The engine that has to run for it.
    pub fn engine(self) -> Option<EngineKind> {
        match self {
            Self::DockerdClassic | Self::DockerdBuildkit => Some(EngineKind::Dockerd),
            Self::DoryClassic | Self::DoryBuildkit => Some(EngineKind::Dory),
            Self::DoryAlone => None,
        }
    }

    /// Reads [`Self::name`].
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|builder| builder.name() == name)
    }
}

/// What came of a build.
#[derive(Debug)]
pub enum Outcome {
    /// The archive of the image, as `docker save` writes it.
    Built(PathBuf),
    /// It failed, and said this.
    Failed(String),
}

/// Where builds take place.
#[derive(Debug)]
pub struct Site<'a> {
    /// Folder with the docker commands.
    pub tools: &'a Path,
    /// The dory binary.
    pub dory: &'a Path,
    /// Scratch space.
    pub work: &'a Path,
    /// Those that run.
    pub engines: &'a [Engine],
    /// Has the data-root and the network of `dory build`, and does not run.
    pub alone: Option<&'a Engine>,
}

impl Site<'_> {
    /// Builds `recipe`, and saves the image.
    ///
    /// # Errors
    /// The client cannot start, or what was built cannot be saved.
    pub fn build(&self, builder: Builder, recipe: &Recipe) -> Result<Outcome> {
        // dockerd's BuildKit remembers files by the context's path, and takes those of the same size and time for the same.
        let context = self.work.join("contexts").join(&recipe.name);
        recipe.lay_out(&context)?;
        let archive = self.work.join(format!("{}-{}.tar", recipe.name, builder.name()));
        let line = match builder {
            Builder::DoryAlone => {
                let engine = self.alone.context("nothing is prepared for `dory build`")?;
                format!(
                    "exec nsenter --net={} -- dory build --data-root {} --progress plain --tag {} \
                     --output type=image --output type=docker,dest={} {} .",
                    engine.host.path(),
                    engine.folder.join("data").display(),
                    recipe.name,
                    archive.display(),
                    recipe.words(builder)
                )
            }
            // Not `.`: docker 20.10 tells that as the context's identity, and BuildKit takes files of all contexts of one identity
            // for the same that have the same name, size and time.
            _ => format!(
                "exec docker build --tag {} {} {}",
                recipe.name,
                recipe.words(builder),
                context.display()
            ),
        };
        let output = self.shell(builder, &line, &context, recipe.environment())?;
        if !output.status.success() {
            let said = [output.stdout, output.stderr].concat();
            return Ok(Outcome::Failed(String::from_utf8_lossy(&said).into_owned()));
        }
        if builder != Builder::DoryAlone {
            let line = format!("exec docker save --output {} {}", archive.display(), recipe.name);
            let saved = self.shell(builder, &line, &context, &[])?;
            ensure!(saved.status.success(), "`{line}`: {}", String::from_utf8_lossy(&saved.stderr));
        }
        Ok(Outcome::Built(archive))
    }

    fn shell(
        &self,
        builder: Builder,
        line: &str,
        context: &Path,
        environment: &[(String, String)],
    ) -> Result<std::process::Output> {
        let own = self.dory.parent().unwrap_or(Path::new("."));
        let path =
            format!("{}:{}:/usr/sbin:/usr/bin:/sbin:/bin", self.tools.join("old").display(), own.display());
        let mut command = Command::new("sh");
        command
            .args(["-c", line])
            .current_dir(context)
            .env_clear()
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .env("PATH", path)
            .env("HOME", self.work)
            .env("DOCKER_CONFIG", self.work.join("no-config"))
            .env("BUILDKIT_PROGRESS", "plain")
            .env("DOCKER_BUILDKIT", if builder.kind() == "classic" { "0" } else { "1" })
            .stdin(Stdio::null());
        if let Some(kind) = builder.engine() {
            let engine = self.engines.iter().find(|engine| engine.kind == kind).context("no such engine")?;
            command.env("DOCKER_HOST", format!("unix://{}", engine.socket.display()));
        }
        command.output().context("cannot start `sh`")
    }
}
