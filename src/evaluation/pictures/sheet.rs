//! A sheet of slices: one column per volume (original, masked, reconstruction, error), one row per plane.

use image::{Rgb, RgbImage};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::text_style;
use crate::base::Volume;

/// One column of a sheet.
#[derive(Clone, Copy, Debug)]
pub struct Panel<'a> {
    /// Stands above the column.
    pub title: &'a str,
    /// Oriented: axes (inferior→superior, posterior→anterior, left→right).
    pub volume: &'a Volume,
    /// Which values become which colours.
    pub window: Window<'a>,
}

/// How values become colours.
#[derive(Clone, Copy, Debug)]
pub enum Window<'a> {
    /// Black at the first value, white at the second.
    Gray(f32, f32),
    /// Black through red to light yellow, with a scale below the column: for errors.
    Heat(f32, f32),
    /// Grey, but voxels where `hidden` is above one half are drawn in a flat dark blue.
    GrayMasked {
        /// The value that is black.
        lo: f32,
        /// The value that is white.
        hi: f32,
        /// Of the volume's shape.
        hidden: &'a Volume,
    },
}

/// The 0.5th and 99.5th percentile of the finite values: a window that one bright vessel does not spoil. The second is
/// above the first even in a constant volume.
pub fn window_of(volume: &Volume) -> (f32, f32) {
    let mut values: Vec<f32> = volume.data.iter().copied().filter(|v| v.is_finite()).collect();
    if values.is_empty() {
        return (0.0, 1.0);
    }
    let last = values.len() - 1;
    let mut percentile = |p: f64| *values.select_nth_unstable_by((p * last as f64).round() as usize, f32::total_cmp).1;
    let (lo, hi) = (percentile(0.005), percentile(0.995));
    if hi > lo { (lo, hi) } else { (lo, lo + lo.abs().max(1.0)) }
}

pub(super) const BACKGROUND: Rgb<u8> = Rgb([17, 19, 23]);
pub(super) const TEXT: RGBColor = RGBColor(228, 231, 236);
pub(super) const FAINT: RGBColor = RGBColor(150, 158, 170);
const HIDDEN: Rgb<u8> = Rgb([24, 40, 84]);

pub(super) const GAP: u32 = 12;
/// Room for the names of the planes.
const LEFT: u32 = 96;
pub(super) const TITLE: u32 = 20;
pub(super) const LABEL: u32 = 16;
pub(super) const SMALL: u32 = 14;
pub(super) const LINE: u32 = 22;
/// Middle extent of a volume on the sheet, in pixels, at least; and the most that any extent may take.
const COMFORTABLE: f64 = 192.0;
const LARGEST: f64 = 1024.0;

