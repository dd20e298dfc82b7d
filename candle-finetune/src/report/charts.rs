//! Numbers → drawings, as SVG.
//!
//! On a white ground, as files are looked at. A page that shows them inline may give each colour another by its style sheet,
//! since the drawings name them in attributes: ground, ink, grid, two series and what is faint.

use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::measures::Confusion;
use super::rate::Rate;
use crate::calibration::Bin;

const GROUND: RGBColor = RGBColor(0xFF, 0xFF, 0xFF);
const INK: RGBColor = RGBColor(0x28, 0x30, 0x3A);
const GRID: RGBColor = RGBColor(0xDD, 0xE2, 0xE8);
const FIRST: RGBColor = RGBColor(0x1F, 0x5E, 0xA8);
const SECOND: RGBColor = RGBColor(0xC2, 0x54, 0x1B);
const FAINT: RGBColor = RGBColor(0x8A, 0x94, 0xA0);

/// Width and height, in pixels, of all but the confusion matrix.
const SIZE: (u32, u32) = (480, 330);

/// Of all text; whoever shows the drawing has such a font.
const FONT: &str = "sans-serif";

/// Why a drawing could not be made.
pub type Failure = DrawingAreaErrorKind<std::io::Error>;

type Drawing = std::result::Result<String, Failure>;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// A line with a name.
pub struct Series<'a> {
    /// What the legend says.
    pub name: &'a str,
    /// (x, y), in order of x.
    pub points: Vec<(f64, f64)>,
}

/// What an axis of a training shows.
#[derive(Clone, Copy)]
pub enum Unit {
    /// Plain numbers.
    Number,
    /// Fractions, from 0 to 1, in percent.
    Percent,
}

impl Unit {
    fn text(self, value: f64) -> String {
        match self {
            Unit::Number => format!("{value:.2}"),
            Unit::Percent => format!("{:.0} %", 100.0 * value),
        }
    }
}

/// The corner with the fewest of `points` in it, which are from 0 to 1 of the width and the height; of equal ones that where losses
/// leave room, then that where accuracies do.
fn empty_corner(points: &[(f64, f64)]) -> SeriesLabelPosition {
    use SeriesLabelPosition::{LowerLeft, LowerRight, UpperLeft, UpperRight};
    /// What the legend takes of width and height.
    const SIZE: (f64, f64) = (0.4, 0.3);
    let corners = [(UpperRight, 1.0, 1.0), (LowerRight, 1.0, 0.0), (LowerLeft, 0.0, 0.0), (UpperLeft, 0.0, 1.0)];
    let near = |x: f64, y: f64| {
        points.iter().filter(|point| (point.0 - x).abs() < SIZE.0 && (point.1 - y).abs() < SIZE.1).count()
    };
    let emptiest = corners.into_iter().min_by_key(|&(_, x, y)| near(x, y));
    emptiest.map_or(UpperRight, |(corner, ..)| corner)
}

/// An epoch; nothing between two of them, where the grid of a short training has lines, too.
fn whole(epoch: f64) -> String {
    if (epoch - epoch.round()).abs() < 1e-6 { format!("{epoch:.0}") } else { String::new() }
}

/// Lines over epochs, at most two.
pub fn curves(what: &str, unit: Unit, series: &[Series<'_>]) -> Drawing {
    drawn(SIZE, |root| {
        let points = || series.iter().flat_map(|series| series.points.iter().copied()).filter(|(_, y)| y.is_finite());
        let last = points().map(|(x, _)| x).fold(1.0, f64::max);
        let (low, high) = span(points().map(|(_, y)| y), unit);
        let mut chart = cartesian(root, (1.0, last.max(2.0)), (low, high))?;
        mesh(&mut chart, "epoch", what, (&whole, &|value| unit.text(value)))?;
        for (series, colour) in series.iter().zip([FIRST, SECOND]) {
            let finite = series.points.iter().copied().filter(|(_, y)| y.is_finite());
            let drawn = chart.draw_series(LineSeries::new(finite, colour.stroke_width(2)).point_size(2))?;
            drawn
                .label(series.name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(2)));
        }
        let place = |(x, y)| ((x - 1.0) / (last.max(2.0) - 1.0), (y - low) / (high - low));
        legend(&mut chart, empty_corner(&points().map(place).collect::<Vec<_>>()))
    })
}

