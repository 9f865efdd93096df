//! One stage, line by line.

use std::collections::BTreeMap;
use std::sync::Arc;

use dory_dockerfile::{Instruction, Located, Variables};
use dory_registry::Platform;
use dory_store::{BuildRecord, ConfigChange, HistoryEntry, ImageConfig, LayerLease, RunConfig, View};
use dory_types::{Digest, Timestamp, with_causes};

use super::{Solver, StageResult, history};
use crate::cache::Exported;
use crate::error::{BuildError, StepError};
use crate::graph::{Base, Scope};
use crate::operations::select::clean;
use crate::progress::ClassicEvent;
use crate::request::NoCache;

/// What commands find where neither the image nor the Dockerfile says otherwise (moby `DefaultPathEnv`).
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A stage in work.
pub(super) struct Stage<'s, 'a> {
    pub(super) solver: &'s Solver<'a>,
    pub(super) index: usize,
    pub(super) config: ImageConfig,
    pub(super) layers: Vec<LayerLease>,
    pub(super) keys: Vec<Option<Digest>>,
    pub(super) args: Scope,
    pub(super) platform: Platform,
    /// Everything so far was there before.
    pub(super) cached: bool,
    /// When the newest layer was made: what made none has this time, so that the same build gives the same image.
    clock: Option<Timestamp>,
    command_is_set: bool,
    /// The vertex of the line before.
    last: Option<Digest>,
    progress: Counter,
    /// The lines that were told so far, those of the stages before included.
    told: usize,
}

/// Numbers of the lines that progress shows.
#[derive(Debug, Default)]
struct Counter {
    done: usize,
    total: usize,
}

/// Variables of a line: the environment counts before arguments.
struct InStage<'a> {
    env: &'a [String],
    args: &'a Scope,
}

impl Variables for InStage<'_> {
    fn value(&self, name: &str) -> Option<&str> {
        let in_env = self.env.iter().rev().find_map(|pair| match pair.split_once('=') {
            Some((key, value)) if key == name => Some(value),
            _ => None,
        });
        in_env.or_else(|| self.args.value(name))
    }
}

/// What a step that may change files came to.
pub(super) struct Made {
    pub(super) layer: Option<LayerLease>,
    pub(super) key: Digest,
    pub(super) created: Timestamp,
    pub(super) cached: bool,
}

/// Solves the stage `index`.
pub(super) fn solve(solver: &Solver<'_>, index: usize) -> Result<StageResult, BuildError> {
    let solved = solve_lines(solver, index);
    solver.teller.classic(index, ClassicEvent::End);
    solved
}

fn solve_lines(solver: &Solver<'_>, index: usize) -> Result<StageResult, BuildError> {
    let mut stage = begin(solver, index)?;
    let lines = solver.plan.file.stages[index].value.instructions.clone();
    let triggers = stage.take_triggers()?;
    for line in &triggers {
        stage.line(line, true)?;
    }
    for line in &lines {
        stage.line(line, false)?;
    }
    let Stage { config, layers, cached, keys, args, .. } = stage;
    Ok(StageResult { config, layers, cached, keys, args })
}

fn begin<'s, 'a>(solver: &'s Solver<'a>, index: usize) -> Result<Stage<'s, 'a>, BuildError> {
    let plan = solver.plan;
    let line = &plan.file.stages[index];
    let failed = |cause| plan.failed(&line.text, line.lines, cause);
    let platform = match &plan.platforms[index] {
        None => solver.platform.clone(),
        Some(text) => text
            .parse()
            .map_err(|_| failed(StepError::Invalid(format!("failed to parse platform {text}"))))?,
    };
    let instructions = &line.value.instructions;
    let total = 1 + instructions.iter().filter(|line| is_shown(&line.value)).count();
    let mut stage = Stage {
        solver,
        index,
        config: ImageConfig::default(),
        layers: Vec::new(),
        keys: Vec::new(),
        // Automatic and global arguments have to be declared to be seen.
        args: Scope::default(),
        platform,
        cached: true,
        clock: None,
        command_is_set: false,
        last: None,
        progress: Counter { done: 0, total },
        told: plan
            .needed
            .range(..index)
            .map(|index| 1 + plan.file.stages[*index].value.instructions.len())
            .sum(),
    };
    stage.tell_step(&line.text);
    stage.base().map_err(|error| match error {
        StageError::Step(cause) => failed(cause),
        StageError::Build(error) => error,
    })?;
    Ok(stage)
}

