//! Line charts as SVG.

use std::fmt::Write;

/// Colours a chart has; further lines begin again.
pub const COLORS: usize = 8;

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 66.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 40.0;
/// About so many marks on a linear axis.
const MARKS: f64 = 5.0;

/// One line of a chart.
pub struct Line {
    /// Number of its colour.
    pub color: usize,
    pub points: Vec<(f64, f64)>,
}

/// How values become positions.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    Linear,
    Logarithmic,
    /// Parts of one: each further nine takes the same room.
    Nines,
}

impl Scale {
    fn place(self, value: f64) -> f64 {
        match self {
            Self::Linear => value,
            Self::Logarithmic => value.max(1e-3).log10(),
            Self::Nines => -(1.0 - value).max(1e-6).log10(),
        }
    }
}

/// An axis, from its first to its last mark.
pub struct Axis {
    pub label: &'static str,
    pub scale: Scale,
    /// Values and what is written beside them, ascending.
    pub marks: Vec<(f64, String)>,
}

impl Axis {
    /// From zero to beyond the largest value, with round marks.
    pub fn linear(label: &'static str, values: impl Iterator<Item = f64>) -> Self {
        let most = values.fold(0.0, f64::max).max(1e-3);
        let rough = most / MARKS;
        let decade = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * decade).into_iter().find(|step| *step >= rough);
        let step = step.unwrap_or(decade * 10.0);
        let count = (most / step).ceil() as usize;
        Self { label, scale: Scale::Linear, marks: (0..=count).map(|mark| mark as f64 * step).map(named).collect() }
    }

    /// Powers of ten around the first coordinates of lines.
    pub fn decades(label: &'static str, lines: &[Line]) -> Self {
        let values = || lines.iter().flat_map(|line| &line.points).map(|point| point.0);
        let least = values().fold(f64::INFINITY, f64::min).clamp(1e-3, 1e9).log10().floor() as i32;
        let most = values().fold(0.0, f64::max).clamp(1e-3, 1e9).log10().ceil() as i32;
        let (least, most) = if least < most { (least, most) } else { (0, 3) };
        Self {
            label,
            scale: Scale::Logarithmic,
            marks: (least..=most).map(|exponent| named(10f64.powi(exponent))).collect(),
        }
    }

    /// Where a value lies, from 0 to 1.
    fn part(&self, value: f64) -> f64 {
        let ends = self.marks.first().zip(self.marks.last());
        let Some(((first, _), (last, _))) = ends else { return 0.0 };
        let (first, last) = (self.scale.place(*first), self.scale.place(*last));
        ((self.scale.place(value) - first) / (last - first).max(1e-9)).clamp(0.0, 1.02)
    }
}

fn named(value: f64) -> (f64, String) {
    let rounded = |number: f64| format!("{}", (number * 1e3).round() / 1e3);
    let name = match value {
        value if value >= 1e6 => format!("{} M", rounded(value / 1e6)),
        value if value >= 1e4 => format!("{} k", rounded(value / 1e3)),
        value => rounded(value),
    };
    (value, name)
}

/// The chart.
pub fn draw(name: &str, across: &Axis, up: &Axis, lines: &[Line]) -> String {
    let x = |value: f64| LEFT + across.part(value) * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| HEIGHT - BOTTOM - up.part(value) * (HEIGHT - TOP - BOTTOM);
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=img aria-label=\"{name}\">");
    for (value, mark) in &up.marks {
        let y = y(*value);
        let _ = write!(svg, "<line class=grid x1={LEFT} x2={right} y1={y:.1} y2={y:.1} />");
        let _ = write!(svg, "<text x={} y={:.1} text-anchor=end>{mark}</text>", LEFT - 8.0, y + 4.0);
    }
    for (value, mark) in &across.marks {
        let x = x(*value);
        let _ = write!(svg, "<line class=grid x1={x:.1} x2={x:.1} y1={TOP} y2={bottom} />");
        let _ = write!(svg, "<text x={x:.1} y={} text-anchor=middle>{mark}</text>", bottom + 16.0);
    }
    let _ = write!(svg, "<text class=name x={LEFT} y=16>{name}</text>");
    let _ = write!(svg, "<text x={right} y=16 text-anchor=end>{}</text>", up.label);
    let _ = write!(svg, "<text x={right} y={} text-anchor=end>{}</text>", HEIGHT - 6.0, across.label);
    for line in lines.iter().filter(|line| !line.points.is_empty()) {
        let _ = write!(svg, "<polyline class=\"curve line{}\" points=\"", line.color % COLORS);
        for (across, up) in &line.points {
            let _ = write!(svg, "{:.1},{:.1} ", x(*across), y(*up));
        }
        svg.push_str("\" />");
    }
    svg + "</svg>"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linear_axes_have_few_round_marks_that_hold_the_values() {
        for most in [0.7, 3.0, 95_000.0, 1_234_567.0] {
            let axis = Axis::linear("", [most].into_iter());
            assert!((3..=7).contains(&axis.marks.len()), "{most}: {} marks", axis.marks.len());
            assert!(axis.marks.last().unwrap().0 >= most);
        }
        assert_eq!(Axis::linear("", [95_000.0].into_iter()).marks[1].1, "20 k");
    }

    #[test]
    fn each_nine_takes_the_same_room() {
        let place = |value| Scale::Nines.place(value);
        assert!((place(0.99) - place(0.9) - (place(0.999) - place(0.99))).abs() < 1e-9);
    }

    #[test]
    fn an_axis_without_values_can_be_drawn() {
        let axis = Axis::decades("", &[]);
        assert!(!draw("", &axis, &Axis::linear("", std::iter::empty()), &[]).contains("NaN"));
    }
}
