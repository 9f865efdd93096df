//! The lines that change files: `RUN`, `COPY`, `ADD`, `WORKDIR`.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use dory_dockerfile::{Copy, IgnorePatterns, Network, Run, Security, Sources};
use dory_types::Digest;

use super::history;
use super::stage::{Made, Stage, StageError};
use super::telling::Teller;
use crate::error::StepError;
use crate::executor::{RunCommand, RunObserver};
use crate::graph::PREDEFINED_ARGS;
use crate::operations::copy::{CopyFiles, CopyPath};
use crate::operations::key::Key;
use crate::operations::owner::owner;
use crate::operations::permissions::Permissions;
use crate::progress::{ClassicEvent, Stream};
use crate::request::NetworkMode;

/// Lines of a failed command's output that its error has.
const LAST_LINES: usize = 15;

impl Stage<'_, '_> {
    /// `RUN`.
    pub(super) fn run(&mut self, run: &Run, text: &str) -> Result<(), StageError> {
        let words = self.command(run);
        let vertex = self.vertex(text, Vec::new());
        let arguments: Vec<(String, String)> =
            self.args.declared().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let shown = arguments.iter().filter(|(name, _)| !PREDEFINED_ARGS.contains(&name.as_str()));
        let described = history::run(shown.map(|(name, value)| (name.as_str(), value.as_str())), &words);
        let made = self.run_command(run, &words, vertex, &described);
        self.finish(vertex, made, described)
    }

    /// Program and arguments: the shell's where it runs them, and its script where there is a here-document.
    fn command(&self, run: &Run) -> Vec<String> {
        let shell = &self.config.config.shell;
        let mut words = history::words(&run.command, shell);
        if let [heredoc] = run.heredocs.as_slice()
            && run
                .command
                .words
                .first()
                .is_some_and(|line| line.trim() == format!("<<{}", heredoc.name) || is_only_heredoc(line))
        {
            let mut command = run.command.clone();
            command.words = vec![heredoc.content.clone()];
            return history::words(&command, shell);
        }
        // The shell itself reads the others.
        if let (Some(last), false) = (words.last_mut(), run.heredocs.is_empty()) {
            for heredoc in &run.heredocs {
                last.push('\n');
                last.push_str(&heredoc.content);
                last.push_str(&heredoc.name);
            }
        }
        words
    }

    fn run_command(
        &self,
        run: &Run,
        args: &[String],
        vertex: Digest,
        described: &str,
    ) -> Result<Made, StageError> {
        self.check_platform()?;
        let network = self.network(run)?;
        let insecure = run.security == Security::Insecure;
        if insecure && !self.solver.request.entitlements.security_insecure {
            let what = "RUN --security=insecure".to_owned();
            return Err(StepError::NotEntitled { what, entitlement: "security.insecure" }.into());
        }
        let config = &self.config.config;
        let mut env = config.env.clone();
        env.extend(self.env_of_args().iter().map(|(name, value)| format!("{name}={value}")));
        let mounts = self.mounts(run)?;
        let directory = if config.working_dir.is_empty() { "/" } else { &config.working_dir };
        let mut key = Key::new("run/2");
        for layer in &self.layers {
            key.content(&layer.diff_id());
        }
        let is_key =
            |pair: &&String| !PREDEFINED_ARGS.iter().any(|name| pair.starts_with(&format!("{name}=")));
        key.texts(args).texts(env.iter().filter(is_key)).text(directory).text(&config.user);
        key.text(&format!("{network:?} {insecure} {:?}", self.solver.request.limits.extra_hosts));
        key.content(&mounts.key).text(&self.platform.to_string());
        key.text(&format!("{:?}", self.solver.request.source_date_epoch));
        // Given by the client for every command; neither in keys nor in the history.
        for name in PREDEFINED_ARGS {
            if let Some(Some(value)) = self.solver.request.build_args.get(name)
                && !env.iter().any(|pair| pair.starts_with(&format!("{name}=")))
            {
                env.push(format!("{name}={value}"));
            }
        }
        self.solve_key(key.digest(), described, "regular", || {
            let prepared = mounts.prepare(self)?;
            env.extend(prepared.env);
            let command = RunCommand {
                layers: self.layers.clone(),
                args: args.to_vec(),
                env,
                directory: directory.to_owned(),
                user: config.user.clone(),
                mounts: prepared.mounts,
                network,
                insecure,
                limits: self.solver.request.limits.clone(),
                latest: self.solver.request.source_date_epoch.map(|epoch| epoch.unix_seconds()),
            };
            let observer = Observer {
                teller: self.solver.teller,
                vertex,
                stage: self.index,
                container: Mutex::default(),
                lines: Mutex::default(),
            };
            let end = self.solver.builder.executor.run(command, &observer, self.solver.cancel);
            observer.ended();
            let end = end.map_err(|error| match error {
                crate::executor::ExecuteError::Cancelled => StepError::Cancelled,
                error => error.into(),
            })?;
            if end.exit_code != 0 {
                let last_lines = observer.last_lines();
                let (exit_code, oom_killed) = (end.exit_code, end.oom_killed);
                return Err(
                    StepError::Exit { command: args.join(" "), exit_code, oom_killed, last_lines }.into()
                );
            }
            Ok(end.layer)
        })
    }