/// A failure of this stage, or of one that it needs.
pub(super) enum StageError {
    Step(StepError),
    Build(BuildError),
}

impl<E: Into<StepError>> From<E> for StageError {
    fn from(error: E) -> Self {
        Self::Step(error.into())
    }
}

/// The lines that progress numbers: those that change files.
fn is_shown(instruction: &Instruction) -> bool {
    matches!(
        instruction,
        Instruction::Run(_) | Instruction::Copy(_) | Instruction::Add(_) | Instruction::Workdir(_)
    )
}

impl Stage<'_, '_> {
    /// `[build 2/5] `, or `[2/5] ` where there is one stage only.
    fn label(&mut self) -> String {
        self.progress.done += 1;
        let plan = self.solver.plan;
        let platform = if self.solver.request.platforms.len() > 1 {
            format!("{} ", self.solver.platform)
        } else {
            String::new()
        };
        let name = if plan.file.stages.len() > 1 {
            format!("{} ", plan.stage_name(self.index))
        } else {
            String::new()
        };
        let width = self.progress.total.to_string().len();
        format!("[{platform}{name}{:>width$}/{}]", self.progress.done, self.progress.total)
    }

    /// Takes over what the stage begins from.
    fn base(&mut self) -> Result<(), StageError> {
        let solver = self.solver;
        match solver.plan.bases[self.index].clone() {
            Base::Scratch => {
                self.progress.done += 1;
                self.config = empty_config(&self.platform);
                self.tell_image();
            }
            Base::Stage(index) => {
                // Its own lines tell what it is.
                self.progress.done += 1;
                let base = solver.stage(index).map_err(StageError::Build)?;
                self.config = base.config.clone();
                self.layers = base.layers.clone();
                self.keys = base.keys.clone();
                self.args = base.args.clone();
                self.cached = base.cached;
                self.clock = base.config.created;
                self.tell_image();
            }
            Base::Name(name) => match solver.sources.named(&name) {
                Some(source) => {
                    source?;
                    return Err(StepError::Unsupported(format!(
                        "the named context {name} is files: FROM takes images only"
                    ))
                    .into());
                }
                None => self.image(&name)?,
            },
        }
        Ok(())
    }

    fn image(&mut self, name: &str) -> Result<(), StageError> {
        let solver = self.solver;
        let base = solver.sources.image(name, &self.platform)?;
        let mut shown = super::sources::familiar(name);
        if let Some(digest) = base.found.digest.filter(|_| !shown.contains('@')) {
            shown = format!("{shown}@{digest}");
        }
        let label = format!("{} FROM {shown}", self.label());
        let vertex = solver.teller.plan(&label, Vec::new());
        solver.teller.start(vertex);
        self.config = (*base.image.config).clone();
        self.layers = base.layers;
        self.keys = vec![None; self.layers.len()];
        self.clock = self.config.created;
        let has_path = self.config.config.env.iter().any(|pair| pair.starts_with("PATH="));
        if !has_path {
            self.config.config.env.push(DEFAULT_PATH.to_owned());
        }
        solver.teller.complete(vertex, true, None);
        self.last = Some(vertex);
        self.tell_image();
        Ok(())
    }

