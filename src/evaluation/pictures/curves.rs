//! The curves of a run as one picture: loss, learning rate and speed over the steps.

use std::ops::Range;
use std::path::Path;

use image::RgbImage;
use plotters::chart::{ChartContext, MeshStyle};
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::{save_png, text_style};
use crate::base::Result;
use serde_json::Value;

/// A named curve; `points` are (step, value) in order of the steps. Values that are not finite are left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// (x, y) from left to right.
    pub points: Vec<(f64, f64)>,
}

impl Series {
    /// The values of `key` over the steps of a log's records.
    pub fn of(records: &[Value], name: &str, key: &str) -> Self {
        let number = |r: &Value, key: &str| r.get(key).and_then(Value::as_f64);
        let points = records.iter().filter_map(|r| number(r, "step").zip(number(r, key))).collect();
        Self { name: name.to_string(), points }
    }
}

const WIDTH: u32 = 1200;
const LEGEND_HEIGHT: u32 = 32;
const LOSS_HEIGHT: u32 = 560;
const SMALL_HEIGHT: u32 = 240;
pub(super) const TITLE_HEIGHT: u32 = 48;
/// Room for the labels of the value axis.
pub(super) const AXIS_WIDTH: u32 = 92;
/// Of the line in front of a name in a legend.
pub(super) const SAMPLE: i32 = 40;

pub(super) const INK: RGBColor = RGBColor(40, 44, 52);
const GRID: RGBColor = RGBColor(226, 229, 234);
/// Training, validation, then references; distinguishable with colour-blindness (Okabe and Ito).
const COLORS: [RGBColor; 5] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(110, 116, 128),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
];
/// More points than this tell the eye nothing: they are averaged in groups.
const RESOLUTION: usize = 1000;

pub(super) type Canvas<'a> = DrawingArea<BitMapBackend<'a>, Shift>;
pub(super) type Drawn<T = ()> =
    std::result::Result<T, DrawingAreaErrorKind<<BitMapBackend<'static> as DrawingBackend>::ErrorType>>;
type Plot<'a, 'b> = ChartContext<'a, BitMapBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// Draws the progress of a run to `path`. `series` are losses: the first is the training loss, drawn with a smoothed
/// line when it has many points; the second the validation loss, drawn with dots; any further one a reference such as
/// the loss of predicting zero, drawn dashed.
///
/// # Errors
/// The picture cannot be written.
pub fn progress_png(path: &Path, title: &str, series: &[Series], lr: &Series, throughput: &Series) -> Result<()> {
    save_png(path, &progress_picture(title, series, lr, throughput))
}

/// The picture that [`progress_png`] writes.
fn progress_picture(title: &str, series: &[Series], lr: &Series, throughput: &Series) -> RgbImage {
    picture(title, 24, (WIDTH, TITLE_HEIGHT + LOSS_HEIGHT + 2 * SMALL_HEIGHT), |body| {
        let (upper, lower) = body.split_vertically(LOSS_HEIGHT);
        let (second, third) = lower.split_vertically(SMALL_HEIGHT);

        // One axis of steps for all charts, so that they can be read from top to bottom.
        let all = || series.iter().chain([lr, throughput]);
        let steps = range(all().flat_map(finite).map(|p| p.0).chain([0.0, 1.0]), 0.0);
        draw_losses(&upper, series, steps.clone())?;
        let rate = [(finite(lr).collect(), COLORS[3], Look::Line)];
        draw_chart(&second, &lr.name, &rate, steps.clone(), true)?;
        let speed = [(condensed(throughput), COLORS[4], Look::Line)];
        draw_chart(&third, &throughput.name, &speed, steps, true)
    })
}

/// A picture of `size` with a title in letters of `height` pixels, and below it what `draw` draws.
pub(super) fn picture(title: &str, height: u32, size: (u32, u32), draw: impl FnOnce(&Canvas) -> Drawn) -> RgbImage {
    let mut pixels = vec![255; (3 * size.0 * size.1) as usize];
    let all = || -> Drawn {
        let root = BitMapBackend::with_buffer(&mut pixels, size).into_drawing_area();
        let (header, body) = root.split_vertically(TITLE_HEIGHT);
        let style = text_style(height, INK).pos(Pos::new(HPos::Center, VPos::Center));
        header.draw_text(title, &style, (size.0 as i32 / 2, TITLE_HEIGHT as i32 / 2 + 4))?;
        draw(&body)
    };
    // Drawing into memory with a font that is part of the program: nothing is left that can fail.
    let drawn = all();
    debug_assert!(drawn.is_ok(), "{drawn:?}");
    RgbImage::from_raw(size.0, size.1, pixels).unwrap_or_default()
}

