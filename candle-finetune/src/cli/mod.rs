//! The command line: arguments to library calls, results to text.
//!
//! Data goes to stdout, everything else to stderr.

/// `eprintln!` that tears no bar, and goes on where nobody reads stderr any more (`finetune train … 2>&1 | head`): the work counts.
macro_rules! say {
    ($($text:tt)*) => {
        $crate::cli::screen::line(format_args!($($text)*))
    };
}

mod bench;
mod cache;
mod common;
mod demo;
mod doctor;
mod embed;
mod eval;
mod fetch;
mod find_lr;
mod interrupt;
mod models;
mod neighbours;
mod photos;
mod predict;
mod progress;
mod screen;
mod stdout;
mod summary;
mod terminal;
mod text;
mod train;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// Fine-tune a pretrained ResNet on a folder of photos, and use what comes out.
#[derive(Parser)]
#[command(name = "finetune", version, arg_required_else_help = true, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,

    /// Say more of what happens; twice: everything (RUST_LOG is honoured too)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,

    /// Threads to compute and decode with; all cores if left out
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
}

const EXAMPLES: &str = "\
Examples:
  finetune demo                                 the whole way, without network
  finetune train photos --model resnet18        one folder per class
  finetune predict cat.jpg --model photos-resnet18
  finetune predict cat.jpg --model resnet50     ImageNet's classes
  finetune eval photos/test --model photos-resnet18 --json";

#[derive(Subcommand)]
enum Command {
    /// Show the whole way in seconds: pictures that the program draws, a model trained on them, what it makes of them
    Demo(demo::Arguments),
    /// Train a new classifier on a folder of photos, and what is below it if asked for
    Train(Box<train::Arguments>),
    /// Look a folder of photos over before training: bad files, copies and leaks between splits, wrong labels, outliers
    Doctor(Box<doctor::Arguments>),
    /// Look for a learning rate: a short training whose rate rises, its losses as a drawing, and a proposal
    FindLr(Box<find_lr::Arguments>),
    /// Name what photos show
    Predict(Box<predict::Arguments>),
    /// Measure accuracy on a folder with one subfolder per class
    Eval(eval::Arguments),
    /// Write the features of photos to a file
    Embed(embed::Arguments),
    /// Find the training images most like a photo
    Neighbours(neighbours::Arguments),
    /// Download a model's weights, so that later commands need no network
    Fetch(fetch::Arguments),
    /// List the models that have names
    Models(models::Arguments),
    /// Print a network's layers, shapes, parameters and cost
    Summary(summary::Arguments),
    /// Compare what a model computes with what timm, torchvision and Pillow computed
    Verify(verify::Arguments),
    /// Time a network's frozen form
    Bench(bench::Arguments),
    /// List or clean downloaded files
    Cache(cache::Arguments),
}

/// How a command that did not fail ended.
enum Outcome {
    Done,
    /// What was asked for could be done in part only, or a check did not hold.
    Unsatisfied,
}

/// Runs the program.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    set_up_logging(arguments.verbose);
    if let Err(error) = set_threads(arguments.threads) {
        return report(&error);
    }
    match run(arguments.command) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Unsatisfied) => ExitCode::FAILURE,
        Err(error) => report(&error),
    }
}

fn run(command: Command) -> anyhow::Result<Outcome> {
    match command {
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Train(arguments) => train::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::FindLr(arguments) => find_lr::run(&arguments),
        Command::Predict(arguments) => predict::run(&arguments),
        Command::Eval(arguments) => eval::run(&arguments),
        Command::Embed(arguments) => embed::run(&arguments),
        Command::Neighbours(arguments) => neighbours::run(&arguments),
        Command::Fetch(arguments) => fetch::run(&arguments),
        Command::Models(arguments) => models::run(&arguments),
        Command::Summary(arguments) => summary::run(&arguments),
        Command::Verify(arguments) => verify::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Cache(arguments) => cache::run(&arguments),
    }
}

fn set_up_logging(verbose: u8) {
    let default = match verbose {
        0 => "warn",
        1 => "candle_resnet=info,candle_finetune=info,finetune=info,warn",
        _ => "candle_resnet=trace,candle_finetune=trace,finetune=trace,debug",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let ansi = !no_color && std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| screen::Lines)
        .with_ansi(ansi)
        .log_internal_errors(false)
        .without_time()
        .init();
}

/// Sizes rayon's pool, which decoding and candle's CPU kernels share.
fn set_threads(threads: Option<u16>) -> anyhow::Result<()> {
    if let Some(threads) = threads {
        rayon::ThreadPoolBuilder::new().num_threads(threads.into()).build_global()?;
    }
    Ok(())
}

/// Prints an error and its way out, and gives the exit code.
fn report(error: &anyhow::Error) -> ExitCode {
    if let Some(candle_finetune::Error::Interrupted) = error.downcast_ref() {
        say!("interrupted");
        return ExitCode::from(130);
    }
    if is_closed_pipe(error) {
        return ExitCode::SUCCESS;
    }
    say!("error: {error}");
    if let Some(hint) = common::hint(error) {
        say!("hint: {hint}");
    }
    ExitCode::FAILURE
}

/// Whoever read our output has seen enough: `finetune models | head`.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let io_error = error.downcast_ref::<std::io::Error>().or_else(|| match error.downcast_ref() {
        Some(candle_finetune::Error::Io { source, .. }) => Some(source),
        _ => None,
    });
    io_error.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}
