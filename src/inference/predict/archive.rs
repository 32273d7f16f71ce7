//! A model folder as nnU-Net zips it (`nnUNetv2_export_model_to_zip`): `DATASET/TRAINER__PLANS__CONFIGURATION/plans.json` and what
//! lies beside it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;
use zip::ZipArchive;
use zip::read::ZipFile;

use crate::base::{Error, Result, content};

/// What a model folder says of its model.
pub const PLANS: &str = "plans.json";
/// What helps with a model of nnU-Net v1.
pub(super) const VERSION_2: &str =
    "Its weights are in another form; train it again with nnU-Net v2, or take a model of v2";
/// The largest description that is read.
const MAX_JSON: u64 = 1 << 26;
/// What is unpacked may be this many times as large as the archive: weights hardly shrink.
const MAX_EXPANSION: u64 = 64;
const UNPACK: &str = "Unpack it and name the model folder within, the one with plans.json";

/// Archives that are not read, by their first bytes.
const OTHERS: [(&[u8], &str); 4] =
    [(b"\x1f\x8b\x08", "gzip"), (b"7z\xbc\xaf", "7-Zip"), (b"\xfd7zXZ", "xz"), (b"Rar!", "RAR")];

/// An archive that holds one model.
pub(super) struct Archive {
    path: PathBuf,
    zip: ZipArchive<BufReader<File>>,
    /// The model's folder within the archive, with its `/`.
    prefix: String,
    bytes: u64,
    unpacked: TempDir,
    /// Bytes that may still be unpacked.
    room: u64,
}

impl Archive {
    /// Opens a file that is a zip archive; none for all that is no archive, and for checkpoints, which PyTorch zips as well.
    ///
    /// # Errors
    /// The file cannot be read, is an archive of another format, or holds no model or several.
    pub fn open(path: &Path) -> Result<Option<Self>> {
        let mut file = File::open(path).map_err(Error::io("open", path))?;
        let mut head = Vec::new();
        file.by_ref().take(1 << 10).read_to_end(&mut head).map_err(Error::io("read", path))?;
        content::refuse(path, &head)?;
        if let Some((_, format)) = OTHERS.iter().find(|(magic, _)| head.starts_with(magic)) {
            return Err(Error::file(path, format!("it is packed ({format})"), UNPACK));
        }
        if head.starts_with(b"{") {
            return Err(Error::file(
                path,
                "it is a description and holds no weights",
                "Name the folder that it lies in",
            ));
        }
        // Four bytes: a safetensors file begins with a number, whose first two may be these.
        if !head.starts_with(b"PK\x03\x04") {
            return Ok(None);
        }
        io::Seek::rewind(&mut file).map_err(Error::io("read", path))?;
        let bytes = file.metadata().map_err(Error::io("read", path))?.len();
        // What cannot be read as a zip archive is a damaged checkpoint as far as anybody knows.
        let Ok(zip) = ZipArchive::new(BufReader::new(file)) else { return Ok(None) };
        // Names that cannot be read are none of a model.
        let names: Vec<String> = zip.file_names().flatten().map(|name| name.into_owned()).collect();
        let folders = |name: &str| {
            let whole = |folder: &&str| folder.is_empty() || folder.ends_with('/');
            let folders = names.iter().filter_map(|member| member.strip_suffix(name)).filter(whole);
            folders.map(str::to_string).collect::<BTreeSet<String>>()
        };
        let models = folders(PLANS);
        let Some(prefix) = models.first().filter(|_| models.len() == 1).cloned() else {
            if folders("data.pkl").iter().any(|folder| folder.matches('/').count() <= 1) {
                return Ok(None);
            }
            let list: Vec<&str> = models.iter().map(|name| name.trim_end_matches('/')).collect();
            let first_version = names.iter().any(|name| name.ends_with("plans.pkl"));
            return Err(match list.len() {
                0 if first_version => Error::file(path, "it is a model of nnU-Net v1", VERSION_2),
                0 => Error::file(path, format!("it is a zip archive without a model ({PLANS})"), UNPACK),
                n => Error::file(
                    path,
                    format!("it holds {n} models: {}", list.join(", ")),
                    "Unpack it and name one of them",
                ),
            });
        };
        let temporary = std::env::temp_dir();
        let unpacked = tempfile::Builder::new().prefix("spark3d-model-").tempdir();
        let unpacked = unpacked.map_err(Error::io("write to", temporary))?;
        let room = bytes.saturating_mul(MAX_EXPANSION);
        Ok(Some(Self { path: path.to_path_buf(), zip, prefix, bytes, unpacked, room }))
    }

    /// The name of the model's folder.
    pub fn folder(&self) -> &str {
        self.prefix.trim_end_matches('/').rsplit('/').next().unwrap_or_default()
    }

    /// Names of files within the model's folder.
    pub fn names(&self) -> Vec<String> {
        let names = self.zip.file_names().flatten();
        names.filter_map(|name| name.strip_prefix(&self.prefix).map(str::to_string)).collect()
    }

    /// A file of the model's folder that is JSON, if it is there.
    ///
    /// # Errors
    /// It cannot be read, or is not JSON.
    pub fn json(&mut self, name: &str) -> Result<Option<Value>> {
        let Some(mut member) = self.member(name)? else { return Ok(None) };
        let mut text = Vec::new();
        let read = member.by_ref().take(MAX_JSON).read_to_end(&mut text);
        drop(member);
        read.map_err(|e| self.fault(name, format!("cannot be read ({e})")))?;
        serde_json::from_slice(&text).map(Some).map_err(|e| self.fault(name, format!("is not valid JSON: {e}")))
    }

    /// Unpacks a file of the model's folder to a temporary place, under a name of its own.
    ///
    /// # Errors
    /// It cannot be read or written, or is larger than any weights would be.
    pub fn unpack(&mut self, name: &str) -> Result<PathBuf> {
        let (room, bytes) = (self.room, self.bytes);
        // Names of the archive are no names of files here: they could lead anywhere.
        let number = std::fs::read_dir(self.unpacked.path()).map_or(0, Iterator::count);
        let target = self.unpacked.path().join(format!("{number}.checkpoint"));
        let Some(mut member) = self.member(name)? else { return Err(self.fault(name, "is not there".into())) };
        let copied = File::create(&target).and_then(|mut out| io::copy(&mut member.by_ref().take(room + 1), &mut out));
        drop(member);
        let temporary = std::env::temp_dir();
        let copied =
            copied.map_err(|e| self.fault(name, format!("cannot be unpacked to {} ({e})", temporary.display())))?;
        if copied > room {
            return Err(self
                .fault(name, format!("is more than {MAX_EXPANSION} times as large as the archive of {bytes} bytes")));
        }
        self.room -= copied;
        Ok(target)
    }

    /// An error about a file within the archive.
    pub fn fault(&self, name: &str, cause: String) -> Error {
        Error::file(&self.path, format!("{}{name} {cause}", self.prefix), UNPACK)
    }

    /// The folder with what was unpacked, which lives as long as this.
    pub fn into_unpacked(self) -> TempDir {
        self.unpacked
    }

    fn member(&mut self, name: &str) -> Result<Option<ZipFile<'_, BufReader<File>>>> {
        let whole = format!("{}{name}", self.prefix);
        let Some(index) = self.zip.index_for_name(&whole) else { return Ok(None) };
        let path = &self.path;
        let unreadable = |e| Error::file(path, format!("{whole} cannot be read ({e})"), UNPACK);
        self.zip.by_index(index).map(Some).map_err(unreadable)
    }
}