/// A chart of these ranges, with room for the letters: `below` pixels under it.
pub(super) fn plot<'a, 'b>(area: &'a Canvas<'b>, below: u32, x: Range<f64>, y: Range<f64>) -> Drawn<Plot<'a, 'b>> {
    let mut chart = ChartBuilder::on(area);
    chart.margin(10).margin_right(28).x_label_area_size(below).y_label_area_size(AXIS_WIDTH);
    chart.build_cartesian_2d(x, y)
}

/// The grid and the axes of a chart, in the colours and letters that all have.
pub(super) fn mesh<'a, 'b, 'c>(
    plot: &'c mut Plot<'a, 'b>,
) -> MeshStyle<'a, 'c, RangedCoordf64, RangedCoordf64, BitMapBackend<'b>> {
    let mut mesh = plot.configure_mesh();
    mesh.light_line_style(WHITE).bold_line_style(GRID).axis_style(GRID).y_label_formatter(&|v| number(*v));
    mesh.label_style(text_style(16, INK)).axis_desc_style(text_style(18, INK));
    mesh
}

#[derive(Clone, Copy, PartialEq)]
enum Look {
    Line,
    Faint,
    Dots,
    Dashed,
}

type Curve = (Vec<(f64, f64)>, RGBColor, Look);

fn draw_losses(area: &Canvas, series: &[Series], steps: Range<f64>) -> Drawn {
    let mut curves = Vec::new();
    let mut legend = Vec::new();
    for (index, one) in series.iter().enumerate() {
        let color = COLORS[index.min(COLORS.len() - 1)];
        let points = condensed(one);
        let look = [Look::Line, Look::Dots, Look::Dashed][index.min(2)];
        legend.push((one.name.as_str(), color, look));
        if index == 0 && points.len() >= 50 {
            let smooth = smoothed(&points);
            curves.push((points, color, Look::Faint));
            curves.push((smooth, color, Look::Line));
        } else {
            curves.push((points, color, look));
        }
    }
    let (above, chart) = area.split_vertically(LEGEND_HEIGHT);
    draw_legend(&above, &legend)?;
    draw_chart(&chart, "loss", &curves, steps, false)
}

/// One chart with its axes. `from_zero`: the value axis starts at zero.
fn draw_chart(area: &Canvas, name: &str, curves: &[Curve], steps: Range<f64>, from_zero: bool) -> Drawn {
    let values = || curves.iter().flat_map(|c| &c.0).map(|p| p.1);
    let mut shown = range(bulk(values().collect()).into_iter(), 0.05);
    if from_zero && shown.start > 0.0 || values().all(|v| v >= 0.0) && shown.start < 0.0 {
        shown.start = 0.0;
    }
    let mut chart = plot(area, 40, steps, shown.clone())?;
    mesh(&mut chart)
        .x_labels(10)
        .y_labels(if from_zero { 5 } else { 8 })
        .x_label_formatter(&|v| if v.fract() == 0.0 { number(*v) } else { String::new() })
        .x_desc("step")
        .y_desc(name)
        .draw()?;
    if values().next().is_none() {
        let (w, h) = area.dim_in_pixel();
        let style = text_style(18, COLORS[2]).pos(Pos::new(HPos::Center, VPos::Center));
        return area.draw_text("no values yet", &style, (w as i32 / 2, h as i32 / 2));
    }
    for (points, color, look) in curves {
        // Beyond the bulk of the values the curve runs along the edge: plotters would draw it outside its chart.
        let points = points.iter().map(|&(x, y)| (x, y.clamp(shown.start, shown.end)));
        let style = color.stroke_width(2);
        match look {
            Look::Faint => chart.draw_series(LineSeries::new(points.clone(), color.mix(0.3)))?,
            Look::Dashed => chart.draw_series(DashedLineSeries::new(points.clone(), 10, 6, style))?,
            Look::Line | Look::Dots => chart.draw_series(LineSeries::new(points.clone(), style))?,
        };
        // A lone point makes no line, and few of them are worth seeing.
        if points.len() == 1 || *look == Look::Dots && points.len() <= 60 {
            chart.draw_series(points.map(|p| Circle::new(p, 4, color.filled())))?;
        }
    }
    Ok(())
}

