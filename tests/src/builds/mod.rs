//! Builds compared: the same Dockerfiles through Dory's doors and through dockerd's two builders.
//!
//! What is compared: the configuration with its history, the number of layers, and of every file its name, type, mode,
//! owner, size, content, links and extended attributes. Differences with a reason are listed in the tables of
//! `docs/compatibility.md` as `build <kind> <field>` or, for one Dockerfile, `<name>: build <kind> <field>`.

mod builder;
mod image;
mod recipe;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;
use rustix::process::Signal;
use serde_json::json;

use crate::compare::{self, Aspect};
use crate::engine::{self, Engine};
use crate::inspector::differences::{Differences, Known};
use crate::transcript::EngineKind;
use builder::{Builder, Outcome, Site};
use image::Image;
use recipe::Recipe;

/// The images that Dockerfiles may begin from.
const BASES: [&str; 1] = ["busybox.tar"];

/// What is compared with what.
#[derive(Debug, Args)]
pub struct BuildCompareArguments {
    /// The dory binary.
    #[arg(long)]
    dory: PathBuf,
    /// The dockerd binary.
    #[arg(long)]
    dockerd: PathBuf,
    /// Folder with the docker commands, see docs/testing.md.
    #[arg(long)]
    tools: PathBuf,
    /// Folder with the image archives.
    #[arg(long)]
    images: PathBuf,
    /// Folder with a folder for each Dockerfile.
    #[arg(long)]
    dockerfiles: PathBuf,
    /// The document that lists the known differences.
    #[arg(long)]
    known: PathBuf,
    /// Scratch space; removed at the end.
    #[arg(long, default_value = "/var/tmp/dory-builds")]
    work: PathBuf,
    /// Two builders, the second being the measure; may be repeated. For example `dory-alone,dockerd-buildkit`.
    #[arg(long, value_name = "ONE,OTHER", value_parser = pair)]
    pair: Vec<(Builder, Builder)>,
    /// Print the known differences too.
    #[arg(long)]
    all: bool,
    /// Print what failing builds say.
    #[arg(long)]
    verbose: bool,
    /// Build only what has one of these in its name.
    filter: Vec<String>,
}

/// What is compared where nobody says what.
const PAIRS: [(Builder, Builder); 3] = [
    (Builder::DoryClassic, Builder::DockerdClassic),
    (Builder::DoryBuildkit, Builder::DockerdBuildkit),
    (Builder::DoryAlone, Builder::DockerdBuildkit),
];

fn pair(text: &str) -> Result<(Builder, Builder)> {
    let (one, other) = text.split_once(',').context("two names with a comma between")?;
    let named = |name: &str| Builder::named(name).with_context(|| format!("no builder `{name}`"));
    Ok((named(one)?, named(other)?))
}

/// Builds, compares, and prints what differs; true where everything that differs has a reason.
///
/// # Errors
/// An engine does not start, or a client cannot be run.
pub fn run(arguments: &BuildCompareArguments) -> Result<bool> {
    let pairs = if arguments.pair.is_empty() { PAIRS.to_vec() } else { arguments.pair.clone() };
    let recipes = select(arguments)?;
    let text = std::fs::read_to_string(&arguments.known)
        .with_context(|| format!("cannot read `{}`", arguments.known.display()))?;
    let known = Known::parse(&text).only(|place| place.starts_with("build ") || place.contains(": build "));
    let work = crate::scratch(&arguments.work)?;
    let bases = BASES.map(|name| arguments.images.join(name));
    let mut engines = Vec::new();
    for (kind, binary) in [(EngineKind::Dory, &arguments.dory), (EngineKind::Dockerd, &arguments.dockerd)] {
        if pairs.iter().any(|(one, other)| [one, other].iter().any(|builder| builder.engine() == Some(kind)))
        {
            let mut engine = Engine::prepare(kind, binary, &work.join(kind.name()))?;
            engine.start()?;
            engine.load_images(&arguments.tools, &bases)?;
            engines.push(engine);
        }
    }
    let alone = match pairs.iter().any(|(one, other)| [one, other].contains(&&Builder::DoryAlone)) {
        true => Some(Engine::prepare_store(&arguments.dory, &work.join("alone"), &arguments.tools, &bases)?),
        false => None,
    };
    let site = Site {
        tools: &std::path::absolute(&arguments.tools)?,
        dory: &std::path::absolute(&arguments.dory)?,
        work: &work,
        engines: &engines,
        alone: alone.as_ref(),
    };
    let comparison = Comparison { site: &site, verbose: arguments.verbose };
    let outcome = comparison.run(&recipes, &pairs, &known, arguments.all);
    for mut engine in engines {
        engine::remove_containers(&engine, &arguments.tools);
        engine.stop(Signal::TERM)?;
    }
    let _ = std::fs::remove_dir_all(&work);
    outcome
}