/// A plane through the volume, shown as one looks at it in radiology: superior or anterior up, the patient's right on
/// the left of the picture, faces to the left.
pub(super) struct Plane {
    pub(super) name: &'static str,
    /// Index of the axis that the plane cuts, and its letter.
    pub(super) across: usize,
    pub(super) letter: &'static str,
    /// Axes that run down and to the right on the picture, both from their far end: every axis of an oriented volume
    /// grows towards the top or the left of such a picture.
    pub(super) down: usize,
    pub(super) right: usize,
    /// What lies at the left and the right edge.
    pub(super) sides: [&'static str; 2],
}

pub(super) const PLANES: [Plane; 3] = [
    Plane { name: "axial", across: 0, letter: "z", down: 1, right: 2, sides: ["R", "L"] },
    Plane { name: "coronal", across: 1, letter: "y", down: 0, right: 2, sides: ["R", "L"] },
    Plane { name: "sagittal", across: 2, letter: "x", down: 0, right: 1, sides: ["A", "P"] },
];

/// Draws the slices through the voxel `centre` (z, y, x) of every panel, which should all have one grid, with `caption`
/// below. Voxels keep their proportions in mm; small volumes are enlarged without smoothing, so that a voxel stays a
/// voxel.
pub fn sheet(panels: &[Panel], centre: [usize; 3], caption: &str) -> RgbImage {
    let millimetres_per_pixel = panels.first().map_or(1.0, |p| resolution(p.volume, COMFORTABLE));
    // Size in pixels of every volume's axes, and the largest of each over the columns.
    let sizes: Vec<[u32; 3]> = panels.iter().map(|p| pixels(p.volume, millimetres_per_pixel)).collect();
    let largest = |axis: usize| sizes.iter().map(|s| s[axis]).max().unwrap_or(0);
    let cell_width = PLANES.iter().map(|p| largest(p.right)).max().unwrap_or(0).max(120);
    let scales = if panels.iter().any(|p| matches!(p.window, Window::Heat(..))) { 2 * LINE } else { 0 };

    let columns = panels.len().max(1) as u32;
    let width = LEFT + columns * (cell_width + GAP);
    let lines = wrap(caption, width - 2 * GAP, LABEL);
    let top = GAP + LINE + 6;
    let rows: u32 = PLANES.iter().map(|p| largest(p.down).max(3 * LINE) + GAP).sum();
    let height = top + rows + scales + LINE * lines.len() as u32 + GAP;
    let mut picture = RgbImage::from_pixel(width, height, BACKGROUND);
    let column = |index: usize| LEFT + index as u32 * (cell_width + GAP);

    for (index, panel) in panels.iter().enumerate() {
        let title = fit(panel.title, cell_width, TITLE);
        text(&mut picture, &title, column(index) + cell_width / 2, GAP + LINE / 2, TITLE, TEXT, HPos::Center);
    }
    let mut y = top;
    for plane in &PLANES {
        let cell_height = largest(plane.down).max(3 * LINE);
        let middle = y + cell_height / 2;
        text(&mut picture, plane.name, GAP, middle - LINE / 2, LABEL, TEXT, HPos::Left);
        if let Some(panel) = panels.first() {
            let slice = centre[plane.across].min(panel.volume.shape[plane.across].saturating_sub(1));
            let place = format!("{} = {slice}", plane.letter);
            text(&mut picture, &place, GAP, middle + LINE / 2, SMALL, FAINT, HPos::Left);
        }
        for (index, (panel, size)) in panels.iter().zip(&sizes).enumerate() {
            let (w, h) = (size[plane.right], size[plane.down]);
            let (x0, y0) = (column(index) + (cell_width - w) / 2, y + (cell_height - h) / 2);
            draw_slice(&mut picture, panel, plane, centre[plane.across], (x0, y0), (w, h));
            // The sides of the first column hold for the row.
            if index == 0 && w > 0 {
                side(&mut picture, plane.sides[0], x0 + 10, y0 + h / 2);
                side(&mut picture, plane.sides[1], (x0 + w).saturating_sub(11), y0 + h / 2);
            }
        }
        y += cell_height + GAP;
    }
    for (index, panel) in panels.iter().enumerate() {
        if let Window::Heat(lo, hi) = panel.window {
            draw_scale(&mut picture, column(index), y, cell_width, lo, hi);
        }
    }
    paragraph(&mut picture, &lines, y + scales, LABEL, TEXT);
    picture
}

/// Voxel edges in mm, with 1 for those that make no sense.
fn spacing(volume: &Volume) -> [f64; 3] {
    volume.spacing.map(|s| if s.is_finite() && s > 0.0 { s } else { 1.0 })
}

/// Edge of a picture's pixel in mm: a whole fraction of the finest voxel edge, so that voxels of equal size get equally
/// many pixels, and small enough for the middle one of the volume's extents to take `comfortable` pixels.
pub(super) fn resolution(volume: &Volume, comfortable: f64) -> f64 {
    let spacing = spacing(volume);
    let finest = spacing.into_iter().fold(f64::INFINITY, f64::min);
    let mut extents: [f64; 3] = std::array::from_fn(|axis| volume.shape[axis].max(1) as f64 * spacing[axis]);
    extents.sort_by(f64::total_cmp);
    let enlargement = (comfortable * finest / extents[1]).ceil().max(1.0);
    (finest / enlargement).max(extents[2] / LARGEST)
}

pub(super) fn pixels(volume: &Volume, millimetres_per_pixel: f64) -> [u32; 3] {
    let spacing = spacing(volume);
    // Bounded as well for a volume that is much larger than the one that set the resolution.
    std::array::from_fn(|axis| match volume.shape[axis] {
        0 => 0,
        n => (n as f64 * spacing[axis] / millimetres_per_pixel).round().clamp(1.0, 2.0 * LARGEST) as u32,
    })
}

fn draw_slice(picture: &mut RgbImage, panel: &Panel, plane: &Plane, slice: usize, at: (u32, u32), size: (u32, u32)) {
    each_pixel(panel.volume.shape, plane, slice, size, |column, row, index| {
        let value = panel.volume.data.get(index).copied().unwrap_or(f32::NAN);
        picture.put_pixel(at.0 + column, at.1 + row, color(&panel.window, value, index));
    });
}

/// Column, row and the nearest voxel's index for every pixel of a slice drawn with `w` x `h` pixels.
pub(super) fn each_pixel(
    shape: [usize; 3],
    plane: &Plane,
    slice: usize,
    (w, h): (u32, u32),
    mut draw: impl FnMut(u32, u32, usize),
) {
    if shape.contains(&0) {
        return;
    }
    // From the far end of the axis: the first pixel shows its last voxel.
    let flipped = |pixel: u32, pixels: u32, axis: usize| {
        shape[axis] - 1 - (pixel as usize * shape[axis] / pixels as usize).min(shape[axis] - 1)
    };
    let mut voxel = [0; 3];
    voxel[plane.across] = slice.min(shape[plane.across] - 1);
    for row in 0..h {
        voxel[plane.down] = flipped(row, h, plane.down);
        for column in 0..w {
            voxel[plane.right] = flipped(column, w, plane.right);
            draw(column, row, (voxel[0] * shape[1] + voxel[1]) * shape[2] + voxel[2]);
        }
    }
}

fn color(window: &Window, value: f32, index: usize) -> Rgb<u8> {
    match *window {
        Window::Gray(lo, hi) => gray(fraction(value, lo, hi)),
        Window::Heat(lo, hi) => heat(fraction(value, lo, hi)),
        Window::GrayMasked { hidden, .. } if hidden.data.get(index).is_some_and(|&h| h > 0.5) => HIDDEN,
        Window::GrayMasked { lo, hi, .. } => gray(fraction(value, lo, hi)),
    }
}

/// Place of `value` in the window, from 0 to 1. What is not a number is drawn as the lowest value.
pub(super) fn fraction(value: f32, lo: f32, hi: f32) -> f32 {
    let place = (value - lo) / (hi - lo);
    if place.is_nan() { 0.0 } else { place.clamp(0.0, 1.0) }
}

pub(super) fn gray(fraction: f32) -> Rgb<u8> {
    Rgb([(fraction * 255.0).round() as u8; 3])
}

/// Straight lines between six colours of the "inferno" map, whose lightness grows evenly: it also reads in grey.
fn heat(fraction: f32) -> Rgb<u8> {
    const STOPS: [[f32; 3]; 6] = [
        [0.0, 0.0, 4.0],
        [66.0, 10.0, 104.0],
        [147.0, 38.0, 103.0],
        [221.0, 81.0, 58.0],
        [252.0, 165.0, 10.0],
        [252.0, 255.0, 164.0],
    ];
    let place = fraction * (STOPS.len() - 1) as f32;
    let below = (place as usize).min(STOPS.len() - 2);
    let weight = place - below as f32;
    let mix = |channel: usize| STOPS[below][channel] * (1.0 - weight) + STOPS[below + 1][channel] * weight;
    Rgb(std::array::from_fn(|channel| mix(channel).round() as u8))
}

/// The heat colours from `lo` to `hi`, with both numbers.
fn draw_scale(picture: &mut RgbImage, x: u32, y: u32, width: u32, lo: f32, hi: f32) {
    for column in 0..width {
        let color = heat(column as f32 / (width - 1).max(1) as f32);
        (0..12).for_each(|row| picture.put_pixel(x + column, y + row, color));
    }
    text(picture, &number(lo), x, y + 24, SMALL, FAINT, HPos::Left);
    text(picture, &number(hi), x + width, y + 24, SMALL, FAINT, HPos::Right);
}

/// Three digits that matter.
fn number(value: f32) -> String {
    match value.abs() {
        0.0 => "0".into(),
        a if (0.01..1.0).contains(&a) => format!("{value:.3}"),
        a if (1.0..100.0).contains(&a) => format!("{value:.2}"),
        a if (100.0..1e5).contains(&a) => format!("{value:.0}"),
        _ => format!("{value:.2e}"),
    }
}

pub(super) fn text(picture: &mut RgbImage, text: &str, x: u32, y: u32, height: u32, color: RGBColor, anchor: HPos) {
    let size = picture.dimensions();
    let style = text_style(height, color).pos(Pos::new(anchor, VPos::Center));
    // Drawing into memory with a font that is part of the program: nothing is left that can fail.
    let drawn = BitMapBackend::with_buffer(picture, size).draw_text(text, &style, (x as i32, y as i32));
    debug_assert!(drawn.is_ok(), "{drawn:?}");
}

/// Lines under one another, from `y` down.
pub(super) fn paragraph(picture: &mut RgbImage, lines: &[String], y: u32, height: u32, color: RGBColor) {
    for (n, line) in (0..).zip(lines) {
        text(picture, line, GAP, y + LINE * n + LINE / 2, height, color, HPos::Left);
    }
}

/// A letter in the middle of (x, y), readable on any tissue.
pub(super) fn side(picture: &mut RgbImage, letter: &str, x: u32, y: u32) {
    let (width, height) = picture.dimensions();
    for row in y.saturating_sub(9)..(y + 9).min(height) {
        for column in x.saturating_sub(8)..(x + 8).min(width) {
            let darker = picture.get_pixel(column, row).0.map(|c| c / 3);
            picture.put_pixel(column, row, Rgb(darker));
        }
    }
    text(picture, letter, x, y, SMALL, TEXT, HPos::Center);
}

pub(super) fn text_width(text: &str, height: u32) -> u32 {
    text_style(height, TEXT).font.box_size(text).map_or(0, |size| size.0)
}

/// `text`, shortened with an ellipsis until it fits.
pub(super) fn fit(text: &str, width: u32, height: u32) -> String {
    let mut short = text.to_string();
    while text_width(&short, height) > width && !short.is_empty() {
        let keep = short.trim_end_matches('…').chars().count().saturating_sub(1);
        short = text.chars().take(keep).collect();
        if keep > 0 {
            short.push('…');
        }
    }
    short
}

/// Breaks `text` at its line ends and between words.
pub(super) fn wrap(text: &str, width: u32, height: u32) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in text.lines() {
        let mut line = String::new();
        for word in paragraph.split_whitespace() {
            let longer = if line.is_empty() { word.to_string() } else { format!("{line} {word}") };
            if line.is_empty() || text_width(&longer, height) <= width {
                line = longer;
            } else {
                lines.push(fit(&line, width, height));
                line = word.to_string();
            }
        }
        lines.push(fit(&line, width, height));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(shape: [usize; 3], f: impl Fn([usize; 3]) -> f32) -> Volume {
        let mut v = Volume::zeros(shape, [1.0; 3]);
        for z in 0..shape[0] {
            for y in 0..shape[1] {
                for x in 0..shape[2] {
                    let index = v.index(z, y, x);
                    v.data[index] = f([z, y, x]);
                }
            }
        }
        v
    }

    /// The slice of one plane alone, `size` pixels per voxel.
    fn slice(v: &Volume, window: Window, plane: usize, centre: usize, size: u32) -> RgbImage {
        let plane = &PLANES[plane];
        let (w, h) = (v.shape[plane.right] as u32 * size, v.shape[plane.down] as u32 * size);
        let mut picture = RgbImage::from_pixel(w, h, Rgb([255, 0, 255]));
        draw_slice(&mut picture, &Panel { title: "", volume: v, window }, plane, centre, (0, 0), (w, h));
        picture
    }

    #[test]
    fn planes_are_turned_as_in_radiology() {
        // One bright voxel in the superior, anterior, right corner.
        let v = volume([3, 4, 5], |p| f32::from(p == [2, 3, 4]));
        let bright = |plane, centre| {
            let picture = slice(&v, Window::Gray(0.0, 1.0), plane, centre, 1);
            let found: Vec<_> = picture.enumerate_pixels().filter(|p| p.2.0[0] == 255).map(|p| (p.0, p.1)).collect();
            (picture.dimensions(), found)
        };
        // Axial: anterior up, the patient's right on the left. Coronal: superior up. Sagittal: the face on the left.
        assert_eq!(bright(0, 2), ((5, 4), vec![(0, 0)]));
        assert_eq!(bright(1, 3), ((5, 3), vec![(0, 0)]));
        assert_eq!(bright(2, 4), ((4, 3), vec![(0, 0)]));
        assert!(bright(0, 1).1.is_empty(), "another slice");
        assert_eq!(bright(0, 99).1.len(), 1, "a centre outside shows the last slice");
    }

    #[test]
    fn voxels_become_squares_of_pixels() {
        let v = volume([2, 2, 2], |p| p[2] as f32);
        let picture = slice(&v, Window::Gray(0.0, 1.0), 0, 0, 3);
        let row: Vec<u8> = (0..6).map(|x| picture.get_pixel(x, 5).0[0]).collect();
        assert_eq!(row, [255, 255, 255, 0, 0, 0]);
    }

    #[test]
    fn hidden_voxels_are_blue_and_numbers_that_are_none_are_dark() {
        let v = volume([1, 1, 3], |p| if p[2] == 2 { f32::NAN } else { 1.0 });
        let hidden = volume([1, 1, 3], |p| f32::from(p[2] == 0));
        let picture = slice(&v, Window::GrayMasked { lo: 0.0, hi: 1.0, hidden: &hidden }, 0, 0, 1);
        let row: Vec<_> = (0..3).map(|x| *picture.get_pixel(x, 0)).collect();
        assert_eq!(row, [Rgb([0; 3]), Rgb([255; 3]), HIDDEN]);
    }

    #[test]
    fn small_volumes_are_enlarged_and_spacing_keeps_its_proportions() {
        let with = |shape, spacing| {
            let v = Volume::zeros(shape, spacing);
            pixels(&v, resolution(&v, COMFORTABLE))
        };
        assert_eq!(with([64; 3], [1.0; 3]), [192; 3]);
        assert_eq!(with([160; 3], [1.0; 3]), [320; 3]);
        assert_eq!(with([20, 100, 100], [5.0, 1.0, 1.0]), [200; 3]);
        assert_eq!(with([300, 256, 256], [1.0; 3]), [300, 256, 256]);
        assert!(with([4000, 10, 10], [1.0; 3])[0] <= 1024);
        assert!(with([64; 3], [f64::NAN, 0.0, -1.0]).iter().all(|&n| n == 192));
    }

    #[test]
    fn heat_grows_lighter_all_the_way() {
        let lightness = |i: u32| heat(i as f32 / 50.0).0.iter().map(|&c| u32::from(c)).sum::<u32>();
        assert_eq!(heat(0.0), Rgb([0, 0, 4]));
        assert_eq!(heat(1.0), Rgb([252, 255, 164]));
        assert!((0..50).all(|i| lightness(i) < lightness(i + 1)));
    }

    #[test]
    fn the_window_ignores_a_few_extreme_voxels() {
        let mut v = volume([10, 10, 10], |p| (p[0] * 100 + p[1] * 10 + p[2]) as f32);
        assert_eq!(window_of(&v), (5.0, 994.0));
        v.data[0] = f32::INFINITY;
        v.data[1] = 1e30;
        assert!(window_of(&v).1 < 1000.0);
        let (lo, hi) = window_of(&Volume::zeros([2; 3], [1.0; 3]));
        assert!(lo == 0.0 && hi > lo);
        assert_eq!(window_of(&Volume::zeros([0, 2, 2], [1.0; 3])), (0.0, 1.0));
    }

    #[test]
    fn any_input_gives_a_picture() {
        let (empty, tiny) = (Volume::zeros([0, 3, 3], [1.0; 3]), Volume::zeros([1; 3], [0.1, 9.0, 2.0]));
        let other = Volume::zeros([9, 2, 30], [1.0; 3]);
        let long = "a caption that goes on and on, 0123456789 ".repeat(20);
        assert!(sheet(&[], [0; 3], "").width() > 0);
        for (first, second) in [(&empty, &tiny), (&tiny, &other), (&other, &empty)] {
            let window = Window::GrayMasked { lo: 0.0, hi: 0.0, hidden: second };
            let panels = [
                Panel { title: "", volume: first, window },
                Panel { title: &long, volume: second, window: Window::Heat(f32::NAN, 1.0) },
            ];
            let picture = sheet(&panels, [usize::MAX; 3], &long);
            assert!(picture.height() > 200);
        }
    }

    #[test]
    fn text_is_drawn_and_fitted() {
        let v = volume([64, 64, 64], |_| 0.0);
        let panel = |title| [Panel { title, volume: &v, window: Window::Gray(0.0, 1.0) }];
        let with = sheet(&panel("original"), [32; 3], "");
        assert_ne!(with, sheet(&panel(""), [32; 3], ""), "the font is there");
        assert!(text_width(&fit("a rather long title", 80, TITLE), TITLE) <= 80);
        assert_eq!(fit("short", 200, TITLE), "short");
        assert_eq!(wrap("one two\nthree", 1000, LABEL), ["one two", "three"]);
        assert!(wrap("one two three four", 60, LABEL).len() > 1);
    }
}
