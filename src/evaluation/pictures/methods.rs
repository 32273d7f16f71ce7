//! Methods side by side: their curves with the spread over seeds, and how their ranks are distributed.

use std::ops::Range;

use image::RgbImage;
use plotters::prelude::*;

use super::curves::{AXIS_WIDTH, Canvas, Drawn, INK, SAMPLE, mesh, number, picture, plot, range};
use super::text_style;

/// One method's values: (x, mean, standard deviation), in order of x.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Line {
    /// Its name in the legend.
    pub name: String,
    /// (x, mean, standard deviation), in order of x.
    pub points: Vec<(f64, f64, f64)>,
}

/// Lines of several methods over one axis.
#[derive(Clone, Debug, Default)]
pub struct Chart {
    /// The line above it.
    pub title: String,
    /// What the horizontal axis is.
    pub x: String,
    /// What the vertical axis is.
    pub y: String,
    /// Names of the places 0, 1, ... of the axis, where it is no scale.
    pub ticks: Vec<String>,
    /// In the order of the legend.
    pub lines: Vec<Line>,
}

/// Distinguishable with colour-blindness (Okabe and Ito).
const COLORS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(110, 116, 128),
    RGBColor(0, 0, 0),
];

const SIZE: (u32, u32) = (1200, 640);
const LEGEND_LINE: i32 = 28;

fn color(index: usize) -> RGBColor {
    COLORS[index % COLORS.len()]
}

/// Lines with dots where points are few, and a band of one standard deviation around each.
pub fn lines_picture(chart: &Chart) -> RgbImage {
    picture(&chart.title, 22, SIZE, |area| draw_lines(area, chart))
}

/// For every method the distribution of its average rank over the draws of a bootstrap: as wide as ranks are frequent, with the
/// interval that holds 95 % (thin), half (thick) of them, and the mean (dot). Rank 1 is at the top.
pub fn ranks_picture(title: &str, methods: &[(String, Vec<f64>)]) -> RgbImage {
    picture(title, 22, SIZE, |area| draw_ranks(area, methods))
}

/// Where the entries of a legend stand, in as many rows as they need, and its height.
fn legend(names: &[&str]) -> (Vec<(i32, i32)>, u32) {
    let style = text_style(17, INK);
    let left = AXIS_WIDTH as i32 + 16;
    let (mut x, mut y) = (left, LEGEND_LINE / 2);
    let mut places = Vec::new();
    for name in names {
        let width = SAMPLE + 40 + style.font.box_size(name).map_or(0, |size| size.0 as i32);
        if x > left && x + width > SIZE.0 as i32 {
            (x, y) = (left, y + LEGEND_LINE);
        }
        places.push((x, y));
        x += width;
    }
    (places, (y + LEGEND_LINE / 2) as u32)
}

fn draw_lines(area: &Canvas, chart: &Chart) -> Drawn {
    let names: Vec<&str> = chart.lines.iter().map(|line| line.name.as_str()).collect();
    let (places, height) = legend(&names);
    let (above, area) = area.split_vertically(height);
    for (index, (&(x, y), name)) in places.iter().zip(&names).enumerate() {
        above.draw(&PathElement::new([(x, y), (x + SAMPLE, y)], color(index).stroke_width(3)))?;
        above.draw_text(name, &text_style(17, INK), (x + SAMPLE + 10, y))?;
    }
    let finite = |line: &Line| -> Vec<(f64, f64, f64)> {
        let finite = line.points.iter().copied().filter(|p| p.0.is_finite() && p.1.is_finite());
        finite.map(|(x, y, spread)| (x, y, if spread.is_finite() { spread } else { 0.0 })).collect()
    };
    let lines: Vec<_> = chart.lines.iter().map(finite).collect();
    let points = || lines.iter().flatten();
    let places = chart.ticks.len();
    let across = match places {
        0 => range(points().map(|p| p.0), 0.0),
        n => -0.3..n as f64 - 0.7,
    };
    let up = range(points().flat_map(|p| [p.1 - p.2, p.1 + p.2]), 0.05);
    let tick = |x: &f64| match places {
        0 => number(*x),
        // Between the places nothing is written.
        _ if (x - x.round()).abs() > 1e-6 || *x < 0.0 => String::new(),
        _ => chart.ticks.get(x.round() as usize).cloned().unwrap_or_default(),
    };
    let mut drawn = plot(&area, 44, across, up)?;
    mesh(&mut drawn)
        .x_labels(if places == 0 { 10 } else { 2 * places + 1 })
        .x_label_formatter(&tick)
        .x_desc(&chart.x)
        .y_desc(&chart.y)
        .draw()?;
    // All bands first: no line is hidden by one.
    for (index, points) in lines.iter().enumerate() {
        if points.iter().any(|p| p.2 > 0.0) {
            let upper = points.iter().map(|p| (p.0, p.1 + p.2));
            let lower = points.iter().rev().map(|p| (p.0, p.1 - p.2));
            let band: Vec<(f64, f64)> = upper.chain(lower).collect();
            drawn.draw_series([Polygon::new(band, color(index).mix(0.15))])?;
        }
    }
    for (index, points) in lines.iter().enumerate() {
        let curve = points.iter().map(|p| (p.0, p.1));
        drawn.draw_series(LineSeries::new(curve.clone(), color(index).stroke_width(2)))?;
        if points.len() <= 30 {
            drawn.draw_series(curve.map(|p| Circle::new(p, 4, color(index).filled())))?;
        }
    }
    Ok(())
}