/// Accuracy over confidence, in bins, with the interval of each; of answers as they are and as they are after scaling.
pub fn reliability(series: &[(&str, &[Bin])]) -> Drawing {
    drawn(SIZE, |root| {
        let mut chart = cartesian(root, (0.0, 1.0), (0.0, 1.0))?;
        let percent = |value: &f64| Unit::Percent.text(*value);
        mesh(&mut chart, "confidence", "accuracy", (&|value| percent(&value), &|value| percent(&value)))?;
        chart.draw_series(DashedLineSeries::new([(0.0, 0.0), (1.0, 1.0)], 5, 5, FAINT.stroke_width(1)))?;
        for ((name, bins), colour) in series.iter().zip([SECOND, FIRST]) {
            let points: Vec<_> = bins.iter().filter_map(point).collect();
            let bars = points.iter().map(|&(x, Rate { low, high, .. })| {
                PathElement::new([(x, low), (x, high)], colour.mix(0.45).stroke_width(2))
            });
            chart.draw_series(bars)?;
            let line = points.iter().map(|&(x, rate)| (x, rate.value));
            let drawn = chart.draw_series(LineSeries::new(line, colour.stroke_width(2)).point_size(3))?;
            drawn.label(*name).legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(2)));
        }
        legend(&mut chart, SeriesLabelPosition::UpperLeft)
    })
}

/// Mean confidence and accuracy of a bin that is not empty.
fn point(bin: &Bin) -> Option<(f64, Rate)> {
    Rate::of(bin.right, bin.answers).map(|rate| (bin.confidence / bin.answers as f64, rate))
}

/// The part of wrong answers over the part of images that is answered when the least certain are left out.
pub fn risk_coverage(curve: &[(f64, f64)]) -> Drawing {
    drawn(SIZE, |root| {
        let top = curve.iter().map(|&(_, risk)| risk).fold(0.01, f64::max);
        let mut chart = cartesian(root, (0.0, 1.0), (0.0, 1.1 * top))?;
        let fine = |value: f64| format!("{:.1} %", 100.0 * value);
        mesh(&mut chart, "answered", "wrong among the answers", (&|value| Unit::Percent.text(value), &fine))?;
        let marks = if curve.len() > 20 { 0 } else { 2 };
        chart.draw_series(LineSeries::new(curve.iter().copied(), FIRST.stroke_width(2)).point_size(marks))?;
        Ok(())
    })
}

/// Counts of (label, answer) as a field of squares, a row for each label of `classes`; the darker, the more of the row.
pub fn confusion(confusion: &Confusion, classes: &[(usize, String)]) -> Drawing {
    const SPACE: i32 = 640;
    let cell = (SPACE / classes.len().max(1) as i32).clamp(4, 44);
    let longest = classes.iter().map(|(_, name)| name.chars().count()).max().unwrap_or(0).min(24) as i32;
    let (text, named) = ((cell * 2 / 5).clamp(9, 14), cell >= 11);
    let margin = if named { longest * text * 3 / 5 + 30 } else { 34 };
    let field = cell * classes.len() as i32;
    drawn(((margin + field + 16) as u32, (margin + field + 16) as u32), |root| {
        let rows = classes.iter().enumerate().map(|(row, (label, _))| (margin + row as i32 * cell, *label));
        for (y, label) in rows {
            let of_row: usize = classes.iter().map(|&(answer, _)| confusion.count(label, answer)).sum();
            for (column, &(answer, _)) in classes.iter().enumerate() {
                let (x, count) = (margin + column as i32 * cell, confusion.count(label, answer));
                square(root, (x, y, cell), count as f64 / of_row.max(1) as f64)?;
                if cell >= 26 && count > 0 {
                    number(root, (x + cell / 2, y + cell / 2), count, 2 * count > of_row)?;
                }
            }
        }
        if named {
            names(root, classes, (margin, cell, text))?;
        }
        let axis = (FONT, 13).into_font().color(&FAINT).pos(Pos::new(HPos::Center, VPos::Top));
        root.draw(&Text::new("answer", (margin + field / 2, 4), axis.clone()))?;
        root.draw(&Text::new("label", (4, margin + field / 2), axis.transform(FontTransform::Rotate270)))
    })
}

fn square(root: &Area<'_>, (x, y, cell): (i32, i32, i32), part: f64) -> std::result::Result<(), Failure> {
    let corners = [(x, y), (x + cell - 1, y + cell - 1)];
    root.draw(&Rectangle::new(corners, GRID.mix(0.5).filled()))?;
    if part > 0.0 { root.draw(&Rectangle::new(corners, FIRST.mix(0.12 + 0.88 * part).filled())) } else { Ok(()) }
}

fn number(root: &Area<'_>, place: (i32, i32), count: usize, on_dark: bool) -> std::result::Result<(), Failure> {
    let colour = if on_dark { RGBColor(0xFE, 0xFE, 0xFE) } else { INK };
    let style = (FONT, 12).into_font().color(&colour).pos(Pos::new(HPos::Center, VPos::Center));
    root.draw(&Text::new(count.to_string(), place, style))
}

