//! gzip streams as they are found: of several members, and with something behind the last of them.

use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::GzDecoder;

/// What all members of a stream hold. Zeros behind a member are padding, as tapes and object stores leave it. Anything else behind
/// the last member is passed over with a warning, as gzip itself does: the checksums have told that the members are whole.
pub(super) struct Members {
    path: PathBuf,
    /// The member that is being read; none at the end.
    member: Option<GzDecoder<BufReader<File>>>,
    /// Whether it is another than the first.
    later: bool,
}

impl Members {
    /// Those of `path`, which is open at its beginning.
    pub fn new(file: BufReader<File>, path: &Path) -> Self {
        Self { path: path.to_path_buf(), member: Some(GzDecoder::new(file)), later: false }
    }
}

impl Read for Members {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.member {
            match member.read(out) {
                Ok(0) if !out.is_empty() => {
                    self.later = true;
                    self.member = match self.member.take() {
                        Some(ended) => following(ended.into_inner())?,
                        None => None,
                    };
                }
                Err(e) if self.later && member.header().is_none() && is_of_content(&e) => {
                    let path = self.path.display();
                    log::warn!("{path}: what follows its compressed content is not gzip and is passed over");
                    self.member = None;
                }
                result => return result,
            }
        }
        Ok(0)
    }
}

/// What may be another member, where anything but zeros is left.
fn following(mut rest: BufReader<File>) -> io::Result<Option<GzDecoder<BufReader<File>>>> {
    loop {
        let (zeros, all) = {
            let bytes = rest.fill_buf()?;
            (bytes.iter().take_while(|b| **b == 0).count(), bytes.len())
        };
        rest.consume(zeros);
        match all {
            0 => return Ok(None),
            _ if zeros < all => return Ok(Some(GzDecoder::new(rest))),
            _ => {}
        }
    }
}

/// Whether an error is that of the bytes, not of the disk.
fn is_of_content(e: &io::Error) -> bool {
    matches!(e.kind(), ErrorKind::InvalidInput | ErrorKind::InvalidData | ErrorKind::UnexpectedEof)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use std::io::Write;

    fn packed(content: &[u8]) -> Vec<u8> {
        let mut out = GzEncoder::new(Vec::new(), Compression::fast());
        out.write_all(content).unwrap();
        out.finish().unwrap()
    }

    /// What is read, through a buffer of so many bytes.
    fn read(bytes: &[u8], buffer: usize) -> io::Result<Vec<u8>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.gz");
        std::fs::write(&path, bytes).unwrap();
        let mut content = Vec::new();
        let file = BufReader::with_capacity(buffer, File::open(&path).unwrap());
        Members::new(file, &path).read_to_end(&mut content).map(|_| content)
    }

    #[test]
    fn members_and_what_lies_between_and_behind_them() {
        let (one, two) = (packed(b"one"), packed(b"two"));
        let zeros = [0; 700];
        for buffer in [1, 7, 64, 1 << 18] {
            for (parts, want) in [
                (vec![&one[..]], "one"),
                (vec![&one, &two], "onetwo"),
                (vec![&one, &zeros], "one"),
                (vec![&one, &zeros, &two, &zeros], "onetwo"),
                (vec![&one, b"<html>not found</html>"], "one"),
                (vec![&one, &zeros, b"\x1f\x8b"], "one"),
            ] {
                assert_eq!(read(&parts.concat(), buffer).unwrap(), want.as_bytes(), "{buffer}");
            }
        }
        // What is damaged within a member stays an error.
        let mut damaged = [&one[..], &two].concat();
        let end = damaged.len() - 1;
        assert!(read(&damaged[..end], 64).is_err());
        damaged[end - 6] ^= 1;
        assert!(read(&damaged, 64).is_err());
        assert!(read(&[b"\x1f\x8b", &zeros[..]].concat(), 64).is_err());
    }
}