    /// The instructions that the base image has for those who build on it.
    fn take_triggers(&mut self) -> Result<Vec<Located<Instruction>>, BuildError> {
        let texts = match self.solver.plan.bases[self.index] {
            Base::Name(_) => std::mem::take(&mut self.config.config.on_build),
            Base::Stage(_) => std::mem::take(&mut self.config.config.on_build),
            Base::Scratch => Vec::new(),
        };
        let from = &self.solver.plan.file.stages[self.index];
        let read = |text: &String| {
            let mut line = dory_dockerfile::parse_trigger(text).map_err(|error| {
                let cause = StepError::Syntax(error.kind);
                self.solver.plan.failed(&format!("ONBUILD {text}"), from.lines, cause)
            })?;
            line.lines = from.lines;
            Ok(line)
        };
        let triggers: Vec<_> = texts.iter().map(read).collect::<Result<_, BuildError>>()?;
        self.progress.total += triggers.iter().filter(|line| is_shown(&line.value)).count();
        Ok(triggers)
    }

    fn line(&mut self, line: &Located<Instruction>, is_trigger: bool) -> Result<(), BuildError> {
        let plan = self.solver.plan;
        if !is_trigger {
            self.tell_step(&line.text);
        }
        let done =
            self.solver.check_cancelled().map_err(StageError::from).and_then(|()| self.instruction(line));
        done.map_err(|error| match error {
            StageError::Step(cause) => plan.failed(&line.text, line.lines, cause),
            StageError::Build(error) => error,
        })?;
        self.tell_image();
        Ok(())
    }

    fn instruction(&mut self, line: &Located<Instruction>) -> Result<(), StageError> {
        if let Some(checks) = self.solver.sources.checks.get() {
            let (plan, teller) = (self.solver.plan, self.solver.teller);
            let variables = InStage { env: &self.config.config.env, args: &self.args };
            checks.undefined(line, plan.lexer(), &variables, plan, teller);
        }
        match &line.value {
            Instruction::Arg(definitions) => {
                for definition in definitions {
                    let env = self.config.config.env.clone();
                    let before = self.args.clone();
                    let variables = InStage { env: &env, args: &before };
                    let solver = self.solver;
                    let around: (&Scope, &dyn Variables) = (&solver.plan.globals, &variables);
                    let given = &solver.request.build_args;
                    let value = self.args.declare(definition, solver.plan.lexer(), given, Some(around))?;
                    let text = match value {
                        Some(value) => format!("ARG {}={value}", definition.name),
                        None => format!("ARG {}", definition.name),
                    };
                    self.record(text, None);
                }
                Ok(())
            }
            Instruction::Run(run) => self.run(run, &line.text),
            Instruction::Copy(copy) => self.copy(copy, &line.text),
            Instruction::Add(add) => self.add(add, &line.text),
            Instruction::Workdir(path) => self.workdir(path, line),
            Instruction::Maintainer(name) => {
                self.config.author.clone_from(name);
                self.record(format!("MAINTAINER {name}"), None);
                Ok(())
            }
            other => self.configure(other),
        }
    }

    /// Instructions that touch no file.
    fn configure(&mut self, instruction: &Instruction) -> Result<(), StageError> {
        let env = self.config.config.env.clone();
        let args = self.args.clone();
        let variables = InStage { env: &env, args: &args };
        let lexer = self.solver.plan.lexer();
        let before = self.config.config.clone();
        let mut change = ConfigChange::resume(&mut self.config.config, self.command_is_set);
        change.apply(instruction, lexer, &variables)?;
        self.command_is_set = change.command_is_set();
        if matches!(instruction, Instruction::Cmd(_)) {
            // BuildKit says so on every platform.
            self.config.config.args_escaped = true;
        }
        let expand = |text: &str| lexer.expand(text, &variables).map(|expansion| expansion.text);
        let text = describe(instruction, &before, &self.config.config, &expand)?;
        self.record(text, None);
        Ok(())
    }