/// Ranks of one method in equal steps, each with its share of the most frequent one.
fn histogram(ranks: &[f64], step: f64) -> Vec<(Range<f64>, f64)> {
    let mut counts = std::collections::BTreeMap::new();
    ranks.iter().for_each(|rank| *counts.entry((rank / step).round() as i64).or_insert(0u32) += 1);
    let most = counts.values().copied().max().unwrap_or(1);
    let bar = |(at, count): (i64, u32)| {
        let centre = at as f64 * step;
        (centre - step / 2.0..centre + step / 2.0, f64::from(count) / f64::from(most))
    };
    counts.into_iter().map(bar).collect()
}

fn draw_ranks(area: &Canvas, methods: &[(String, Vec<f64>)]) -> Drawn {
    let count = methods.len().max(1) as f64;
    let name = |x: &f64| {
        let place = x.round();
        let known = (x - place).abs() < 1e-6 && place >= 0.0;
        methods.get(place as usize).filter(|_| known).map_or(String::new(), |(name, _)| name.clone())
    };
    // From the last rank up to the first.
    let mut chart = plot(area, 44, -0.5..count - 0.5, count + 0.3..0.7)?;
    mesh(&mut chart)
        .disable_x_mesh()
        .x_labels(2 * methods.len() + 1)
        .y_labels(methods.len() + 1)
        .x_label_formatter(&name)
        .y_desc("average rank over the data sets")
        .draw()?;
    for (index, (_, ranks)) in methods.iter().enumerate() {
        let at = index as f64;
        let bars = histogram(ranks, (count - 1.0).max(1.0) / 60.0);
        let bar = |(rows, width): (Range<f64>, f64)| {
            let half = 0.42 * width;
            Rectangle::new([(at - half, rows.start), (at + half, rows.end)], color(index).mix(0.35).filled())
        };
        chart.draw_series(bars.into_iter().map(bar))?;
        let mut sorted = ranks.clone();
        sorted.sort_by(f64::total_cmp);
        let Some(last) = sorted.len().checked_sub(1) else { continue };
        let quantile = |q: f64| sorted[(q * last as f64).round() as usize];
        let interval = |q: f64, width| {
            let ends = [(at, quantile(q)), (at, quantile(1.0 - q))];
            PathElement::new(ends, color(index).stroke_width(width))
        };
        chart.draw_series([interval(0.025, 2), interval(0.25, 6)])?;
        let mean = sorted.iter().sum::<f64>() / sorted.len() as f64;
        chart.draw_series([Circle::new((at, mean), 7, color(index).filled())])?;
        chart.draw_series([Circle::new((at, mean), 4, WHITE.filled())])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(picture: &RgbImage, color: RGBColor) -> usize {
        picture.pixels().filter(|p| p.0 == [color.0, color.1, color.2]).count()
    }

    #[test]
    fn every_method_is_seen() {
        let line = |k: f64| Line {
            name: format!("method {k}"),
            points: (0..100).map(|i| (f64::from(i), k * f64::from(i), k)).collect(),
        };
        let chart = Chart { lines: (1..=8).map(|k| line(f64::from(k))).collect(), ..Chart::default() };
        let picture = lines_picture(&chart);
        COLORS.iter().for_each(|&c| assert!(count(&picture, c) > 200, "{c:?}"));
        let ranks: Vec<_> = (0..8).map(|k| (format!("m{k}"), vec![1.0 + f64::from(k); 50])).collect();
        let picture = ranks_picture("ranks", &ranks);
        COLORS.iter().for_each(|&c| assert!(count(&picture, c) > 50, "{c:?}"));
    }

    #[test]
    fn few_and_strange_values_give_a_picture() {
        let strange = [
            vec![],
            vec![(0.0, f64::NAN, 0.0)],
            vec![(1.0, 2.0, f64::NAN)],
            vec![(1.0, 0.0, 0.0), (f64::INFINITY, 1.0, 1.0)],
            vec![(0.0, 1e300, 1e300), (1.0, -1e300, 0.0)],
        ];
        for points in strange {
            let chart = Chart { lines: vec![Line { name: "x".into(), points }], ..Chart::default() };
            assert_eq!(lines_picture(&chart).dimensions(), SIZE);
            assert_eq!(lines_picture(&Chart { ticks: vec!["10".into()], ..chart }).dimensions(), SIZE);
        }
        assert_eq!(ranks_picture("", &[]).dimensions(), SIZE);
        assert_eq!(ranks_picture("", &[("one".into(), vec![]), ("two".into(), vec![1.0])]).dimensions(), SIZE);
    }
}
