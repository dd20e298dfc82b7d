//! `finetune find-lr`: a folder of photos → a learning rate to train with, and the drawing that speaks for it.

mod plot;

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::bail;
use candle_finetune::Error;
use candle_finetune::finetuning::{Machine, RangeTested, find_lr};
use candle_finetune::images::Splits;
use candle_finetune::run_file::RunFile;
use candle_finetune::train::range_test::{Curve, End, Point, RangeTest};
use clap::{Arg, ArgGroup, Args};
use serde_json::json;

use super::Outcome;
use super::common::{check_can_write, write_whole};
use super::interrupt::Interrupt;
use super::stdout::stdout;
use super::text::quoted;
use super::train::{Asked, Display, RunArguments, print_findings, print_for_range_test};

/// Takes whatever `finetune train` takes, so that one command line becomes the other.
#[derive(Args)]
#[command(group = ArgGroup::new("recorded").args(["config"]))]
#[command(group = ArgGroup::new("augmented").args(["augment", "config"]).multiple(true))]
#[command(mut_args(hide_what_counts_for_nothing))]
pub struct Arguments {
    #[command(flatten)]
    run: RunArguments,

    /// Learning rate of the first step
    #[arg(long, value_name = "RATE", default_value = "1e-7", allow_negative_numbers = true)]
    lowest: f64,

    /// Learning rate that the steps rise to
    #[arg(long, value_name = "RATE", default_value = "10", allow_negative_numbers = true)]
    highest: f64,

    /// Steps, unless the smoothed loss comes to four times its lowest before
    #[arg(long, value_name = "N", default_value = "100")]
    steps: usize,

    /// File to draw the losses to; named after data and model if left out
    #[arg(long, value_name = "FILE.svg")]
    out: Option<PathBuf>,

    /// Replace the file where it exists
    #[arg(long, requires = "out")]
    overwrite: bool,

    /// One JSON object with every step's rate and losses
    #[arg(long)]
    json: bool,
}

/// Options of this command that `finetune train` does not have, and whether a value belongs to them.
const OWN: [(&str, bool); 6] = [
    ("--lowest", true),
    ("--highest", true),
    ("--steps", true),
    ("--out", true),
    ("--overwrite", false),
    ("--json", false),
];

/// Options of a training may stand here, and these change nothing.
fn hide_what_counts_for_nothing(argument: Arg) -> Arg {
    let hidden = ["lr", "epochs", "schedule", "warmup_epochs", "patience", "no_refit"];
    let hide = hidden.contains(&argument.get_id().as_str());
    argument.hide(hide)
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let test = arguments.test()?;
    let file = arguments.run.config.as_deref().map(RunFile::read).transpose()?;
    let mut asked = arguments.run.asked(file)?;
    let mut display = Display::new();
    let dataset = asked.dataset(&mut display)?;
    let device = asked.device()?;
    let out = arguments.out.clone().unwrap_or_else(|| asked.default_target("-lr", ".svg", |_| false));
    check_can_write(&out, arguments.overwrite)?;
    let model = arguments.run.load(&mut asked, &mut display)?;
    Interrupt::listen()?;
    let options = asked.options(&model, &device);
    let title = asked.title();
    let machine = Machine { device: &device, options: &options, maps: None, checkpoints: None };
    arguments.run.fit_batches(&mut asked.settings, (&model, machine), &dataset, &mut display)?;
    let Asked { settings, .. } = asked;
    print_for_range_test(&model, &dataset, &settings, test);
    let store = arguments.run.map_store();
    let machine = Machine { maps: store.as_ref(), ..machine };
    let RangeTested { curve, findings } =
        find_lr(&model, machine, &Splits::of(&dataset), &settings, test, &mut display)?;
    let drawing = plot::svg(&curve, &title)?;
    write_whole(&out, |file| file.write_all(drawing.as_bytes()))?;
    print_findings(&findings);
    print(&curve, &out, arguments.json)?;
    Ok(if curve.valley().is_some() { Outcome::Done } else { Outcome::Unsatisfied })
}

