//! A row for each image, for programs and spreadsheets.

use std::path::Path;

use candle_finetune::doctor::{Image, Report};

use crate::cli::common::write_whole;

const HEADINGS: [&str; 7] =
    ["path", "split", "label", "label-probability", "other-label", "other-probability", "distance"];

/// What no network looked at is empty.
pub fn write(out: &Path, report: &Report, classes: &[String]) -> anyhow::Result<()> {
    write_whole(out, |file| {
        let mut table = csv::Writer::from_writer(file);
        table.write_record(HEADINGS)?;
        for image in &report.images {
            table.write_record(row(image, classes))?;
        }
        table.flush()
    })
}

fn row(image: &Image, classes: &[String]) -> [String; 7] {
    let verdict = image.verdict.as_ref();
    let number = |number: Option<f32>| number.map_or(String::new(), |number| format!("{number:.6}"));
    [
        image.file.path.display().to_string(),
        image.file.split.to_string(),
        image.file.class.clone(),
        number(verdict.map(|verdict| verdict.own)),
        verdict.map_or(String::new(), |verdict| classes[verdict.other].clone()),
        number(verdict.map(|verdict| verdict.probability)),
        number(image.distance),
    ]
}
