//! The files under `tests/cases`: what a person would type, and what must come back.
//!
//! ```text
//! === run: the program's exit code arrives
//! @cli old new
//! $ docker run --rm busybox sh -c 'echo out; exit 7'
//! out
//! ? 7
//! ```
//!
//! | line | meaning |
//! |---|---|
//! | `=== NAME` | starts a case |
//! | `@cli old new` | runs once with each of these docker commands (`new` alone is the default) |
//! | `@only dory: WHY` | does not run for the other engine |
//! | `@differs: WHY` | lines marked with an engine's name below are a known difference |
//! | `@tag NAME` | groups cases (`smoke`, `vm`, `nested`) |
//! | `@full-root` | is skipped for dockerd where root lacks a capability, as runc refuses `--privileged` there |
//! | `@alone` | no other case runs on the same engine meanwhile |
//! | `@timeout N` | seconds for each run of the case |
//! | `$ COMMAND` | a step, run by one bash per case, so that variables stay; `> MORE` continues it |
//! | `? N` | the exit status expected; 0 if not given |
//! | `! TEXT` | a line expected on standard error, which is not looked at if there is none |
//! | `dory> TEXT`, `dockerd> TEXT` | a line expected of one engine only |
//! | `dory? N`, `dockerd? N` | an exit status expected of one engine only |
//! | `# TEXT` | a remark |
//! | an empty line | separates; an empty line of output is written as a single backslash |
//! | anything else | a line expected on standard output, patterns as in [`crate::pattern`] |
//!
//! A step without any output line expects standard output to be empty, unless it has `...`.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// The engine that a case runs against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineKind {
    /// Ours.
    Dory,
    /// Docker's, the reference.
    Dockerd,
}

impl EngineKind {
    /// The name as it is written in transcripts.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dory => "dory",
            Self::Dockerd => "dockerd",
        }
    }
}

/// Which docker command types the transcript.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cli {
    /// Docker 20.10, Debian bookworm's.
    Old,
    /// Docker 26, Debian trixie's.
    New,
}

impl Cli {
    /// The name as it is written in transcripts and as the folder of the tool.
    pub fn name(self) -> &'static str {
        match self {
            Self::Old => "old",
            Self::New => "new",
        }
    }
}

/// One case of a transcript file.
#[derive(Debug, Clone)]
pub struct Case {
    /// Area and sentence, as after `===`.
    pub name: String,
    /// The docker commands that it runs with.
    pub clis: Vec<Cli>,
    /// The engine that it does not run for, and why.
    pub skips: Vec<(EngineKind, String)>,
    /// Whether dockerd can do it only where root has every capability.
    pub full_root: bool,
    /// Why its engines answer differently, if they do.
    pub differs: Option<String>,
    /// Groups that it belongs to.
    pub tags: Vec<String>,
    /// Whether it needs the engine to itself.
    pub alone: bool,
    /// How long one run may take.
    pub timeout: Duration,
    /// What is typed, and what is expected.
    pub steps: Vec<Step>,
}

/// One command and what must come back.
#[derive(Debug, Clone, Default)]
pub struct Step {
    /// Line number in the file, from 1.
    pub line: usize,
    /// Shell text.
    pub command: String,
    stdout: Vec<(Option<EngineKind>, String)>,
    stderr: Vec<String>,
    status: Vec<(Option<EngineKind>, i32)>,
}

// `EngineKind` has no meaningful default, so `Step`'s lists carry it only inside pairs.
impl Step {
    /// The lines expected of `engine` on standard output.
    pub fn stdout(&self, engine: EngineKind) -> Vec<String> {
        self.stdout
            .iter()
            .filter(|(of, _)| of.is_none_or(|of| of == engine))
            .map(|(_, text)| text.clone())
            .collect()
    }

    /// The lines expected on standard error; empty if nobody looks.
    pub fn stderr(&self) -> &[String] {
        &self.stderr
    }

    /// The exit status expected of `engine`.
    pub fn status(&self, engine: EngineKind) -> i32 {
        let own = self.status.iter().find(|(of, _)| *of == Some(engine));
        own.or_else(|| self.status.iter().find(|(of, _)| of.is_none())).map_or(0, |(_, status)| *status)
    }

    fn tells_engines_apart(&self) -> bool {
        self.stdout.iter().any(|(of, _)| of.is_some()) || self.status.iter().any(|(of, _)| of.is_some())
    }
}

/// Reads every `*.case` file of `folder`, in the order of their names.
///
/// # Errors
/// A file that cannot be read or parsed, with its name and line.
pub fn read_folder(folder: &Path) -> Result<Vec<Case>> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .with_context(|| format!("cannot list `{}`", folder.display()))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "case"))
        .collect();
    files.sort();
    let mut cases = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file)?;
        cases.extend(parse(&text).with_context(|| format!("in `{}`", file.display()))?);
    }
    Ok(cases)
}