impl Arguments {
    /// How the rate rises.
    fn test(&self) -> anyhow::Result<RangeTest> {
        if self.run.gives_lr() {
            bail!("--lr is what is looked for\nhint: leave it out, or give the range with --lowest and --highest");
        }
        let test = RangeTest { lowest: self.lowest, highest: self.highest, steps: self.steps };
        test.validate().map_err(Error::from)?;
        Ok(test)
    }
}

fn print(curve: &Curve, out: &Path, as_json: bool) -> std::io::Result<()> {
    let done = curve.points.len();
    match curve.end {
        End::Steps => say!("{:>12} all {done} steps", "done"),
        End::Diverged => say!("{:>12} {done} steps: the loss rises beyond what is of use", "done"),
    }
    for (name, point) in proposals(curve) {
        say!("{name:>12} {}", point.map_or("none".into(), described));
    }
    say!("{:>12} {}", "drawing", out.display());
    if as_json {
        writeln!(stdout(), "{}", as_json_object(curve, out))?;
    }
    let Some(Point { lr, .. }) = curve.valley() else {
        say!("the loss does not fall where it would tell\nhint: begin lower with --lowest, or take more --steps");
        return Ok(());
    };
    if !as_json {
        writeln!(stdout(), "{}", rate(lr))?;
    }
    let arguments = std::env::args_os().map(|argument| argument.to_string_lossy().into_owned());
    say!("try: {}", training(arguments, lr));
    Ok(())
}

/// What the losses propose, by name; the first is the proposal.
fn proposals(curve: &Curve) -> [(&'static str, Option<Point>); 2] {
    [("valley", curve.valley()), ("steep", curve.steep())]
}

fn described(Point { lr, smoothed, .. }: Point) -> String {
    format!("{}, smoothed loss {smoothed:.4}", rate(lr))
}

/// A learning rate in as many digits as the test is good for.
fn rate(lr: f64) -> String {
    format!("{lr:.2e}")
}

fn as_json_object(curve: &Curve, out: &Path) -> serde_json::Value {
    let points = curve.points.iter();
    let points = points.map(|Point { lr, loss, smoothed }| json!({"lr": lr, "loss": loss, "smoothed": smoothed}));
    let [valley, steep] = proposals(curve).map(|(_, point)| point.map(|point| point.lr));
    json!({
        "lr": valley,
        "valley": valley,
        "steep": steep,
        "diverged": curve.end == End::Diverged,
        "points": points.collect::<Vec<_>>(),
        "drawing": out.to_string_lossy(),
    })
}

/// The command line that trains at `lr` what the command line `arguments` tested.
fn training(arguments: impl Iterator<Item = String>, lr: f64) -> String {
    let mut arguments = arguments.skip(1);
    let mut kept = vec!["finetune".to_owned()];
    kept.extend(arguments.by_ref().take_while(|argument| argument != "find-lr"));
    kept.push("train".into());
    while let Some(argument) = arguments.next() {
        let own = |&&(option, _): &&(&str, bool)| argument.split('=').next() == Some(option);
        match OWN.iter().find(own) {
            Some((_, true)) if !argument.contains('=') => drop(arguments.next()),
            Some(_) => {}
            None => kept.push(quoted(&argument)),
        }
    }
    kept.extend(["--lr".into(), rate(lr)]);
    kept.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_type_next_is_the_same_run_at_the_proposed_rate() {
        let before = ["/bin/finetune", "--threads", "2", "find-lr", "my photos", "--model", "resnet18"];
        let own = ["--steps", "50", "--lowest=1e-6", "--json", "--out", "a.svg"];
        let arguments = [&before[..], &own, &["--flip"]].concat().into_iter();
        let expected = "finetune --threads 2 train 'my photos' --model resnet18 --flip --lr 4.79e-3";
        assert_eq!(training(arguments.map(String::from), 0.004_786), expected);
    }
}