    fn workdir(&mut self, path: &str, line: &Located<Instruction>) -> Result<(), StageError> {
        let label = self.label();
        let vertex =
            self.solver.teller.plan(&format!("{label} {}", line.text), self.last.into_iter().collect());
        self.configure_workdir(&line.value)?;
        let directory = self.config.config.working_dir.clone();
        let _ = path;
        self.solver.teller.start(vertex);
        let made = self.make_directory(&directory);
        self.finish(vertex, made, format!("WORKDIR {directory}"))
    }

    fn configure_workdir(&mut self, instruction: &Instruction) -> Result<(), StageError> {
        let env = self.config.config.env.clone();
        let args = self.args.clone();
        let variables = InStage { env: &env, args: &args };
        let mut change = ConfigChange::resume(&mut self.config.config, self.command_is_set);
        change.apply(instruction, self.solver.plan.lexer(), &variables)?;
        Ok(())
    }

    /// A word of a line with its variables.
    pub(super) fn expand(&self, text: &str) -> Result<String, StepError> {
        let variables = InStage { env: &self.config.config.env, args: &self.args };
        Ok(self.solver.plan.lexer().expand(text, &variables)?.text)
    }

    /// The same in another manner of reading.
    pub(super) fn expand_with(&self, lexer: dory_dockerfile::Lexer, text: &str) -> Result<String, StepError> {
        Ok(self.expand_raw(lexer, text)?)
    }

    /// The same with the lexer's own error.
    pub(super) fn expand_raw(
        &self,
        lexer: dory_dockerfile::Lexer,
        text: &str,
    ) -> Result<String, dory_dockerfile::ExpansionError> {
        let variables = InStage { env: &self.config.config.env, args: &self.args };
        Ok(lexer.expand(text, &variables)?.text)
    }

    /// Takes the result of a step that may have made a layer in, and tells about it.
    pub(super) fn finish(
        &mut self,
        vertex: Digest,
        made: Result<Made, StageError>,
        text: String,
    ) -> Result<(), StageError> {
        let made = match made {
            Ok(made) => made,
            Err(error) => {
                let message = match &error {
                    StageError::Step(cause) => cause.to_string(),
                    StageError::Build(error) => error.to_string(),
                };
                self.solver.teller.complete(vertex, false, Some(&message));
                return Err(error);
            }
        };
        self.solver.teller.complete(vertex, made.cached, None);
        self.last = Some(vertex);
        self.cached &= made.cached;
        if made.cached {
            self.solver.teller.classic(self.index, ClassicEvent::UsingCache);
        }
        self.record(text, Some(made));
        Ok(())
    }

    /// Adds a line to the history, and the layer that it made.
    fn record(&mut self, text: String, made: Option<Made>) {
        let epoch = self.solver.request.source_date_epoch;
        let makes_files = made.is_some();
        let mut empty_layer = true;
        if let Some(made) = made {
            self.clock = Some(made.created);
            if let Some(layer) = made.layer {
                empty_layer = false;
                self.config.rootfs.diff_ids.push(layer.diff_id());
                self.layers.push(layer);
                self.keys.push(Some(made.key));
            }
        }
        let created = epoch.or(self.clock);
        self.config.created = created.or(self.config.created);
        self.config.history.push(HistoryEntry {
            created,
            created_by: if makes_files { format!("{text}{}", history::MARK) } else { text },
            comment: history::COMMENT.to_owned(),
            empty_layer,
            ..HistoryEntry::default()
        });
    }

