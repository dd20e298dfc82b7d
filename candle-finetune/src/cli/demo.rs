//! `finetune demo`: the whole way from pictures to predictions, without network, as commands that anyone could type.
//!
//! Draws the pictures; all else is done by the commands themselves.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::bail;
use candle_finetune::{Error, demo};
use clap::{Args, Parser};

use super::Outcome;
use super::text::quoted;

#[derive(Args)]
pub struct Arguments {
    /// Folder to write to; a second run replaces what the first one wrote
    #[arg(long, value_name = "DIR", default_value = "finetune-demo")]
    out: PathBuf,
}

/// Weights that need no network.
const MODEL: &str = "resnet20_cifar.embedded";

/// The file that tells a folder of this command from anybody else's.
const NOTE: &str = "made-by-finetune-demo.txt";

/// Runs the command.
pub fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let folder = &arguments.out;
    claim(folder)?;
    let (pictures, bundle) = (folder.join("pictures"), folder.join("model"));
    demo::write(&pictures)?;
    let classes: Vec<&str> = demo::classes().collect();
    say!("{:>12} pictures of {}, in {}", "drawn", classes.join(", "), pictures.display());

    command(&[&"train", &pictures, &"--model", &MODEL, &"--epochs", &"20", &"--out", &bundle, &"--overwrite"])?;
    command(&[&"eval", &pictures, &"--model", &bundle])?;
    command(&[&"predict", &pictures.join("test/mushroom/000.png"), &"--model", &bundle])?;
    print_what_comes_next(folder);
    Ok(Outcome::Done)
}

/// Makes the folder, or takes it over from an earlier run.
fn claim(folder: &Path) -> anyhow::Result<()> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Io { path, source }
    };
    fs::create_dir_all(folder).map_err(failed(folder))?;
    let is_empty = fs::read_dir(folder).map_err(failed(folder))?.next().is_none();
    let note = folder.join(NOTE);
    if !is_empty && !note.is_file() {
        bail!("{}: holds something that `finetune demo` did not write\nhint: choose another --out", folder.display());
    }
    let text = "`finetune demo` wrote this folder. It may be deleted; another run replaces its files.\n";
    Ok(fs::write(&note, text).map_err(failed(&note))?)
}

/// Shows a command and runs it.
fn command(arguments: &[&dyn AsRef<OsStr>]) -> anyhow::Result<()> {
    let arguments: Vec<&OsStr> = arguments.iter().map(|argument| argument.as_ref()).collect();
    let shown: Vec<String> = arguments.iter().map(|argument| quoted(&argument.to_string_lossy())).collect();
    let shown = format!("{} {}", program(), shown.join(" "));
    say!("\n$ {shown}");
    let parsed = super::Arguments::try_parse_from(std::iter::once(OsStr::new("finetune")).chain(arguments))?;
    match super::run(parsed.command)? {
        Outcome::Done => Ok(()),
        Outcome::Unsatisfied => bail!("`{shown}` did not succeed"),
    }
}

fn print_what_comes_next(folder: &Path) {
    let program = program();
    let shown = |part: &str| quoted(&folder.join(part).to_string_lossy());
    let (pictures, bundle) = (shown("pictures/test"), shown("model"));
    say!("\nWhat other pictures are taken for:\n");
    say!("$ {program} predict {pictures}/*/001.png --model {bundle} --top-k 1");
    say!("\nPhotos of your own, with one folder for each class in a folder `photos`, as they lie in {pictures}:\n");
    say!("$ {program} train photos --model {MODEL}    # no network needed; sees 32×32 pixels");
    say!("$ {program} train photos --model resnet18    # fetches 47 MB once; sees 224×224 pixels");
    say!("$ {program} predict PHOTO --model photos-resnet18");
}

/// The program as it was called.
fn program() -> String {
    quoted(&std::env::args().next().unwrap_or_else(|| "finetune".into()))
}