    /// Refuses commands for machines that this one is not, where nothing emulates them.
    fn check_platform(&self) -> Result<(), StepError> {
        let wanted = &self.platform;
        if dory_registry::Platform::current().accepts(wanted) || is_emulated(&wanted.architecture) {
            return Ok(());
        }
        Err(StepError::Unsupported(format!(
            "a command for {wanted} needs an emulator, which this machine has not registered (binfmt_misc): build it on \
             such a machine, or let FROM and COPY suffice"
        )))
    }

    fn network(&self, run: &Run) -> Result<NetworkMode, StepError> {
        let request = self.solver.request;
        let network = match run.network {
            Network::Default => request.network.clone(),
            Network::None => NetworkMode::None,
            Network::Host => NetworkMode::Host,
        };
        if network == NetworkMode::Host && !request.entitlements.network_host {
            let what = "network mode host".to_owned();
            return Err(StepError::NotEntitled { what, entitlement: "network.host" });
        }
        Ok(network)
    }

    /// `COPY`.
    pub(super) fn copy(&mut self, copy: &Copy, text: &str) -> Result<(), StageError> {
        let sources = self.expanded(&copy.sources)?;
        let vertex = self.vertex(text, Vec::new());
        let described = history::copy(copy, &sources);
        let from = copy.from.as_deref().map(|from| self.expand(from)).transpose()?;
        let paths = sources.paths.iter().map(|path| self.copy_path(from.as_deref(), path, false));
        let paths = paths.collect::<Result<Vec<_>, _>>();
        let how = How { parents: copy.parents };
        let made = paths.and_then(|paths| self.copy_files(&sources, &paths, how, &described));
        self.finish(vertex, made, described)
    }

    pub(super) fn expanded(&self, sources: &Sources) -> Result<Sources, StepError> {
        let mut expanded = sources.clone();
        for text in expanded.paths.iter_mut().chain([&mut expanded.destination]) {
            *text = self.expand(text)?;
        }
        for text in [&mut expanded.chown, &mut expanded.chmod].into_iter().flatten() {
            *text = self.expand(text)?;
        }
        for text in &mut expanded.exclude {
            *text = self.expand(text)?;
        }
        for inline in expanded.inlines.iter_mut().filter(|inline| inline.expand) {
            let mut lexer = self.solver.plan.lexer();
            lexer.raw_quotes = true;
            lexer.raw_escapes = false;
            inline.content = self.expand_with(lexer, &inline.content)?;
        }
        Ok(expanded)
    }

    /// A path in the tree that `from` means.
    pub(super) fn copy_path(
        &self,
        from: Option<&str>,
        path: &str,
        unpack: bool,
    ) -> Result<CopyPath, StageError> {
        let Some(source) = self.source(from)? else {
            return Err(StepError::Invalid(format!("there is no context to copy {path} from")).into());
        };
        Ok(CopyPath { source, path: path.to_owned(), unpack })
    }