    /// Looks `key` up, or makes what it stands for; nobody else makes the same meanwhile.
    pub(super) fn solve_key(
        &self,
        key: Digest,
        description: &str,
        kind: &str,
        make: impl FnOnce() -> Result<Option<LayerLease>, StageError>,
    ) -> Result<Made, StageError> {
        let builder = self.solver.builder;
        let _flight = builder.flights.begin(key, self.solver.cancel)?;
        let export = |made: Made| {
            // Pieces of this machine's contexts are no results.
            if kind != "internal" {
                let Made { layer, key, created, .. } = &made;
                let in_image = self.solver.plan.is_below_target(self.index);
                let exported = Exported { key: *key, layer: layer.clone(), created: *created, in_image };
                self.solver.sources.export(exported);
            }
            made
        };
        if self.uses_cache() {
            let elsewhere = || self.solver.sources.imported.bring(builder, key, description);
            if let Some((record, layer)) = builder.store.build_record(&key).or_else(elsewhere) {
                return Ok(export(Made { layer, key, created: record.created, cached: true }));
            }
        }
        let _slot = builder.flights.slot(self.solver.cancel)?;
        let layer = make()?;
        let created = Timestamp::now();
        let record = BuildRecord {
            layer: layer.as_ref().map(LayerLease::diff_id),
            description: description.to_owned(),
            kind: kind.to_owned(),
            created,
            used: created,
            uses: 0,
        };
        builder.store.put_build_record(key, record)?;
        Ok(export(Made { layer, key, created, cached: false }))
    }

    pub(super) fn uses_cache(&self) -> bool {
        match &self.solver.request.no_cache {
            NoCache::Off => true,
            NoCache::All => false,
            NoCache::Stages(stages) => {
                let name = self.solver.plan.stage_name(self.index);
                !stages.iter().any(|stage| stage.eq_ignore_ascii_case(&name))
            }
        }
    }

    /// The files so far.
    pub(super) fn view(&self) -> Result<View, StepError> {
        let directories = self.solver.builder.store.layer_directories(&self.layers);
        View::of_layers(&directories)
            .map_err(|error| StepError::Copy { path: "/".to_owned(), message: with_causes(&error) })
    }

    /// Seconds since 1970 that new files get.
    pub(super) fn now(&self) -> i64 {
        self.solver.request.source_date_epoch.unwrap_or_else(Timestamp::now).unix_seconds()
    }

    /// Starts the vertex of a line that changes files.
    pub(super) fn vertex(&mut self, text: &str, inputs: Vec<Digest>) -> Digest {
        let label = self.label();
        let inputs = self.last.into_iter().chain(inputs).collect();
        let vertex = self.solver.teller.plan(&format!("{label} {text}"), inputs);
        self.solver.teller.start(vertex);
        vertex
    }

    fn tell_step(&mut self, text: &str) {
        let plan = self.solver.plan;
        let lines = |index: &usize| 1 + plan.file.stages[*index].value.instructions.len();
        let total = plan.needed.iter().map(lines).sum();
        self.told += 1;
        let event = ClassicEvent::Step { number: self.told, total, text: text.to_owned() };
        self.solver.teller.classic(self.index, event);
    }

    /// The id that the image would have if the stage ended here.
    fn tell_image(&self) {
        let id = serde_json::to_vec(&self.config).map(|bytes| Digest::of(&bytes).hex()).unwrap_or_default();
        self.solver.teller.classic(self.index, ClassicEvent::Image(id));
    }