fn names(
    root: &Area<'_>,
    classes: &[(usize, String)],
    (margin, cell, size): (i32, i32, i32),
) -> std::result::Result<(), Failure> {
    let style = (FONT, size).into_font().color(&INK);
    for (index, (_, name)) in classes.iter().enumerate() {
        let (name, middle): (String, i32) = (shortened(name), margin + index as i32 * cell + cell / 2);
        let left = style.clone().pos(Pos::new(HPos::Right, VPos::Center));
        root.draw(&Text::new(name.clone(), (margin - 6, middle), left))?;
        let upright = style.clone().pos(Pos::new(HPos::Left, VPos::Center)).transform(FontTransform::Rotate270);
        root.draw(&Text::new(name, (middle, margin - 6), upright))?;
    }
    Ok(())
}

fn shortened(name: &str) -> String {
    const MOST: usize = 24;
    if name.chars().count() <= MOST { name.into() } else { name.chars().take(MOST - 1).chain(['…']).collect() }
}

fn drawn(size: (u32, u32), draw: impl FnOnce(&Area<'_>) -> std::result::Result<(), Failure>) -> Drawing {
    let mut svg = String::new();
    let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
    root.fill(&GROUND)?;
    draw(&root)?;
    root.present()?;
    drop(root);
    Ok(svg)
}

type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

fn cartesian<'a, 'b>(root: &'a Area<'b>, x: (f64, f64), y: (f64, f64)) -> std::result::Result<Chart<'a, 'b>, Failure> {
    ChartBuilder::on(root)
        .margin(12)
        .margin_right(26)
        .x_label_area_size(44)
        .y_label_area_size(62)
        .build_cartesian_2d(x.0..x.1, y.0..y.1)
}

type Format<'a> = &'a dyn Fn(f64) -> String;

fn mesh(
    chart: &mut Chart<'_, '_>,
    x: &str,
    y: &str,
    (x_text, y_text): (Format<'_>, Format<'_>),
) -> std::result::Result<(), Failure> {
    chart
        .configure_mesh()
        .x_desc(x)
        .y_desc(y)
        .x_labels(6)
        .y_labels(6)
        .x_label_formatter(&|value| x_text(*value))
        .y_label_formatter(&|value| y_text(*value))
        .label_style((FONT, 14).into_font().color(&INK))
        .axis_desc_style((FONT, 14).into_font().color(&INK))
        .axis_style(FAINT)
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .draw()
}

fn legend<'a, 'b: 'a>(chart: &mut Chart<'a, 'b>, position: SeriesLabelPosition) -> std::result::Result<(), Failure> {
    chart
        .configure_series_labels()
        .position(position)
        .background_style(GROUND)
        .border_style(GRID)
        .label_font((FONT, 14).into_font().color(&INK))
        .legend_area_size(26)
        .draw()
}

/// What an axis has to show of `values`.
fn span(values: impl Iterator<Item = f64> + Clone, unit: Unit) -> (f64, f64) {
    let (low, high) = (values.clone().fold(f64::INFINITY, f64::min), values.fold(f64::NEG_INFINITY, f64::max));
    if low > high {
        return (0.0, 1.0);
    }
    let margin = 0.06 * (high - low).max(0.02);
    match unit {
        Unit::Number => ((low - margin).max(0.0), high + margin),
        Unit::Percent => ((low - margin).max(0.0), (high + margin).min(1.005)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_are_whole_however_few_there_are() {
        for last in [1, 2, 3, 60] {
            let points = (1..=last).map(|epoch| (f64::from(epoch), 0.5)).collect();
            let drawing = curves("top-1", Unit::Percent, &[Series { name: "a", points }]).unwrap();
            let times = |epoch: u32| drawing.lines().filter(|line| line.trim() == epoch.to_string()).count();
            assert!((1..=last).all(|epoch| times(epoch) == 1 || last > 3 && times(epoch) == 0), "{last}: {drawing}");
        }
    }

    #[test]
    fn a_legend_lies_where_no_line_is() {
        let falls: Vec<_> = (0..10).map(|epoch| (f64::from(epoch) / 9.0, 1.0 / f64::from(epoch + 1))).collect();
        let rises: Vec<_> = falls.iter().map(|&(x, y)| (x, 1.0 - y)).collect();
        let rises_again: Vec<_> = falls.iter().map(|&(x, _)| (x, 0.5 + x / 2.0)).collect();
        assert!(matches!(empty_corner(&falls), SeriesLabelPosition::UpperRight));
        assert!(matches!(empty_corner(&rises), SeriesLabelPosition::LowerRight));
        assert!(matches!(empty_corner(&[&falls[..], &rises_again].concat()), SeriesLabelPosition::LowerLeft));
        assert!(matches!(empty_corner(&[]), SeriesLabelPosition::UpperRight));
    }
}
