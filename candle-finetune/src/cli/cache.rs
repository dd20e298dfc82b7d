//! `finetune cache`: what was fetched, and how to be rid of it.

use std::io::Write;
use std::path::Path;

use candle_resnet::catalogue::Catalogue;
use candle_resnet::hub::HubSettings;
use candle_resnet::hub::cache::{self, CachedRepository, CachedRevision};
use candle_resnet::registry::ModelName;
use clap::{Args, Subcommand};
use indicatif::HumanBytes;

use super::Outcome;
use super::common::CatalogueArgument;
use super::stdout::stdout;

#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Subcommand)]
enum Action {
    /// List repositories, revisions and sizes (the default)
    List,
    /// Remove a repository or one of its revisions
    Remove {
        /// A model's name, `owner/name`, or `owner/name@revision` (branch, tag or commit)
        #[arg(required = true, value_name = "NAME|REPOSITORY[@REVISION]")]
        repositories: Vec<String>,

        #[command(flatten)]
        catalogue: CatalogueArgument,
    },
    /// Remove what interrupted downloads left behind
    Prune,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let folder = HubSettings::from_env().cache;
    match &arguments.action {
        None | Some(Action::List) => list(&folder)?,
        Some(Action::Remove { repositories, catalogue }) => remove(&folder, repositories, &catalogue.open()?)?,
        Some(Action::Prune) => {
            let freed = cache::prune(&folder).map_err(candle_resnet::Error::from)?;
            say!("{} freed", HumanBytes(freed));
        }
    }
    Ok(Outcome::Done)
}

fn list(folder: &Path) -> anyhow::Result<()> {
    let repositories = cache::list(folder).map_err(candle_resnet::Error::from)?;
    let mut out = stdout();
    for repository in &repositories {
        print_repository(&mut out, repository)?;
    }
    let total: u64 = repositories.iter().map(|repository| repository.size).sum();
    say!("{} repositories, {} in {}", repositories.len(), HumanBytes(total), folder.display());
    Ok(())
}

fn print_repository(out: &mut impl Write, repository: &CachedRepository) -> std::io::Result<()> {
    writeln!(out, "{}  {}", repository.repository, HumanBytes(repository.size))?;
    for revision in &repository.revisions {
        writeln!(out, "  {}", revision_text(revision))?;
    }
    for leftover in &repository.leftovers {
        writeln!(out, "  unfinished download, {}", HumanBytes(leftover.size))?;
    }
    Ok(())
}

fn revision_text(revision: &CachedRevision) -> String {
    let files: Vec<&str> = revision.files.iter().map(|file| file.path.as_str()).collect();
    let commit: String = revision.commit.chars().take(12).collect();
    format!("{commit} {}  {}: {}", revision.references.join(","), HumanBytes(revision.size), files.join(", "))
}

/// The repository that a model's name stands for; any other name is taken for a repository's.
fn repository_of<'a>(catalogue: &'a Catalogue, name: &'a str) -> &'a str {
    match ModelName::resolve(catalogue, name) {
        Ok(ModelName::Card(card)) => card.repository.as_deref().unwrap_or(name),
        _ => name.strip_prefix("hf-hub:").unwrap_or(name),
    }
}

fn remove(folder: &Path, repositories: &[String], catalogue: &Catalogue) -> anyhow::Result<()> {
    for name in repositories {
        let repository = repository_of(catalogue, name);
        let freed = match repository.split_once('@') {
            Some((repository, revision)) => cache::remove_revision(folder, repository, revision),
            None => cache::remove_repository(folder, repository),
        };
        say!("{name}: {} freed", HumanBytes(freed.map_err(candle_resnet::Error::from)?));
    }
    Ok(())
}