/// Parses the text of one transcript file.
///
/// # Errors
/// The number of the line that makes no sense.
pub fn parse(text: &str) -> Result<Vec<Case>> {
    let mut cases: Vec<Case> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        parse_line(&mut cases, index + 1, line).with_context(|| format!("line {}: `{line}`", index + 1))?;
    }
    for case in &cases {
        let marked = case.steps.iter().any(Step::tells_engines_apart);
        ensure!(!marked || case.differs.is_some(), "`{}`: marked lines need `@differs: WHY`", case.name);
    }
    Ok(cases)
}

fn parse_line(cases: &mut Vec<Case>, number: usize, line: &str) -> Result<()> {
    if let Some(name) = line.strip_prefix("=== ") {
        cases.push(Case {
            name: name.trim().to_owned(),
            clis: vec![Cli::New],
            skips: Vec::new(),
            full_root: false,
            differs: None,
            tags: Vec::new(),
            alone: false,
            timeout: Duration::from_secs(30),
            steps: Vec::new(),
        });
        return Ok(());
    }
    if line.is_empty() || line == "#" || line.starts_with("# ") {
        return Ok(());
    }
    let case = cases.last_mut().context("text before the first case")?;
    if let Some(attribute) = line.strip_prefix('@') {
        return parse_attribute(case, attribute);
    }
    if let Some(command) = line.strip_prefix("$ ") {
        case.steps.push(Step { line: number, command: command.to_owned(), ..Step::default() });
        return Ok(());
    }
    let step = case.steps.last_mut().context("expected output before the first command")?;
    if let Some(more) = line.strip_prefix("> ") {
        step.command.push('\n');
        step.command.push_str(more);
    } else if let Some(text) = line.strip_prefix("! ") {
        step.stderr.push(text.to_owned());
    } else if let Some(status) = line.strip_prefix("? ") {
        step.status.push((None, status.trim().parse()?));
    } else if let Some((engine, rest)) = marked(line) {
        match rest.split_at(1) {
            (">", text) => {
                step.stdout.push((Some(engine), text.strip_prefix(' ').unwrap_or(text).to_owned()))
            }
            (_, status) => step.status.push((Some(engine), status.trim().parse()?)),
        }
    } else {
        // A leading backslash lets an expected line start with a sign that means something here.
        step.stdout.push((None, line.strip_prefix('\\').unwrap_or(line).to_owned()));
    }
    Ok(())
}

fn marked(line: &str) -> Option<(EngineKind, &str)> {
    [EngineKind::Dory, EngineKind::Dockerd].into_iter().find_map(|engine| {
        let rest = line.strip_prefix(engine.name())?;
        (rest.starts_with('>') || rest.starts_with("? ")).then_some((engine, rest))
    })
}

fn parse_attribute(case: &mut Case, attribute: &str) -> Result<()> {
    let (word, rest) = attribute.split_once(' ').unwrap_or((attribute, ""));
    match word {
        "cli" => {
            case.clis = rest
                .split_whitespace()
                .map(|name| match name {
                    "old" => Ok(Cli::Old),
                    "new" => Ok(Cli::New),
                    other => bail!("unknown docker command `{other}`"),
                })
                .collect::<Result<_>>()?;
        }
        "only" => {
            let (engine, why) = rest.split_once(": ").context("`@only ENGINE: WHY`")?;
            let skipped = match engine {
                "dory" => EngineKind::Dockerd,
                "dockerd" => EngineKind::Dory,
                other => bail!("unknown engine `{other}`"),
            };
            case.skips.push((skipped, why.to_owned()));
        }
        "differs:" => case.differs = Some(rest.to_owned()),
        "tag" => case.tags.extend(rest.split_whitespace().map(str::to_owned)),
        "full-root" => case.full_root = true,
        "alone" => case.alone = true,
        "timeout" => case.timeout = Duration::from_secs(rest.trim().parse()?),
        other => bail!("unknown attribute `@{other}`"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = "\
=== run: sample
@cli old new
@differs: because
@tag smoke
$ docker run \\
>   busybox
out
dory> ours
dockerd> theirs
! err
dory? 2
? 7
";

    #[test]
    fn sample_is_understood() {
        let cases = parse(SAMPLE).expect("parses");
        let case = &cases[0];
        assert_eq!(case.clis, [Cli::Old, Cli::New]);
        let step = &case.steps[0];
        assert_eq!(step.command, "docker run \\\n  busybox");
        assert_eq!(step.stdout(EngineKind::Dory), ["out", "ours"]);
        assert_eq!(step.stdout(EngineKind::Dockerd), ["out", "theirs"]);
        assert_eq!(step.stderr(), ["err"]);
        assert_eq!((step.status(EngineKind::Dory), step.status(EngineKind::Dockerd)), (2, 7));
    }

    #[test]
    fn mistakes_are_refused() {
        let bad = [
            "stray\n",
            "=== a\nout\n",
            "=== a\n@nonsense\n",
            "=== a\n$ x\n? seven\n",
            "=== a\n$ x\ndory> y\n",
        ];
        for text in bad {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