    pub(super) fn copy_files(
        &self,
        sources: &Sources,
        paths: &[CopyPath],
        how: How,
        described: &str,
    ) -> Result<Made, StageError> {
        let view = self.view()?;
        let owner = sources.chown.as_deref().map(|text| owner(text, &view)).transpose()?;
        let permissions = match sources.chmod.as_deref() {
            None => None,
            Some(text) => Some(Permissions::parse(text).ok_or_else(|| {
                StepError::Invalid(format!(
                    "invalid chmod parameter: '{text}'. it should be octal or symbolic"
                ))
            })?),
        };
        let exclude = IgnorePatterns::from_lines(sources.exclude.iter().map(String::as_str))
            .map_err(|error| StepError::Invalid(error.to_string()))?;
        let below = if sources.link { self.nothing()? } else { view };
        let destination = self.absolute(&sources.destination);
        let copy = CopyFiles {
            below: &below,
            paths,
            inlines: &sources.inlines,
            destination: &destination,
            parents: how.parents,
            exclude: Some(exclude).filter(|exclude| !exclude.is_empty()),
            owner,
            permissions,
            now: self.now(),
            latest: self.solver.request.source_date_epoch.map(|epoch| epoch.unix_seconds()),
        };
        let prepared = copy.prepare()?;
        let key = prepared.key()?;
        self.solve_key(key, described, "regular", || Ok(Some(prepared.layer(&self.solver.builder.store)?)))
    }

    /// A tree without anything.
    pub(super) fn nothing(&self) -> Result<dory_store::View, StepError> {
        dory_store::View::of_layers(&[]).map_err(|error| StepError::Invalid(error.to_string()))
    }

    /// Makes `WORKDIR`'s directory where it is missing.
    pub(super) fn make_directory(&self, directory: &str) -> Result<Made, StageError> {
        let view = self.view()?;
        let there = view.find(directory.as_bytes(), true).map_err(|error| StepError::Copy {
            path: directory.to_owned(),
            message: dory_types::with_causes(&error),
        })?;
        // It belongs to whoever works there.
        let user = Some(self.config.config.user.as_str()).filter(|user| !user.is_empty());
        let belongs = user.map(|user| owner(user, &view)).transpose()?;
        let mut key = Key::new("workdir/2");
        for layer in &self.layers {
            key.content(&layer.diff_id());
        }
        key.text(directory).text(&format!("{belongs:?}"));
        if there.is_some() {
            let created = self.config.created.unwrap_or_default();
            return Ok(Made { layer: None, key: key.digest(), created, cached: true });
        }
        self.solve_key(key.digest(), &format!("WORKDIR {directory}"), "regular", || {
            let store = &self.solver.builder.store;
            Ok(Some(crate::operations::copy::directory_layer(store, &view, directory, belongs, self.now())?))
        })
    }
}

/// What distinguishes the forms of copying.
#[derive(Debug, Clone, Copy)]
pub(super) struct How {
    /// Directories of the paths are kept.
    pub(super) parents: bool,
}

/// Whether the kernel starts programs of another architecture with an emulator (binfmt_misc(5), QEMU's names).
fn is_emulated(architecture: &str) -> bool {
    let name = match architecture {
        "amd64" => "x86_64",
        "386" => "i386",
        "arm64" => "aarch64",
        other => other,
    };
    std::fs::read_to_string(format!("/proc/sys/fs/binfmt_misc/qemu-{name}"))
        .is_ok_and(|entry| entry.starts_with("enabled"))
}

/// `<<EOF` and nothing else.
fn is_only_heredoc(line: &str) -> bool {
    let line = line.trim();
    line.starts_with("<<") && !line.contains(char::is_whitespace)
}

/// Listens to a command.
struct Observer<'a> {
    teller: &'a Teller,
    vertex: Digest,
    stage: usize,
    container: Mutex<String>,
    lines: Mutex<(VecDeque<String>, String)>,
}

impl Observer<'_> {
    fn ended(&self) {
        let container = self.container.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if !container.is_empty() {
            self.teller.classic(self.stage, ClassicEvent::Removed(container));
        }
    }

    fn last_lines(&self) -> Vec<String> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.0.iter().cloned().chain(Some(lines.1.clone()).filter(|line| !line.is_empty())).collect()
    }
}

impl RunObserver for Observer<'_> {
    fn running(&self, container: &str) {
        container.clone_into(&mut self.container.lock().unwrap_or_else(PoisonError::into_inner));
        self.teller.classic(self.stage, ClassicEvent::Running(container.to_owned()));
    }

    fn output(&self, stream: Stream, data: &[u8]) {
        self.teller.log(self.vertex, stream, data);
        self.teller.classic(self.stage, ClassicEvent::Output(stream, data.to_vec()));
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        for piece in String::from_utf8_lossy(data).split_inclusive('\n') {
            match piece.strip_suffix('\n') {
                Some(end) => {
                    let line = std::mem::take(&mut lines.1) + end;
                    lines.0.push_back(line);
                }
                None => lines.1.push_str(piece),
            }
            if lines.0.len() > LAST_LINES {
                lines.0.pop_front();
            }
        }
    }
}
