//! Stages and instructions, typed; variables in them are not expanded yet.

use crate::error::LineRange;
use crate::healthcheck::Healthcheck;
use crate::heredoc::Heredoc;

/// Something and where it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located<T> {
    /// The lines of the file, here-documents included.
    pub lines: LineRange,
    /// Its text, continued lines joined: what progress displays and an image's history show.
    pub text: String,
    /// The keyword as written, for the checks of its case.
    pub keyword: String,
    /// What it says.
    pub value: T,
}

/// From one `FROM` to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// What it begins from: an image, an earlier stage, or `scratch`.
    pub base: String,
    /// Its name, in lower case.
    pub name: Option<String>,
    /// `--platform`.
    pub platform: Option<String>,
    /// `as` and the name as they are written, for the checks of their case.
    pub(crate) alias: Option<(String, String)>,
    /// The instructions after `FROM`.
    pub instructions: Vec<Located<Instruction>>,
}

/// `name=value` of `ENV` and `LABEL`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// The name; may have variables.
    pub key: String,
    /// The value, with its quotes.
    pub value: String,
    /// Written as `name value`.
    pub legacy: bool,
}

/// One name of `ARG`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArgDefinition {
    /// The name.
    pub name: String,
    /// The default, with its quotes; `None` where none is written.
    pub default: Option<String>,
}

/// A command in one of its forms.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CommandLine {
    /// Words (exec form), or one line for the shell.
    pub words: Vec<String>,
    /// The shell runs it.
    pub shell: bool,
}

/// A file whose content stands in the Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inline {
    /// The file's name.
    pub name: String,
    /// Its content.
    pub content: String,
    /// Variables in it are expanded.
    pub expand: bool,
}

/// What `COPY` and `ADD` copy, and where to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sources {
    /// Paths and patterns; for `ADD`, addresses too.
    pub paths: Vec<String>,
    /// Files whose content stands in the Dockerfile.
    pub inlines: Vec<Inline>,
    /// The destination.
    pub destination: String,
    /// `--chown`.
    pub chown: Option<String>,
    /// `--chmod`.
    pub chmod: Option<String>,
    /// `--link`: the result does not depend on what is beneath.
    pub link: bool,
    /// `--exclude`.
    pub exclude: Vec<String>,
}

/// `COPY`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Copy {
    /// What and where to.
    pub sources: Sources,
    /// `--from`: a stage, image or named context.
    pub from: Option<String>,
    /// `--parents`: directories of the source paths are kept.
    pub parents: bool,
}

/// `ADD`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Add {
    /// What and where to.
    pub sources: Sources,
    /// `--keep-git-dir`; `None` where it is not given.
    pub keep_git_dir: Option<bool>,
    /// `--checksum`: of what an address gives.
    pub checksum: Option<String>,
    /// `--unpack`; `None`: local archives only.
    pub unpack: Option<bool>,
}

/// `RUN --network`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Network {
    /// The build's.
    #[default]
    Default,
    /// No network.
    None,
    /// The host's; needs a grant.
    Host,
}

/// `RUN --security`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Security {
    /// As confined as any container.
    #[default]
    Sandbox,
    /// With all privileges; needs a grant.
    Insecure,
}

/// `RUN`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Run {
    /// The command.
    pub command: CommandLine,
    /// Its here-documents.
    pub heredocs: Vec<Heredoc>,
    /// `--mount`, each as written: [`crate::Mount::parse`] reads it when variables have values.
    pub mounts: Vec<String>,
    /// `--network`.
    pub network: Network,
    /// `--security`.
    pub security: Security,
}

/// What a line of a stage says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instruction {
    /// `ADD`
    Add(Add),
    /// `ARG`
    Arg(Vec<ArgDefinition>),
    /// `CMD`
    Cmd(CommandLine),
    /// `COPY`
    Copy(Copy),
    /// `ENTRYPOINT`
    Entrypoint(CommandLine),
    /// `ENV`
    Env(Vec<KeyValue>),
    /// `EXPOSE`
    Expose(Vec<String>),
    /// `HEALTHCHECK`
    Healthcheck(Healthcheck),
    /// `LABEL`
    Label(Vec<KeyValue>),
    /// `MAINTAINER`
    Maintainer(String),
    /// `ONBUILD`: the trigger, as text; here-documents included.
    Onbuild(String),
    /// `RUN`
    Run(Run),
    /// `SHELL`
    Shell(Vec<String>),
    /// `STOPSIGNAL`
    StopSignal(String),
    /// `USER`
    User(String),
    /// `VOLUME`
    Volume(Vec<String>),
    /// `WORKDIR`
    Workdir(String),
}

impl Instruction {
    /// Its keyword in capitals.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Add(_) => "ADD",
            Self::Arg(_) => "ARG",
            Self::Cmd(_) => "CMD",
            Self::Copy(_) => "COPY",
            Self::Entrypoint(_) => "ENTRYPOINT",
            Self::Env(_) => "ENV",
            Self::Expose(_) => "EXPOSE",
            Self::Healthcheck(_) => "HEALTHCHECK",
            Self::Label(_) => "LABEL",
            Self::Maintainer(_) => "MAINTAINER",
            Self::Onbuild(_) => "ONBUILD",
            Self::Run(_) => "RUN",
            Self::Shell(_) => "SHELL",
            Self::StopSignal(_) => "STOPSIGNAL",
            Self::User(_) => "USER",
            Self::Volume(_) => "VOLUME",
            Self::Workdir(_) => "WORKDIR",
        }
    }
}
