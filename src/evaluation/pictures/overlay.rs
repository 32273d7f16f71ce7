//! A segmentation over its image: three slices as they are, and the same with the reference's outline and the prediction's
//! area in the colour of each class.

use image::{Rgb, RgbImage};
use plotters::style::text_anchor::HPos;

use super::sheet::{
    BACKGROUND, FAINT, GAP, LABEL, LINE, PLANES, Plane, SMALL, TEXT, TITLE, each_pixel, fit, fraction, gray, paragraph,
    pixels, resolution, side, text, text_width, wrap,
};
use super::window_of;
use crate::base::Volume;
use std::collections::BTreeMap;

/// A class of the segmentation.
#[derive(Clone, Copy, Debug)]
pub struct Class<'a> {
    /// Its name in the legend.
    pub name: &'a str,
    /// The labels that belong to it; a label may belong to several classes.
    pub labels: &'a [i32],
    /// NaN where neither map has it.
    pub dice: f64,
    /// Of the reference.
    pub voxels: u64,
}

/// Share of the class's colour where the prediction is.
const OPACITY: f32 = 0.4;
/// Middle extent of a volume in pixels, at least: outlines need room.
const COMFORTABLE: f64 = 300.0;
/// Classes in the legend; with more, half of them are the largest and half the worst.
const IN_LEGEND: usize = 16;
const SWATCH: u32 = 14;
/// Least width of an entry of the legend.
const ENTRY: u32 = 230;

/// Draws the slices in which the reference has most voxels (the prediction, where there is no reference). The maps lie on
/// the image's grid, oriented as it is.
///
/// # Panics
/// When a map does not have the image's number of voxels.
pub fn overlay(image: &Volume, reference: &[i32], predicted: &[i32], classes: &[Class], title: &str) -> RgbImage {
    assert!([reference.len(), predicted.len()] == [image.data.len(); 2], "maps of other than {:?}", image.shape);
    let painter = Painter::new(image, reference, predicted, classes, window_of(image));
    let centre = painter.fullest();
    let sizes = pixels(image, resolution(image, COMFORTABLE));
    let cells: Vec<(u32, u32)> = PLANES.iter().map(|plane| (sizes[plane.right].max(120), sizes[plane.down])).collect();
    let tallest = cells.iter().map(|cell| cell.1).max().unwrap_or(0);
    let width = GAP + cells.iter().map(|cell| cell.0 + GAP).sum::<u32>();

    let chosen = legend(classes);
    let per_line = (width / ENTRY).clamp(1, 4) as usize;
    let present = classes.iter().filter(|class| !class.dice.is_nan()).count();
    let mut note = "line: reference, area: prediction".to_string();
    if chosen.len() < present {
        let half = IN_LEGEND / 2;
        note += &format!("; {present} classes, listed are the {half} largest and the {half} with the lowest Dice");
    }
    let notes = wrap(&note, width - 2 * GAP, SMALL);
    let top = GAP + 2 * LINE;
    let below = top + 2 * (tallest + GAP);
    let height = below + LINE * (chosen.len().div_ceil(per_line) + notes.len()) as u32 + GAP;
    let mut picture = RgbImage::from_pixel(width, height, BACKGROUND);

    text(&mut picture, &fit(title, width - 2 * GAP, TITLE), GAP, GAP + LINE / 2, TITLE, TEXT, HPos::Left);
    let mut x = GAP;
    for (plane, &(cell_width, h)) in PLANES.iter().zip(&cells) {
        let w = sizes[plane.right];
        let place = format!("{}, {} = {}", plane.name, plane.letter, centre[plane.across]);
        text(&mut picture, &place, x + cell_width / 2, GAP + LINE + LINE / 2, SMALL, FAINT, HPos::Center);
        let (x0, y0) = (x + (cell_width - w) / 2, top + (tallest - h) / 2);
        for (with_classes, y) in [(false, y0), (true, y0 + tallest + GAP)] {
            painter.slice(&mut picture, plane, centre[plane.across], (x0, y), (w, h), with_classes);
        }
        if w > 0 {
            side(&mut picture, plane.sides[0], x0 + 10, y0 + h / 2);
            side(&mut picture, plane.sides[1], (x0 + w).saturating_sub(11), y0 + h / 2);
        }
        x += cell_width + GAP;
    }
    let column = (width - 2 * GAP) / per_line as u32;
    for (place, &class) in chosen.iter().enumerate() {
        let (x, y) = (GAP + column * (place % per_line) as u32, below + LINE * (place / per_line) as u32);
        for row in 0..SWATCH {
            (0..SWATCH).for_each(|c| picture.put_pixel(x + c, y + (LINE - SWATCH) / 2 + row, color(class)));
        }
        // The number right behind the name, so that it is not taken for that of the next class.
        let dice = format!("Dice {:.3}", classes[class].dice);
        let name = fit(classes[class].name, column - SWATCH - 110, LABEL);
        let (x, y) = (x + SWATCH + 8, y + LINE / 2);
        text(&mut picture, &name, x, y, LABEL, TEXT, HPos::Left);
        text(&mut picture, &dice, x + text_width(&name, LABEL) + 10, y, SMALL, FAINT, HPos::Left);
    }
    let below = below + LINE * chosen.len().div_ceil(per_line) as u32;
    paragraph(&mut picture, &notes, below, SMALL, FAINT);
    picture
}

