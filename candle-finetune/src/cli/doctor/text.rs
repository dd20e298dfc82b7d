//! A report as people read it.

use std::io::{self, Write};
use std::path::Path;

use candle_finetune::dataset::SplitName;
use candle_finetune::doctor::{Census, File, Finding, Report, Severity};

use console::{Alignment, measure_text_width, pad_str};

use crate::cli::stdout::stdout;
use crate::cli::text::several;

/// Classes of which each has a line of its own; of more, the smallest and the largest.
const CLASSES: usize = 20;

/// Paths of one finding that are shown.
const PATHS: usize = 3;

/// Prints the census, then findings by kind, `examples` of each, with paths below `root`.
pub fn print(report: &Report, root: &Path, examples: usize) -> io::Result<()> {
    let mut out = stdout();
    print_census(&mut out, &report.census)?;
    if let Some(agreement) = report.agreement {
        writeln!(out, "labels   {}", agreement_text(agreement))?;
    }
    for findings in report.findings.chunk_by(|a, b| (a.severity, a.kind) == (b.severity, b.kind)) {
        print_kind(&mut out, findings, root, examples)?;
    }
    writeln!(out, "\n{}", verdict(&report.findings))
}

/// How far doubts about labels can be trusted.
fn agreement_text(agreement: f64) -> String {
    const TRUSTWORTHY: f64 = 0.8;
    let doubts =
        if agreement < TRUSTWORTHY { ": too few to trust doubts about single ones, try another --model" } else { "" };
    format!("{:.1} % are what the other images make of the picture{doubts}", 100.0 * agreement)
}

fn verdict(findings: &[Finding]) -> String {
    let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    match (count(Severity::Error), count(Severity::Warning)) {
        (0, 0) => "nothing stands against training".into(),
        (0, warnings) => format!("{} to look at before training", several(warnings, "finding")),
        (errors, 0) => several(errors, "error"),
        (errors, warnings) => {
            format!("{} and {}", several(errors, "error"), several(warnings, "finding") + " to look at before training")
        }
    }
}

fn print_census(out: &mut impl Write, census: &Census) -> io::Result<()> {
    let width =
        census.classes.iter().map(|(class, _)| measure_text_width(class)).max().unwrap_or(0).max("images".len());
    let headings: String = census.splits.keys().map(|split| format!("{:>9}", split.to_string())).collect();
    writeln!(out, "{:width$}{headings}", "")?;
    for line in class_lines(census, width) {
        writeln!(out, "{line}")?;
    }
    let totals: String = census.splits.values().map(|count| format!("{count:>9}")).collect();
    writeln!(out, "{:width$}{totals}", "images")?;
    let encodings =
        census.encodings.iter().map(|(encoding, count)| (format!("{} {}", encoding.format, encoding.mode), *count));
    writeln!(out, "\nformats  {}", listed(encodings.collect()))?;
    let sizes = census.sizes.iter().map(|((width, height), count)| (format!("{width}×{height}"), *count));
    writeln!(out, "sizes    {}", listed(sizes.collect()))
}

fn class_lines(census: &Census, width: usize) -> Vec<String> {
    let line = |(class, counts): &(String, std::collections::BTreeMap<SplitName, usize>)| {
        let counts: String = counts.values().map(|count| format!("{count:>9}")).collect();
        format!("{}{counts}", pad_str(class, width, Alignment::Left, None))
    };
    if census.classes.len() <= CLASSES {
        return census.classes.iter().map(line).collect();
    }
    let mut classes: Vec<_> = census.classes.iter().collect();
    classes.sort_by_key(|(_, counts)| counts.values().sum::<usize>());
    let (smallest, rest) = classes.split_at(CLASSES / 2);
    let (between, largest) = rest.split_at(rest.len() - CLASSES / 2);
    let ellipsis = (!between.is_empty()).then(|| format!("… {} classes of sizes between", between.len()));
    let lines = |classes: &[&(String, _)]| classes.iter().map(|class| line(class)).collect::<Vec<_>>();
    [lines(smallest), ellipsis.into_iter().collect(), lines(largest)].concat()
}

/// The commonest first, with how often; the rest as a number.
fn listed(mut counts: Vec<(String, usize)>) -> String {
    const SHOWN: usize = 5;
    counts.sort_by(|(a, a_count), (b, b_count)| b_count.cmp(a_count).then_with(|| a.cmp(b)));
    let mut parts: Vec<String> = counts.iter().take(SHOWN).map(|(name, count)| format!("{count} {name}")).collect();
    if counts.len() > SHOWN {
        parts.push(format!("and {} others", counts.len() - SHOWN));
    }
    parts.join(", ")
}

/// Findings of one kind under a heading, with what to do about them.
fn print_kind(out: &mut impl Write, findings: &[Finding], root: &Path, examples: usize) -> io::Result<()> {
    let [first, ..] = findings else { return Ok(()) };
    let severity = match first.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    };
    let count = if findings.len() > 1 { format!(": {}", findings.len()) } else { String::new() };
    writeln!(out, "\n{severity}  {}{count}", first.kind.heading())?;
    for finding in findings.iter().take(examples) {
        writeln!(out, "  {}", line(finding, root))?;
    }
    if findings.len() > examples {
        writeln!(out, "  … and {} more (--examples, or --json for all)", findings.len() - examples)?;
    }
    let mut advice: Vec<&str> = findings.iter().take(examples).map(|finding| finding.advice.as_str()).collect();
    advice.dedup();
    advice.iter().try_for_each(|advice| writeln!(out, "  → {advice}"))
}

fn line(finding: &Finding, root: &Path) -> String {
    let path = |file: &File| file.path.strip_prefix(root).unwrap_or(&file.path).display().to_string();
    let score = finding.score.map_or(String::new(), |score| format!("  ({score:.3})"));
    match finding.files.as_slice() {
        [] => finding.text.clone(),
        [file] => format!("{}: {}{score}", path(file), finding.text),
        files => {
            let more = files.len().saturating_sub(PATHS);
            let mut paths: Vec<String> = files.iter().take(PATHS).map(path).collect();
            if more > 0 {
                paths.push(format!("{more} more"));
            }
            format!("{}{score}: {}", finding.text, paths.join(", "))
        }
    }
}