    pub(super) fn env_of_args(&self) -> BTreeMap<String, String> {
        let set = |name: &str| {
            self.config.config.env.iter().any(|pair| pair.split_once('=').is_some_and(|(key, _)| key == name))
        };
        let declared = self.args.declared().filter(|(name, _)| !set(name));
        declared.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    /// The source that `--from` means, and the vertices that it waits for.
    pub(super) fn source(
        &self,
        from: Option<&str>,
    ) -> Result<Option<Arc<crate::operations::copy::Source>>, StageError> {
        let solver = self.solver;
        let Some(from) = from else {
            return match &solver.request.context {
                None => Ok(None),
                Some(_) => Ok(Some(solver.sources.main()?)),
            };
        };
        if let Some(index) = solver.plan.stage(from, None) {
            if !solver.plan.inputs(self.index).contains(&index) {
                // Nobody has begun it: only names as they are written say which stages are needed, before any has values.
                return Err(StepError::Unsupported(format!(
                    "stage {from} is known by a variable or a trigger only: name it in a `COPY --from` of this stage"
                ))
                .into());
            }
            let stage = solver.stage(index).map_err(StageError::Build)?;
            return Ok(Some(Arc::new(super::sources::layered(solver.builder, &stage.layers)?)));
        }
        if let Some(source) = solver.sources.named(from) {
            return Ok(Some(source?));
        }
        if from == "scratch" {
            return Ok(Some(Arc::new(super::sources::layered(solver.builder, &[])?)));
        }
        let base = solver.sources.image(from, &self.platform)?;
        Ok(Some(Arc::new(super::sources::layered(solver.builder, &base.layers)?)))
    }

    /// `path` as seen from the working directory, with its slash at the end where it has one.
    pub(super) fn absolute(&self, path: &str) -> String {
        let joined = if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("{}/{path}", self.config.config.working_dir)
        };
        let is_directory = path.is_empty() || path == "." || path.ends_with('/') || path.ends_with("/.");
        let cleaned = clean(&joined).join("/");
        if is_directory && !cleaned.is_empty() { format!("/{cleaned}/") } else { format!("/{cleaned}") }
    }
}

/// An image without anything.
fn empty_config(platform: &Platform) -> ImageConfig {
    ImageConfig {
        architecture: platform.architecture.clone(),
        variant: if platform.architecture == "arm64" { String::new() } else { platform.variant.clone() },
        os: platform.os.clone(),
        config: RunConfig {
            env: vec![DEFAULT_PATH.to_owned()],
            working_dir: "/".to_owned(),
            ..RunConfig::default()
        },
        ..ImageConfig::default()
    }
}

/// What the history says of an instruction that touches no file.
fn describe(
    instruction: &Instruction,
    before: &RunConfig,
    config: &RunConfig,
    expand: &dyn Fn(&str) -> Result<String, dory_dockerfile::ExpansionError>,
) -> Result<String, StepError> {
    let pairs = |name: &str, pairs: &[dory_dockerfile::KeyValue]| -> Result<String, StepError> {
        let mut text = name.to_owned();
        for pair in pairs {
            text.push_str(&format!(" {}={}", expand(&pair.key)?, expand(&pair.value)?));
        }
        Ok(text)
    };
    let list = |words: &[String]| -> Result<Vec<String>, StepError> {
        words.iter().map(|word| Ok(expand(word)?)).collect()
    };
    Ok(match instruction {
        Instruction::Env(all) => pairs("ENV", all)?,
        Instruction::Label(all) => pairs("LABEL", all)?,
        Instruction::Cmd(command) => {
            format!("CMD {}", history::quoted(&history::words(command, &before.shell)))
        }
        Instruction::Entrypoint(command) => {
            format!("ENTRYPOINT {}", history::quoted(&history::words(command, &before.shell)))
        }
        Instruction::Expose(ports) => {
            let mut new = list(ports)?;
            new.iter_mut().filter(|port| !port.contains('/')).for_each(|port| port.push_str("/tcp"));
            new.sort();
            new.dedup();
            format!(
                "EXPOSE map[{}]",
                new.iter().map(|port| format!("{port}:{{}}")).collect::<Vec<_>>().join(" ")
            )
        }
        Instruction::Volume(paths) => format!("VOLUME {}", history::plain(&list(paths)?)),
        Instruction::User(user) => format!("USER {}", expand(user)?),
        Instruction::StopSignal(signal) => format!("STOPSIGNAL {}", expand(signal)?),
        Instruction::Shell(shell) => format!("SHELL {}", history::plain(shell)),
        Instruction::Healthcheck(_) => {
            config.healthcheck.as_ref().map(history::healthcheck).unwrap_or_default()
        }
        Instruction::Onbuild(trigger) => format!("ONBUILD {trigger}"),
        other => other.name().to_owned(),
    })
}
