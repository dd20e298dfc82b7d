//! Shapes on a square picture: what the scenes need of tiny-skia, which smooths their edges.

use image::RgbImage;
use tiny_skia::{
    Color, FillRule, GradientStop, LineCap, LinearGradient, Paint, Path, PathBuilder, PixmapMut, Point, Rect, Shader,
    SpreadMode, Stroke, Transform,
};

/// Side of a picture, in pixels.
pub(super) const SIDE: u32 = 96;

/// A picture that is being drawn; x goes right, y down.
pub(super) struct Canvas {
    rgba: Vec<u8>,
    frame: Transform,
}

impl Canvas {
    /// An empty picture, from (0, 0) to (1, 1).
    pub fn new() -> Canvas {
        let side = SIDE as f32;
        Canvas { rgba: vec![0; (4 * SIDE * SIDE) as usize], frame: Transform::from_scale(side, side) }
    }

    /// Has all that follows drawn around `centre`, turned by `degrees`, a length of 1 as long as `size` was.
    pub fn enter(&mut self, centre: (f32, f32), size: f32, degrees: f32) {
        self.frame = self.frame.pre_translate(centre.0, centre.1).pre_rotate(degrees).pre_scale(size, size);
    }

    /// Fills a shape.
    pub fn fill(&mut self, shape: PathBuilder, colour: Color) {
        self.paint(shape.finish(), Shader::SolidColor(colour), None);
    }

    /// Draws along a shape's outline.
    pub fn line(&mut self, shape: PathBuilder, width: f32, colour: Color) {
        let stroke = Stroke { width, line_cap: LineCap::Round, ..Stroke::default() };
        self.paint(shape.finish(), Shader::SolidColor(colour), Some(stroke));
    }

    /// Fills the whole picture, from the colour of its upper edge to that of its lower one.
    pub fn backdrop(&mut self, upper: Color, lower: Color) {
        let stops = vec![GradientStop::new(0.0, upper), GradientStop::new(1.0, lower)];
        let (start, end) = (Point::from_xy(0.0, 0.0), Point::from_xy(0.0, 1.0));
        let square = Rect::from_xywh(0.0, 0.0, 1.0, 1.0).map(PathBuilder::from_rect);
        if let Some(gradient) = LinearGradient::new(start, end, stops, SpreadMode::Pad, Transform::identity()) {
            self.paint(square, gradient, None);
        }
    }

    /// A shape of no extent leaves nothing.
    fn paint(&mut self, shape: Option<Path>, shader: Shader<'_>, stroke: Option<Stroke>) {
        let pixels = PixmapMut::from_bytes(&mut self.rgba, SIDE, SIDE);
        let (Some(shape), Some(mut pixels)) = (shape, pixels) else { return };
        let paint = Paint { shader, ..Paint::default() };
        match stroke {
            Some(stroke) => pixels.stroke_path(&shape, &paint, &stroke, self.frame, None),
            None => pixels.fill_path(&shape, &paint, FillRule::Winding, self.frame, None),
        }
    }

    /// The finished picture, each value changed by `change`.
    pub fn picture(&self, mut change: impl FnMut(u8) -> u8) -> RgbImage {
        let mut picture = RgbImage::new(SIDE, SIDE);
        for (pixel, rgba) in picture.pixels_mut().zip(self.rgba.chunks_exact(4)) {
            for (value, &drawn) in pixel.0.iter_mut().zip(rgba) {
                *value = change(drawn);
            }
        }
        picture
    }
}

/// An ellipse.
pub(super) fn ellipse(centre: (f32, f32), radii: (f32, f32)) -> PathBuilder {
    let mut shape = PathBuilder::new();
    if let Some(bounds) = Rect::from_xywh(centre.0 - radii.0, centre.1 - radii.1, 2.0 * radii.0, 2.0 * radii.1) {
        shape.push_oval(bounds);
    }
    shape
}

/// A circle.
pub(super) fn circle(centre: (f32, f32), radius: f32) -> PathBuilder {
    ellipse(centre, (radius, radius))
}

/// Straight lines from point to point; filled, a polygon.
pub(super) fn corners(points: &[(f32, f32)]) -> PathBuilder {
    let mut shape = PathBuilder::new();
    for (index, &(x, y)) in points.iter().enumerate() {
        if index == 0 { shape.move_to(x, y) } else { shape.line_to(x, y) }
    }
    shape
}

/// Half an ellipse: from its left end over the top to its right end, on y = 0.
pub(super) fn dome(half_width: f32, height: f32) -> PathBuilder {
    const ROUND: f32 = 0.5523; // Bézier curves with handles of this length are next to a circle.
    let (across, up) = (ROUND * half_width, ROUND * height);
    let mut shape = PathBuilder::new();
    shape.move_to(-half_width, 0.0);
    shape.cubic_to(-half_width, -up, -across, -height, 0.0, -height);
    shape.cubic_to(across, -height, half_width, -up, half_width, 0.0);
    shape
}

/// A colour by its hue in degrees, saturation and brightness.
pub(super) fn colour(hue: f32, saturation: f32, brightness: f32) -> Color {
    let channel = |shift: f32| {
        let place = (shift + hue / 60.0).rem_euclid(6.0);
        brightness * (1.0 - saturation * place.min(4.0 - place).clamp(0.0, 1.0))
    };
    let [red, green, blue] = [5.0, 3.0, 1.0].map(channel).map(|value| value.clamp(0.0, 1.0));
    Color::from_rgba(red, green, blue, 1.0).unwrap_or(Color::BLACK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_go_round_from_red() {
        let rgb = |hue| {
            let colour = colour(hue, 1.0, 1.0).to_color_u8();
            [colour.red(), colour.green(), colour.blue()]
        };
        assert_eq!([rgb(0.0), rgb(120.0), rgb(240.0)], [[255, 0, 0], [0, 255, 0], [0, 0, 255]]);
        assert_eq!((rgb(60.0), rgb(-60.0)), ([255, 255, 0], [255, 0, 255]));
        assert_eq!(colour(200.0, 0.0, 0.5).to_color_u8(), tiny_skia::ColorU8::from_rgba(128, 128, 128, 255));
    }

    #[test]
    fn shapes_lie_where_the_frame_is() {
        let mut canvas = Canvas::new();
        canvas.backdrop(Color::BLACK, Color::BLACK);
        canvas.enter((0.75, 0.25), 0.1, 0.0);
        canvas.fill(circle((0.0, 0.0), 1.0), Color::WHITE);
        let picture = canvas.picture(|value| value);
        let white = picture.enumerate_pixels().filter(|(_, _, pixel)| pixel.0 == [255; 3]);
        let (mut count, side) = (0, SIDE as f32);
        for (x, y, _) in white {
            let [dx, dy] = [(x as f32 + 0.5) / side - 0.75, (y as f32 + 0.5) / side - 0.25];
            assert!(dx.hypot(dy) < 0.1);
            count += 1;
        }
        // Pixels of the edge are grey.
        let area = std::f32::consts::PI * (0.1 * side).powi(2);
        assert!((0.8 * area..area).contains(&(count as f32)), "{count} of {area}");
    }
}
