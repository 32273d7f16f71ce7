//! Examples of augmentation: a row each, three planes of a patch as it was and as it became, with what was drawn below.

use image::RgbImage;
use plotters::style::text_anchor::HPos;

use super::overlay::{Class, Painter};
use super::sheet::{
    BACKGROUND, FAINT, GAP, LABEL, LINE, PLANES, SMALL, TEXT, TITLE, fit, paragraph, pixels, resolution, side, text,
    wrap,
};
use super::window_of;
use crate::base::Volume;

/// A patch before and after.
#[derive(Clone, Debug)]
pub struct Example {
    /// Both of one shape and spacing.
    pub before: Volume,
    /// What became of it.
    pub after: Volume,
    /// Label maps on the same voxels.
    pub labels: Option<[Vec<i32>; 2]>,
    /// The line below the pictures.
    pub caption: String,
}

/// What the sheet says of itself.
#[derive(Clone, Copy, Debug)]
pub struct Heading<'a> {
    /// The line above all examples.
    pub title: &'a str,
    /// Classes whose outlines are drawn.
    pub classes: &'a [Class<'a>],
    /// Whether axes are (inferior→superior, posterior→anterior, left→right), so that planes and sides have names.
    pub oriented: bool,
}

/// Middle extent of a patch in pixels, at least.
const COMFORTABLE: f64 = 160.0;
/// Between what was and what became.
const BETWEEN: u32 = 28;

/// Draws the examples, which should all have one shape. Slices go through the middle of a patch, or through most of its labels.
/// Before and after have one window: a change of intensities shows.
pub fn examples(examples: &[Example], heading: Heading) -> RgbImage {
    let sizes: Vec<[u32; 3]> = examples.iter().map(|e| pixels(&e.before, resolution(&e.before, COMFORTABLE))).collect();
    let largest = |axis: usize| sizes.iter().map(|s| s[axis]).max().unwrap_or(0).max(1);
    let cells: Vec<u32> = PLANES.iter().map(|p| largest(p.right).max(90)).collect();
    let tallest = PLANES.iter().map(|p| largest(p.down)).max().unwrap_or(1);
    let half = cells.iter().sum::<u32>() + 2 * GAP;
    let width = 2 * GAP + 2 * half + BETWEEN;
    let captions: Vec<Vec<String>> = examples.iter().map(|e| wrap(&e.caption, width - 2 * GAP, SMALL)).collect();
    let rows: u32 = captions.iter().map(|lines| tallest + LINE * lines.len() as u32 + GAP + 6).sum();
    let top = GAP + 2 * LINE + LINE / 2;
    let mut picture = RgbImage::from_pixel(width, top + rows, BACKGROUND);

    text(&mut picture, &fit(heading.title, width - 2 * GAP, TITLE), GAP, GAP + LINE / 2, TITLE, TEXT, HPos::Left);
    for (n, what) in ["as it is", "augmented"].into_iter().enumerate() {
        let middle = GAP + n as u32 * (half + BETWEEN) + half / 2;
        text(&mut picture, what, middle, GAP + LINE + LINE / 2, LABEL, FAINT, HPos::Center);
    }
    let mut y = top;
    for ((example, size), lines) in examples.iter().zip(&sizes).zip(&captions) {
        let window = window_of(&example.before);
        for (n, volume) in [&example.before, &example.after].into_iter().enumerate() {
            let none = vec![0; volume.data.len()];
            let labels = example.labels.as_ref().map_or(&none, |maps| &maps[n]);
            let painter = Painter::new(volume, labels, &none, heading.classes, window);
            let centre = painter.fullest();
            let mut x = GAP + n as u32 * (half + BETWEEN);
            for (plane, &cell) in PLANES.iter().zip(&cells) {
                let (w, h) = (size[plane.right], size[plane.down]);
                let (x0, y0) = (x + (cell - w) / 2, y + (tallest - h) / 2);
                painter.slice(&mut picture, plane, centre[plane.across], (x0, y0), (w, h), true);
                if heading.oriented && n == 0 {
                    side(&mut picture, plane.sides[0], x0 + 10, y0 + h / 2);
                    side(&mut picture, plane.sides[1], (x0 + w).saturating_sub(11), y0 + h / 2);
                }
                x += cell + GAP;
            }
        }
        y += tallest;
        paragraph(&mut picture, lines, y + 2, SMALL, FAINT);
        y += LINE * lines.len() as u32 + GAP + 6;
    }
    picture
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_are_drawn_in_one_window() {
        let shape = [4, 5, 6];
        let mut before = Volume::zeros(shape, [1.0; 3]);
        before.data.iter_mut().enumerate().for_each(|(n, v)| *v = (n % 6) as f32);
        let mut after = before.clone();
        after.data.iter_mut().for_each(|v| *v /= 2.0);
        let example = Example { before, after, labels: None, caption: "halved ".repeat(60) };
        let heading = Heading { title: "a title", classes: &[], oriented: true };
        let picture = examples(&[example.clone(), example], heading);
        let most = |range: std::ops::Range<u32>| {
            let y = GAP + 2 * LINE + LINE / 2;
            range.flat_map(|x| (y..y + 100).map(move |y| (x, y))).map(|(x, y)| picture.get_pixel(x, y).0[0]).max()
        };
        let half = picture.width() / 2;
        assert_eq!(most(0..half - 20), Some(255));
        assert!((120..136).contains(&most(half..picture.width()).unwrap()));
        assert!(examples(&[], heading).width() > 300);
    }
}
