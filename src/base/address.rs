//! Addresses of the network where a path is wanted.

use std::path::Path;

use super::error::{Error, Result};

/// Passes paths: nothing is ever downloaded.
///
/// # Errors
/// `path` is an address such as `https://...` or `hf://...`; says how its files are fetched.
pub fn local(path: &Path) -> Result<()> {
    let text = path.to_string_lossy();
    let Some((scheme, rest)) = text.split_once("://").filter(|_| !path.exists()) else { return Ok(()) };
    // One letter is a drive of Windows.
    if scheme.len() < 2 || !scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b)) {
        return Ok(());
    }
    let remedy = match (scheme.to_ascii_lowercase().as_str(), hugging_face(scheme, rest)) {
        ("file", _) => "Give the path alone".to_string(),
        (_, Some(repository)) => {
            format!(
                "Fetch it first, for example with `hf download {repository} --local-dir DIR`, and give the path in DIR"
            )
        }
        ("http" | "https" | "ftp", _) => {
            format!("Fetch it first, for example with `curl -L -O '{text}'`, and give the path of the file")
        }
        _ => "Fetch it first with the program of that service, and give the path of the files".to_string(),
    };
    Err(Error::file(path, "it is an address, and nothing is downloaded here", remedy))
}

/// The repository that an address on Hugging Face names, as `hf download` wants it; a single file has an address of its own.
fn hugging_face(scheme: &str, rest: &str) -> Option<String> {
    let path = match scheme {
        "hf" => rest,
        _ => rest.strip_prefix("huggingface.co/").or_else(|| rest.strip_prefix("hf.co/"))?,
    };
    let parts: Vec<&str> = path.split(['/', '?', '@']).filter(|part| !part.is_empty()).collect();
    match parts[..] {
        [_, _, "resolve", ..] | ["datasets", _, _, "resolve", ..] => None,
        ["datasets", owner, name, ..] => Some(format!("--repo-type dataset {owner}/{name}")),
        ["models", owner, name, ..] | [owner, name, ..] => Some(format!("{owner}/{name}")),
        _ => Some("OWNER/NAME".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_from_paths() {
        let said = |text: &str| local(Path::new(text)).map_err(|e| e.to_string());
        for path in ["a.nii", "/data/b://c", r"C:\models\x", "c://x", "", "no/such/file"] {
            assert_eq!(said(path), Ok(()), "{path}");
        }
        for (address, part) in [
            (
                "https://zenodo.org/records/1/files/m.zip?download=1",
                "curl -L -O 'https://zenodo.org/records/1/files/m.zip",
            ),
            ("https://huggingface.co/MIC/model/tree/main", "hf download MIC/model "),
            ("https://huggingface.co/MIC/model/resolve/main/a.pth", "curl"),
            ("hf://MIC/model/fold_0", "hf download MIC/model "),
            ("hf://datasets/MIC/scans", "--repo-type dataset MIC/scans"),
            ("s3://bucket/key", "that service"),
            ("file:///home/x.pth", "the path alone"),
        ] {
            let error = said(address).unwrap_err();
            assert!(error.contains(part) && error.contains("nothing is downloaded"), "{error}");
        }
    }
}