/// In a row of its own, where no curve can be hidden by it.
fn draw_legend(area: &Canvas, entries: &[(&str, RGBColor, Look)]) -> Drawn {
    let style = text_style(17, INK);
    let y = LEGEND_HEIGHT as i32 / 2;
    let mut left = AXIS_WIDTH as i32 + 16;
    for (name, color, look) in entries {
        let dash = if *look == Look::Dashed { 10 } else { SAMPLE };
        for x in (0..SAMPLE).step_by(dash as usize + 5) {
            area.draw(&PathElement::new([(left + x, y), (left + x + dash, y)], color.stroke_width(3)))?;
        }
        if *look == Look::Dots {
            area.draw(&Circle::new((left + SAMPLE / 2, y), 5, color.filled()))?;
        }
        area.draw_text(name, &style, (left + SAMPLE + 10, y))?;
        left += SAMPLE + 40 + style.font.box_size(name).map_or(0, |size| size.0 as i32);
    }
    Ok(())
}

fn finite(series: &Series) -> impl Iterator<Item = (f64, f64)> {
    series.points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite())
}

/// At most about [`RESOLUTION`] points: groups of neighbours are replaced by their mean.
fn condensed(series: &Series) -> Vec<(f64, f64)> {
    let points: Vec<_> = finite(series).collect();
    let mean = |group: &[(f64, f64)]| {
        let n = group.len() as f64;
        (group.iter().map(|p| p.0 / n).sum(), group.iter().map(|p| p.1 / n).sum())
    };
    points.chunks(points.len().div_ceil(RESOLUTION).max(1)).map(mean).collect()
}

/// Moving median over a thirtieth of the points, centred and shorter at both ends. Unlike a mean it passes by single
/// values that are far off.
fn smoothed(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let most = points.len() / 60 + 1;
    let median = |index: usize| {
        // As far to one side as to the other, so that the line keeps its slope at the ends.
        let reach = most.min(index).min(points.len() - 1 - index);
        let mut group: Vec<f64> = points[index - reach..=index + reach].iter().map(|p| p.1).collect();
        *group.select_nth_unstable_by(reach, f64::total_cmp).1
    };
    (0..points.len()).map(|index| (points[index].0, median(index))).collect()
}

/// The values without the few highest, when those lie far above all others: the first steps of a training must not
/// flatten the rest.
fn bulk(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    let (Some(&lowest), Some(&highest)) = (values.first(), values.last()) else { return values };
    let high = values[(values.len() - 1) * 98 / 100];
    if highest - lowest > 2.0 * (high - lowest) && high > lowest {
        values.retain(|&v| v <= lowest + 1.2 * (high - lowest));
    }
    values
}

/// From the lowest to the highest value and a `margin` more on both sides; never empty, never infinite.
pub(super) fn range(values: impl Iterator<Item = f64>, margin: f64) -> Range<f64> {
    let (lo, hi) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(lo, hi), v| (lo.min(v), hi.max(v)));
    if lo > hi {
        return 0.0..1.0;
    }
    // Steps and losses do not come near this; the chart library cannot count beyond it.
    let (lo, hi) = (lo.clamp(-1e30, 1e30), hi.clamp(-1e30, 1e30));
    let extent = hi - lo;
    // Equal values, or ones that differ by rounding alone.
    if extent <= 1e-9 * hi.abs().max(lo.abs()) || extent < 1e-30 {
        let room = if hi == 0.0 { 1.0 } else { 0.5 * hi.abs().max(1e-20) };
        return lo - room..hi + room;
    }
    lo - margin * extent..hi + margin * extent
}

