//! Where a thing stands: weather, land, light and the noise of a camera, the same for every class.

use image::RgbImage;
use rand_chacha::ChaCha8Rng;
use tiny_skia::{Color, PathBuilder};

use super::canvas::{Canvas, circle, colour, ellipse};
use super::draws::{between, count};
use super::things::Draw;
use crate::random::chance;

/// A picture of one thing.
pub(super) fn picture(draw: Draw, generator: &mut ChaCha8Rng) -> RgbImage {
    let mut canvas = Canvas::new();
    sky(&mut canvas, generator);
    land(&mut canvas, generator);
    let place = (between(generator, 0.4, 0.6), between(generator, 0.42, 0.58));
    canvas.enter(place, between(generator, 0.3, 0.46), between(generator, -12.0, 12.0));
    draw(&mut canvas, generator);
    photograph(&canvas, generator)
}

fn sky(canvas: &mut Canvas, generator: &mut ChaCha8Rng) {
    let (hue, light) = (between(generator, 190.0, 230.0), between(generator, 0.65, 1.0));
    let horizon = if chance(generator, 0.3) { between(generator, 0.0, 50.0) } else { hue };
    let upper = colour(hue, between(generator, 0.1, 0.7), light);
    canvas.backdrop(upper, colour(horizon, between(generator, 0.05, 0.4), light.max(0.6)));
    for _ in 0..count(generator, 0, 3) {
        let (x, y) = (between(generator, 0.0, 1.0), between(generator, 0.0, 0.5));
        let grey = colour(0.0, 0.0, between(generator, 0.75, 1.0));
        for puff in [-0.09, 0.0, 0.08] {
            canvas.fill(ellipse((x + puff, y + puff * puff * 4.0), (0.1, 0.05)), grey);
        }
    }
    if chance(generator, 0.2) {
        let place = (between(generator, 0.0, 1.0), between(generator, 0.05, 0.3));
        canvas.fill(circle(place, 0.06), colour(50.0, 0.5, 1.0));
    }
}

fn land(canvas: &mut Canvas, generator: &mut ChaCha8Rng) {
    let horizon = between(generator, 0.55, 0.95);
    for _ in 0..count(generator, 0, 3) {
        let place = (between(generator, 0.0, 1.0), horizon + 0.05);
        let size = (between(generator, 0.15, 0.5), between(generator, 0.05, 0.3));
        canvas.fill(ellipse(place, size), ground(generator));
    }
    let ends = [between(generator, -0.06, 0.06), between(generator, -0.06, 0.06)];
    let mut field = PathBuilder::new();
    field.move_to(0.0, horizon + ends[0]);
    field.quad_to(0.5, horizon - ends[0] - ends[1], 1.0, horizon + ends[1]);
    field.line_to(1.0, 1.0);
    field.line_to(0.0, 1.0);
    canvas.fill(field, ground(generator));
}

/// Grass, sand, earth or snow.
fn ground(generator: &mut ChaCha8Rng) -> Color {
    colour(between(generator, 30.0, 150.0), between(generator, 0.05, 0.6), between(generator, 0.3, 0.85))
}

/// Exposes the picture more or less well; the noise of a value is about normal.
fn photograph(canvas: &Canvas, generator: &mut ChaCha8Rng) -> RgbImage {
    let (light, contrast, noise) =
        (between(generator, -15.0, 20.0), between(generator, 0.75, 1.05), between(generator, 2.0, 12.0));
    canvas.picture(|value| {
        let grain: f32 = (0..3).map(|_| between(generator, -noise, noise)).sum();
        (128.0 + light + contrast * (f32::from(value) - 128.0) + grain).round() as u8
    })
}
