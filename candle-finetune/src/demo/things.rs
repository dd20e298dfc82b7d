//! The things that pictures show, each from about -1 to 1 both ways.
//!
//! All are something round above something thin and come in any colour: neither colour nor outline alone tells them apart.

use rand_chacha::ChaCha8Rng;
use tiny_skia::{Color, PathBuilder};

use super::canvas::{Canvas, circle, colour, corners, dome, ellipse};
use super::draws::{between, count};
use crate::random::chance;

/// Draws a thing.
pub(super) type Draw = fn(&mut Canvas, &mut ChaCha8Rng);

/// Every class, in alphabetical order.
pub(super) const CLASSES: [(&str, Draw); 5] =
    [("balloon", balloon), ("flower", flower), ("mushroom", mushroom), ("tree", tree), ("umbrella", umbrella)];

fn balloon(canvas: &mut Canvas, generator: &mut ChaCha8Rng) {
    let [bright, dark] = two_tones(generator);
    let width = between(generator, 0.55, 0.72);
    for x in [-0.16, 0.16] {
        canvas.line(corners(&[(2.0 * x, 0.25), (x, 0.75)]), 0.04, colour(30.0, 0.4, 0.3));
    }
    canvas.fill(envelope(width), bright);
    for stripe in [0.66, 0.22].into_iter().take(count(generator, 0, 2)) {
        canvas.fill(envelope(width * stripe), if stripe > 0.5 { dark } else { bright });
    }
    canvas.fill(corners(&[(-0.18, 0.72), (0.18, 0.72), (0.14, 1.0), (-0.14, 1.0)]), colour(28.0, 0.6, 0.45));
}

/// A drop that stands on its tip.
fn envelope(half_width: f32) -> PathBuilder {
    let mut shape = PathBuilder::new();
    shape.move_to(0.0, -1.0);
    shape.cubic_to(0.6 * half_width, -1.0, half_width, -0.75, half_width, -0.4);
    shape.cubic_to(half_width, 0.0, 0.3 * half_width, 0.2, 0.25 * half_width, 0.5);
    shape.line_to(-0.25 * half_width, 0.5);
    shape.cubic_to(-0.3 * half_width, 0.2, -half_width, 0.0, -half_width, -0.4);
    shape.cubic_to(-half_width, -0.75, -0.6 * half_width, -1.0, 0.0, -1.0);
    shape
}

fn flower(canvas: &mut Canvas, generator: &mut ChaCha8Rng) {
    let [petals, heart] = [any_hue(generator), colour(between(generator, 20.0, 60.0), 0.9, 0.8)];
    let green = colour(between(generator, 80.0, 140.0), 0.7, 0.5);
    canvas.line(corners(&[(0.0, -0.3), (between(generator, -0.15, 0.15), 1.0)]), 0.1, green);
    let side = if chance(generator, 0.5) { 1.0 } else { -1.0 };
    canvas.fill(ellipse((0.22 * side, 0.5), (0.22, 0.08)), green);
    let (number, start) = (count(generator, 5, 8), between(generator, 0.0, 1.0));
    let radius = between(generator, 0.2, 0.27);
    for petal in 0..number {
        let angle = std::f32::consts::TAU * (petal as f32 + start) / number as f32;
        canvas.fill(circle((0.4 * angle.sin(), 0.4 * angle.cos() - 0.35), radius), petals);
    }
    canvas.fill(circle((0.0, -0.35), between(generator, 0.16, 0.28)), heart);
}

fn mushroom(canvas: &mut Canvas, generator: &mut ChaCha8Rng) {
    let cap = any_hue(generator);
    let (width, height) = (between(generator, 0.7, 1.0), between(generator, 0.6, 1.0));
    let stem = between(generator, 0.16, 0.3);
    let pale = colour(40.0, between(generator, 0.05, 0.3), between(generator, 0.75, 0.95));
    canvas.fill(corners(&[(-stem, -0.1), (stem, -0.1), (1.3 * stem, 1.0), (-1.3 * stem, 1.0)]), pale);
    let mut top = dome(width, height);
    top.quad_to(0.0, 0.3, -width, 0.0);
    canvas.fill(top, cap);
    if chance(generator, 0.6) {
        for x in [-0.5, 0.0, 0.5] {
            let place = (width * x, -height * between(generator, 0.3, 0.65) * (1.0 - x.abs() * 0.5));
            canvas.fill(circle(place, between(generator, 0.07, 0.14)), pale);
        }
    }
}

fn tree(canvas: &mut Canvas, generator: &mut ChaCha8Rng) {
    let bark = colour(between(generator, 15.0, 40.0), 0.5, between(generator, 0.25, 0.5));
    let width = between(generator, 0.08, 0.16);
    canvas.fill(corners(&[(-width, -0.3), (width, -0.3), (1.3 * width, 1.0), (-1.3 * width, 1.0)]), bark);
    let hue = if chance(generator, 0.6) { between(generator, 70.0, 150.0) } else { between(generator, -40.0, 70.0) };
    let saturation = between(generator, 0.35, 0.85);
    for _ in 0..count(generator, 6, 10) {
        let place = (between(generator, -0.45, 0.45), between(generator, -0.75, 0.1));
        let leaves = colour(hue, saturation, between(generator, 0.4, 0.75));
        canvas.fill(circle(place, between(generator, 0.25, 0.4)), leaves);
    }
}

fn umbrella(canvas: &mut Canvas, generator: &mut ChaCha8Rng) {
    let [bright, dark] = two_tones(generator);
    let height = between(generator, 0.65, 0.95);
    let mut handle = corners(&[(0.0, -height - 0.1), (0.0, 0.8)]);
    handle.cubic_to(0.0, 1.05, 0.3, 1.05, 0.3, 0.8);
    canvas.line(handle, 0.07, colour(between(generator, 0.0, 40.0), 0.5, between(generator, 0.1, 0.4)));
    canvas.fill(canopy(1.0, height, 4), bright);
    if chance(generator, 0.7) {
        canvas.fill(canopy(0.5, height, 2), dark);
    }
}

/// A dome whose lower edge hangs between so many ribs.
fn canopy(half_width: f32, height: f32, panels: usize) -> PathBuilder {
    let mut shape = dome(half_width, height);
    let panel = 2.0 * half_width / panels as f32;
    for index in 0..panels {
        let right = half_width - panel * index as f32;
        shape.quad_to(right - 0.5 * panel, -0.2, right - panel, 0.0);
    }
    shape
}

fn any_hue(generator: &mut ChaCha8Rng) -> Color {
    colour(between(generator, 0.0, 360.0), between(generator, 0.4, 0.95), between(generator, 0.5, 0.95))
}

/// A colour, and the same darker or another.
fn two_tones(generator: &mut ChaCha8Rng) -> [Color; 2] {
    let (hue, saturation) = (between(generator, 0.0, 360.0), between(generator, 0.4, 0.95));
    let bright = colour(hue, saturation, between(generator, 0.65, 0.95));
    let other = if chance(generator, 0.5) { any_hue(generator) } else { colour(hue, saturation, 0.5) };
    [bright, other]
}
