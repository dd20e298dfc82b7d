//! The losses of a range test as a drawing.

use candle_finetune::train::range_test::{Curve, Point};
use plotters::prelude::*;

use super::{proposals, rate};

/// Width and height, in pixels.
const SIZE: (u32, u32) = (840, 520);

/// Of all text; whoever shows the drawing has such a font.
const FONT: &str = "sans-serif";

const RAW: RGBColor = RGBColor(170, 170, 170);
const SMOOTHED: RGBColor = RGBColor(31, 94, 168);
const MARKS: [RGBColor; 2] = [RGBColor(190, 50, 30), RGBColor(110, 70, 150)];

type Failure = DrawingAreaErrorKind<std::io::Error>;

/// An SVG of the losses over the rate, with the proposals marked, on a white ground.
///
/// Single losses that lie far above the smoothed ones are drawn at the upper edge.
pub fn svg(curve: &Curve, title: &str) -> Result<String, Failure> {
    let mut svg = String::new();
    draw(&mut svg, curve, title)?;
    Ok(svg)
}

fn draw(svg: &mut String, curve: &Curve, title: &str) -> Result<(), Failure> {
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let (bottom, top) = heights(curve);
    let rates = curve.test.lowest..curve.test.highest;
    let mut chart = ChartBuilder::on(&root)
        .caption(title, (FONT, 17))
        .margin(18)
        .x_label_area_size(48)
        .y_label_area_size(64)
        .build_cartesian_2d(rates.log_scale(), bottom..top)?;
    chart
        .configure_mesh()
        .x_desc("learning rate")
        .y_desc("training loss")
        .x_label_formatter(&|lr| short(*lr))
        .y_label_formatter(&|loss| format!("{loss:.1}"))
        .label_style((FONT, 14))
        .axis_desc_style((FONT, 15))
        .light_line_style(TRANSPARENT)
        .bold_line_style(RGBColor(225, 225, 225))
        .draw()?;
    let line = |value: fn(&Point) -> f64| curve.points.iter().map(move |point| (point.lr, value(point).min(top)));
    let key = |style: ShapeStyle| move |(x, y)| PathElement::new([(x, y), (x + 22, y)], style);
    let (raw, smoothed) = (RAW.stroke_width(1), SMOOTHED.stroke_width(3));
    chart.draw_series(LineSeries::new(line(|point| point.loss), raw))?.label("each step").legend(key(raw));
    chart.draw_series(LineSeries::new(line(|point| point.smoothed), smoothed))?.label("smoothed").legend(key(smoothed));
    for ((name, point), colour) in proposals(curve).into_iter().zip(MARKS) {
        let Some(Point { lr, smoothed, .. }) = point else { continue };
        let upright = DashedLineSeries::new([(lr, bottom), (lr, top)], 6, 5, colour.stroke_width(1));
        chart.draw_series(upright)?;
        let circle = move |place| Circle::new(place, 6, colour.filled());
        let mark = chart.draw_series([Circle::new((lr, smoothed), 6, colour.filled())])?;
        mark.label(format!("{name}: {}", rate(lr))).legend(move |(x, y)| circle((x + 11, y)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerLeft)
        .background_style(WHITE)
        .border_style(RGBColor(170, 170, 170))
        .label_font((FONT, 14))
        .legend_area_size(30)
        .draw()?;
    root.present()
}

/// A rate in two digits, or one where that is all: powers of ten that the axis comes to are not exact.
fn short(lr: f64) -> String {
    format!("{lr:.1e}").replace(".0e", "e")
}

/// The lowest and the highest loss to show.
fn heights(curve: &Curve) -> (f64, f64) {
    let least = curve.points.iter().map(|point| point.loss.min(point.smoothed)).fold(f64::INFINITY, f64::min);
    let most = curve.points.iter().map(|point| point.smoothed).fold(f64::NEG_INFINITY, f64::max);
    let margin = 0.05 * (most - least).max(1e-6);
    (least - margin, most + margin)
}
