//! What a comparison says: Markdown, its tables for other programs, and pictures.

use std::fs;
use std::path::Path;

use image::RgbImage;

use super::grid::{Grid, markdown};
use crate::base::{Error, Result, write_atomic};
use crate::evaluation::pictures::save_png;

/// What a comparison gives: a text to read, and tables and pictures to go with it.
#[derive(Default)]
pub struct Report {
    /// The whole as one document.
    pub markdown: String,
    /// Name without ending, and lines of cells.
    pub tables: Vec<(String, Vec<Vec<String>>)>,
    /// Name without ending, and what it shows.
    pub pictures: Vec<(String, RgbImage)>,
}

impl Report {
    /// Writes compare.md, NAME.csv and NAME.png into `folder`, which is made when it is missing.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub fn write(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        for (name, lines) in &self.tables {
            write_csv(&folder.join(format!("{name}.csv")), lines)?;
        }
        for (name, picture) in &self.pictures {
            save_png(folder.join(format!("{name}.png")), picture)?;
        }
        let mut text = self.markdown.clone();
        if !self.pictures.is_empty() {
            text.push_str("\n## Pictures\n");
            self.pictures.iter().for_each(|(name, _)| text.push_str(&format!("\n![{name}]({name}.png)\n")));
        }
        write_atomic(folder.join("compare.md"), text.as_bytes())
    }

    pub(super) fn heading(&mut self, level: usize, text: &str) {
        if !self.markdown.is_empty() {
            self.markdown.push('\n');
        }
        self.markdown.push_str(&format!("{} {text}\n", "#".repeat(level)));
    }

    pub(super) fn text(&mut self, text: &str) {
        self.markdown.push_str(&format!("\n{text}\n"));
    }

    pub(super) fn grid(&mut self, name: &str, grid: &Grid) {
        self.markdown.push_str(&format!("\n{}", grid.markdown()));
        self.tables.push((name.into(), grid.cells()));
    }

    /// A table of text: its head, then its rows, the first `left` columns aligned to the left.
    pub(super) fn lines(&mut self, name: &str, lines: &[Vec<String>], left: usize) {
        self.markdown.push_str(&format!("\n{}", markdown(lines, left)));
        self.tables.push((name.into(), lines.to_vec()));
    }

    pub(super) fn picture(&mut self, name: &str, picture: RgbImage) {
        let mut name = file_name(name);
        // Different names may become one.
        while self.pictures.iter().any(|(other, _)| *other == name) {
            name.push('+');
        }
        self.pictures.push((name, picture));
    }
}

fn write_csv(path: &Path, lines: &[Vec<String>]) -> Result<()> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let written = lines.iter().try_for_each(|line| writer.write_record(line));
    let failed = |e: String| Error::file(path, format!("cannot be written as CSV: {e}"), "Nothing was written");
    written.map_err(|e| failed(e.to_string()))?;
    write_atomic(path, &writer.into_inner().map_err(|e| failed(e.to_string()))?)
}

/// Without what file systems or links do not take.
fn file_name(name: &str) -> String {
    let kept = |c: char| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    let mut chars: Vec<char> = name.chars().map(kept).collect();
    chars.dedup_by(|c, before| (*c, *before) == ('_', '_'));
    chars.into_iter().collect()
}