/// All classes that occur, or half of [`IN_LEGEND`] the largest and then the worst ones; by their number.
fn legend(classes: &[Class]) -> Vec<usize> {
    let mut by_size: Vec<usize> = (0..classes.len()).filter(|&k| !classes[k].dice.is_nan()).collect();
    if by_size.len() <= IN_LEGEND {
        return by_size;
    }
    by_size.sort_by_key(|&k| std::cmp::Reverse(classes[k].voxels));
    let mut by_dice = by_size.split_off(IN_LEGEND / 2);
    by_dice.sort_by(|&a, &b| classes[a].dice.total_cmp(&classes[b].dice));
    by_size.extend(by_dice.into_iter().take(IN_LEGEND / 2));
    by_size
}

/// Of the class with this number: far from grey and from its neighbours in the list.
fn color(class: usize) -> Rgb<u8> {
    const FIRST: [[u8; 3]; 8] = [
        [255, 99, 71],
        [64, 196, 255],
        [255, 214, 64],
        [102, 224, 120],
        [224, 110, 255],
        [255, 160, 64],
        [64, 240, 212],
        [255, 128, 190],
    ];
    if let Some(&color) = FIRST.get(class) {
        return Rgb(color);
    }
    // Steps of the golden angle never come back to a hue.
    let hue = (class as f32 * 137.508) % 360.0 / 60.0;
    let darkest = if class.is_multiple_of(2) { 0.25 } else { 0.5 };
    let channel = |at: f32| {
        let ramp = (((hue + at) % 6.0 - 3.0).abs() - 1.0).clamp(0.0, 1.0);
        ((darkest + (1.0 - darkest) * ramp) * 255.0).round() as u8
    };
    Rgb([channel(0.0), channel(4.0), channel(2.0)])
}

pub(super) struct Painter<'a> {
    image: &'a Volume,
    window: (f32, f32),
    reference: &'a [i32],
    predicted: &'a [i32],
    /// The classes of every label, the smallest last: it is drawn over the others.
    of_label: BTreeMap<i32, Vec<usize>>,
    /// Lines are thinner where there are many.
    many: bool,
}

impl<'a> Painter<'a> {
    /// Black at the window's first value and white at its second.
    pub(super) fn new(
        image: &'a Volume,
        reference: &'a [i32],
        predicted: &'a [i32],
        classes: &[Class],
        window: (f32, f32),
    ) -> Self {
        let mut by_size: Vec<usize> = (0..classes.len()).collect();
        by_size.sort_by_key(|&k| std::cmp::Reverse(classes[k].voxels));
        let mut of_label: BTreeMap<i32, Vec<usize>> = BTreeMap::new();
        for k in by_size {
            classes[k].labels.iter().for_each(|&label| of_label.entry(label).or_default().push(k));
        }
        let many = classes.len() > IN_LEGEND;
        Self { image, window, reference, predicted, of_label, many }
    }

    fn classes(&self, label: i32) -> &[usize] {
        self.of_label.get(&label).map_or(&[], Vec::as_slice)
    }

    /// The slice of each axis in which the classes have most voxels; the middle one where there are none.
    pub(super) fn fullest(&self) -> [usize; 3] {
        let [_, ny, nx] = self.image.shape;
        let count = |map: &[i32]| {
            let mut counts = self.image.shape.map(|n| vec![0usize; n]);
            for (v, _) in map.iter().enumerate().filter(|(_, label)| self.of_label.contains_key(label)) {
                let voxel = [v / (ny * nx), v / nx % ny, v % nx];
                counts.iter_mut().zip(voxel).for_each(|(axis, at)| axis[at] += 1);
            }
            counts
        };
        let mut counts = count(self.reference);
        if counts[0].iter().all(|&n| n == 0) {
            counts = count(self.predicted);
        }
        counts.map(|axis| match axis.iter().max() {
            // The first of equals, whatever the order of `max_by_key`.
            Some(&most) if most > 0 => axis.iter().position(|&n| n == most).unwrap_or(0),
            _ => axis.len() / 2,
        })
    }

