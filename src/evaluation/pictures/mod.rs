//! Pictures for people: slice sheets of a reconstruction, segmentations over their image, examples of augmentation, the curves
//! of a run, and comparisons of methods.

pub mod curves;
pub mod examples;
pub mod methods;
pub mod overlay;
pub mod sheet;

pub use curves::{Series, progress_png};
pub use sheet::{Panel, Window, sheet, window_of};

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;
use std::sync::Once;

use image::{ImageFormat, RgbImage};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontStyle, register_font};

use crate::base::output::check_output;
use crate::base::{Error, Result, write_atomic};

/// The name under which plotters looks for a font when nothing else is asked for.
const FONT: &str = "sans-serif";

/// Writes `picture` as PNG; the file appears whole or not at all.
///
/// # Errors
/// The picture cannot be written.
pub fn save_png(path: impl AsRef<Path>, picture: &RgbImage) -> Result<()> {
    let mut bytes = Vec::new();
    picture
        .write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png)
        .map_err(|e| Error::file(&path, format!("cannot be encoded as PNG: {e}"), "Nothing was written"))?;
    write_atomic(path, &bytes)
}

/// Sees, before any work is done, that a picture may be written to `path`.
///
/// # Errors
/// It has another ending, or another file is there.
pub fn check_png(path: &Path) -> Result<()> {
    check_output(path, "png", "a picture", |path| {
        // By its content: with the ending alone, a scan that is named so would be one.
        let mut start = Vec::new();
        let read = File::open(path).and_then(|file| file.take(16).read_to_end(&mut start));
        let found = read.ok().and_then(|_| image::guess_format(&start).ok());
        (found != Some(ImageFormat::Png)).then(|| "another file".into())
    })
}

/// Makes the embedded font known to plotters, which is built without any of its own.
fn use_font() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let known = register_font(FONT, FontStyle::Normal, include_bytes!("../../../assets/fonts/DejaVuSans.ttf"));
        debug_assert!(known.is_ok(), "assets/fonts/DejaVuSans.ttf is not a font");
    });
}

/// A style for text of `height` pixels. Anchored at its left, vertical centre unless changed.
fn text_style(height: u32, color: RGBColor) -> TextStyle<'static> {
    use_font();
    FontDesc::new(FontFamily::Name(FONT), f64::from(height), FontStyle::Normal)
        .color(&color)
        .pos(Pos::new(HPos::Left, VPos::Center))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_replace_pictures_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let said = |name: &str| check_png(&path(name)).map_err(|e| e.to_string());
        save_png(path("a.png"), &RgbImage::new(2, 2)).unwrap();
        std::fs::write(path("plans.png"), "{}").unwrap();
        assert_eq!((said("a.png"), said("new.PNG")), (Ok(()), Ok(())));
        assert!(said("plans.png").unwrap_err().contains("is another file, not a picture"));
        assert!(said("scan.nii.gz").unwrap_err().contains("end with .png"));
    }
}