/// Short for an axis: `0.25`, `12k`, `1.5M`, `1e-5`.
pub(super) fn number(value: f64) -> String {
    let trimmed = |text: String| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_string(),
        false => text,
    };
    match value.abs() {
        a if a < 1e-20 => "0".into(),
        a if a < 1e-3 => {
            let text = format!("{value:.2e}");
            let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
            format!("{}e{exponent}", trimmed(digits.to_string()))
        }
        a if a < 1.0 => trimmed(format!("{value:.5}")),
        a if a < 1e4 => trimmed(format!("{value:.2}")),
        a if a < 1e6 => format!("{}k", trimmed(format!("{:.2}", value / 1e3))),
        a if a < 1e9 => format!("{}M", trimmed(format!("{:.2}", value / 1e6))),
        _ => format!("{value:.1e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(name: &str, points: impl IntoIterator<Item = (f64, f64)>) -> Series {
        Series { name: name.into(), points: points.into_iter().collect() }
    }

    /// Number of pixels of exactly this colour.
    fn count(picture: &RgbImage, color: RGBColor) -> usize {
        picture.pixels().filter(|p| p.0 == [color.0, color.1, color.2]).count()
    }

    #[test]
    fn a_run_shows_all_its_curves() {
        let decay = |k: f64| (0..200).map(move |i| (f64::from(i), 1.0 - k * f64::from(i) / 200.0));
        let none = Series::default();
        let losses = [
            series("training", decay(0.5)),
            series("validation", decay(0.4).step_by(20)),
            series("zero", [(0.0, 0.9), (199.0, 0.9)]),
        ];
        let picture = progress_picture("run", &losses, &series("rate", decay(1.0)), &none);
        for color in &COLORS[..4] {
            assert!(count(&picture, *color) > 200, "{color:?}");
        }
        assert!(count(&picture, COLORS[4]) == 0, "no speed was given");
        assert_ne!(picture, progress_picture("another", &losses, &series("rate", decay(1.0)), &none), "the title");
    }

    #[test]
    fn few_and_strange_values_give_a_picture() {
        let nan = f64::NAN;
        let strange = [
            vec![],
            vec![(0.0, 0.5)],
            vec![(3.0, nan)],
            vec![(0.0, 0.0), (1.0, 0.0)],
            vec![(0.0, nan), (1.0, 1.0), (2.0, f64::INFINITY), (3.0, 0.5)],
            vec![(0.0, 1e300), (1.0, -1e300)],
            vec![(0.0, 1e-300), (1.0, 0.0)],
            vec![(5.0, 7.0), (5.0, 7.0 + 1e-15)],
            vec![(1e15, 1.0), (1e15 + 1.0, 2.0)],
            vec![(nan, 1.0), (f64::NEG_INFINITY, 1.0)],
            vec![(0.0, f64::MAX), (1.0, f64::MIN)],
        ];
        for points in strange {
            let one = series("x", points.clone());
            let picture = progress_picture("", &[one.clone(), one.clone(), one.clone()], &one, &one);
            assert_eq!(picture.dimensions(), (WIDTH, 1088), "{points:?}");
        }
        let picture = progress_picture("one", &[series("x", [(0.0, 0.5)])], &Series::default(), &Series::default());
        assert!(count(&picture, COLORS[0]) > 150, "a lone point is a dot (beside the legend)");
    }

    #[test]
    fn long_runs_are_condensed_and_keep_their_mean() {
        let long = series("x", (0..1_000_000).map(|i| (f64::from(i), f64::from(i % 2))));
        let points = condensed(&long);
        assert_eq!(points.len(), 1000);
        assert!(points.iter().all(|p| (p.1 - 0.5).abs() < 1e-9));
        assert!((points[0].0 - 499.5).abs() < 1e-6);
        let line: Vec<_> = (0..100).map(|i| (f64::from(i), 2.0 * f64::from(i))).collect();
        assert_eq!(smoothed(&line), line, "a straight line stays one");
        let mut spoiled = line.clone();
        spoiled[50].1 = 1e6;
        assert!(smoothed(&spoiled).iter().all(|p| p.1 < 200.0));
    }

    #[test]
    fn the_first_steps_do_not_flatten_the_rest() {
        let mut values: Vec<f64> = (0..200).map(|i| 0.3 + 0.001 * f64::from(i)).collect();
        values[0] = 40.0;
        assert!(range(bulk(values).into_iter(), 0.05).end < 0.6);
        let honest: Vec<f64> = (0..10).map(f64::from).collect();
        assert_eq!(bulk(honest.clone()), honest);
    }

    #[test]
    fn numbers_on_the_axes_are_short() {
        let values = [0.0, 0.25, 1e-5, 1.5e-4, 12_000.0, 1_500_000.0, -3.0, 100.0];
        assert_eq!(values.map(number), ["0", "0.25", "1e-5", "1.5e-4", "12k", "1.5M", "-3", "100"]);
    }
}