    /// Draws one slice at (x0, y0) with `w` x `h` pixels.
    pub(super) fn slice(
        &self,
        picture: &mut RgbImage,
        plane: &Plane,
        slice: usize,
        (x0, y0): (u32, u32),
        (w, h): (u32, u32),
        with_classes: bool,
    ) {
        let mut voxels = Vec::with_capacity((w * h) as usize);
        each_pixel(self.image.shape, plane, slice, (w, h), |_, _, index| voxels.push(index));
        if voxels.is_empty() {
            return;
        }
        // A line within the class, one or two pixels wide, but never a whole voxel.
        let voxel = w as usize / self.image.shape[plane.right].max(1);
        let reach: u32 = if self.many || voxel < 4 { 1 } else { 2 };
        let label = |column: u32, row: u32| self.reference[voxels[(row * w + column) as usize]];
        for row in 0..h {
            for column in 0..w {
                let v = voxels[(row * w + column) as usize];
                let mut pixel = gray(fraction(self.image.data[v], self.window.0, self.window.1));
                if with_classes {
                    if let Some(&class) = self.classes(self.predicted[v]).last() {
                        let over = color(class);
                        let mix = |k: usize| f32::from(pixel.0[k]) * (1.0 - OPACITY) + f32::from(over.0[k]) * OPACITY;
                        pixel = Rgb(std::array::from_fn(|k| mix(k).round() as u8));
                    }
                    let here = label(column, row);
                    let around = [
                        label(column.saturating_sub(reach), row),
                        label((column + reach).min(w - 1), row),
                        label(column, row.saturating_sub(reach)),
                        label(column, (row + reach).min(h - 1)),
                    ];
                    for &class in self.classes(here) {
                        if around.iter().any(|&other| other != here && !self.classes(other).contains(&class)) {
                            pixel = color(class);
                        }
                    }
                }
                picture.put_pixel(x0 + column, y0 + row, pixel);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: [usize; 3] = [10, 12, 14];

    fn cuboid(low: [usize; 3], high: [usize; 3], label: i32) -> Vec<i32> {
        let at = |v: usize| [v / (SHAPE[1] * SHAPE[2]), v / SHAPE[2] % SHAPE[1], v % SHAPE[2]];
        let inside = |v: usize| (0..3).all(|a| (low[a]..high[a]).contains(&at(v)[a]));
        (0..SHAPE.iter().product()).map(|v| if inside(v) { label } else { 0 }).collect()
    }

    fn class(labels: &[i32]) -> Class<'_> {
        Class { name: "a class", labels, dice: 0.5, voxels: 8 }
    }

    #[test]
    fn reference_as_line_and_prediction_as_area() {
        let image = Volume::zeros(SHAPE, [1.0; 3]);
        let (reference, predicted) = (cuboid([2; 3], [8; 3], 1), cuboid([2; 3], [8, 8, 11], 1));
        let painter = Painter::new(&image, &reference, &predicted, &[class(&[1])], window_of(&image));
        // Six pixels a voxel, so lines are two wide.
        let mut picture = RgbImage::new(14 * 6, 12 * 6);
        painter.slice(&mut picture, &PLANES[0], 5, (0, 0), (14 * 6, 12 * 6), true);
        // The middle of the voxel (y, x), and the pixel at its right edge in x (left in the picture).
        let middle = |y: u32, x: u32| *picture.get_pixel((13 - x) * 6 + 3, (11 - y) * 6 + 3);
        let edge = |y: u32, x: u32| *picture.get_pixel((13 - x) * 6, (11 - y) * 6 + 3);
        let area = color(0).0.map(|c| (f32::from(c) * OPACITY).round() as u8);
        assert_eq!((middle(5, 5), middle(5, 9), middle(5, 12)), (Rgb(area), Rgb(area), Rgb([0; 3])));
        assert_eq!((edge(5, 7), edge(5, 10)), (color(0), Rgb(area)));
    }

    #[test]
    fn slices_go_through_most_of_the_reference() {
        let image = Volume::zeros(SHAPE, [1.0; 3]);
        let mut reference = cuboid([1, 2, 3], [3, 6, 9], 1);
        reference[7 * SHAPE[1] * SHAPE[2]] = 1;
        let (none, ignored) = (cuboid([0; 3], [0; 3], 1), cuboid([5; 3], [9; 3], 9));
        let fullest = |r: &[i32], p: &[i32]| Painter::new(&image, r, p, &[class(&[1])], (0.0, 1.0)).fullest();
        assert_eq!(fullest(&reference, &none), [1, 2, 3]);
        assert_eq!(fullest(&none, &reference), [1, 2, 3]);
        assert_eq!(fullest(&ignored, &none), [5, 6, 7]);
    }

    #[test]
    fn long_legends_show_the_largest_and_the_worst() {
        let labels: Vec<i32> = (0..40).collect();
        let classes: Vec<Class> = (0..40)
            .map(|k| Class { name: "", labels: &labels[k..=k], dice: (39 - k) as f64 / 40.0, voxels: 100 - k as u64 })
            .collect();
        assert_eq!(legend(&classes), [0, 1, 2, 3, 4, 5, 6, 7, 39, 38, 37, 36, 35, 34, 33, 32]);
        assert_eq!(legend(&classes[..3]), [0, 1, 2]);
    }

    #[test]
    fn any_grid_gives_a_picture() {
        for shape in [[1, 1, 1], [0, 3, 3], [3, 40, 2]] {
            let image = Volume::zeros(shape, [1.0, 2.0, 0.5]);
            let map = vec![1; image.data.len()];
            let missing = Class { dice: f64::NAN, ..class(&[2]) };
            assert!(overlay(&image, &map, &map, &[class(&[1]), missing], "a title").height() > 100);
            assert!(overlay(&image, &map, &map, &[], "").width() > 300);
        }
    }
}