fn select(arguments: &BuildCompareArguments) -> Result<Vec<Recipe>> {
    let recipes = recipe::read_all(&arguments.dockerfiles)?;
    let chosen = |recipe: &Recipe| {
        arguments.filter.is_empty() || arguments.filter.iter().any(|part| recipe.name.contains(part))
    };
    let bases: Vec<String> =
        recipes.iter().filter(|recipe| chosen(recipe)).flat_map(|recipe| recipe.bases.clone()).collect();
    let mut recipes = recipes;
    recipes.retain(|recipe| chosen(recipe) || bases.contains(&recipe.name));
    ensure!(!recipes.is_empty(), "no Dockerfile has such a name");
    Ok(recipes)
}

/// All Dockerfiles with all pairs of builders.
struct Comparison<'a> {
    site: &'a Site<'a>,
    verbose: bool,
}

impl Comparison<'_> {
    fn run(
        &self,
        recipes: &[Recipe],
        pairs: &[(Builder, Builder)],
        known: &Known,
        everything: bool,
    ) -> Result<bool> {
        let mut good = true;
        for &(one, other) in pairs {
            println!("== {} beside {}", one.name(), other.name());
            let mut differences = Differences::between(one.name(), other.name());
            let subject = format!("build {}", other.kind());
            let known = known.clone().only(|place| place.contains(&subject));
            let mut compared = 0;
            for recipe in recipes {
                if let Some((builder, why)) =
                    [one, other].iter().find_map(|builder| Some((builder, recipe.left_out(*builder)?)))
                {
                    println!("   {}: not with {}: {why}", recipe.name, builder.name());
                    continue;
                }
                compared += 1;
                if let Err(error) = self.compare(recipe, one, other, &mut differences) {
                    let place = format!("build {} is not compared", other.kind());
                    differences.add(&place, &recipe.name, format!("{error:#}"), String::new());
                }
            }
            good &= differences.report(&known, everything);
            println!("{compared} of {} Dockerfiles compared\n", recipes.len());
        }
        Ok(good)
    }

    fn compare(
        &self,
        recipe: &Recipe,
        one: Builder,
        other: Builder,
        differences: &mut Differences,
    ) -> Result<()> {
        let subject = format!("build {}", other.kind());
        let (ours, theirs) = (self.build(recipe, one)?, self.build(recipe, other)?);
        let of = |result: &Result<Image, String>| match result {
            Ok(image) => image.described(recipe.in_other_words(one, other)),
            Err(said) => json!({ "fails": said }),
        };
        differences.compare(&subject, &recipe.name, "", &of(&ours), &of(&theirs));
        let (Ok(ours), Ok(theirs)) = (ours, theirs) else { return Ok(()) };
        for difference in compare::trees(&ours.root, &theirs.root)? {
            // Builds take place at different times, and their files say so.
            if difference.aspect == Aspect::Time {
                continue;
            }
            let place = format!("{subject} /{} {:?}", difference.path.display(), difference.aspect);
            differences.add(&place, &recipe.name, difference.left, difference.right);
        }
        Ok(())
    }

    /// The image, or in a few words why there is none.
    fn build(&self, recipe: &Recipe, builder: Builder) -> Result<Result<Image, String>> {
        match (self.site.build(builder, recipe)?, &recipe.fails) {
            (Outcome::Built(_), Some(_)) => Ok(Err("not".to_owned())),
            (Outcome::Built(archive), None) => {
                let image = Image::unpack(&archive, &self.site.work.join(builder.name()))?;
                std::fs::remove_file(&archive)?;
                Ok(Ok(image))
            }
            (Outcome::Failed(said), fails) => {
                if self.verbose {
                    println!("{} of {} says:\n{said}", builder.name(), recipe.name);
                }
                let as_expected = fails.as_ref().is_some_and(|text| said.contains(text.as_str()));
                let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
                Ok(Err(if as_expected { "as expected".to_owned() } else { last.to_owned() }))
            }
        }
    }
}
